"""Networks and supernets on disk: safetensors and JSON. A network is read back without NNI or its class.

What a run leaves beside them, and reports of it, are none of this wing's.
"""

from .examples import Port as Port
from .examples import Shown as Shown
from .files import example_in, load, save
from .modules import describe_module as describe_module
from .modules import make_module as make_module
from .supernets import load_supernet, save_supernet

__all__ = ["example_in", "load", "load_supernet", "save", "save_supernet"]
