"""What a run keeps of itself, to go on where it was: checkpoints, their files, and random generators.

What a search and its evaluator have to keep is not known here, nor what a network is on disk.
"""

from . import generators
from .checkpoint import Checkpoint
from .encoding import decode, encode
from .stopping import Stopping
from .store import Store

__all__ = ["Checkpoint", "Stopping", "Store", "decode", "encode", "generators"]
