"""Controllers: the hypernetworks that make weights, as flat vectors of unit variance.

Bases, deltas and scales are not their affair.
"""

from .base import Controller
from .basis import BasisController
from .chunked import ChunkedController
from .coordinate import CoordinateController
from .experts import ExpertsController
from .flat import FlatController
from .low_rank import LowRankController
from .mixing import Mixing as Mixing
from .mixing import Mixture as Mixture

__all__ = [
    "BasisController",
    "ChunkedController",
    "Controller",
    "CoordinateController",
    "ExpertsController",
    "FlatController",
    "LowRankController",
]
