"""Controllers: the hypernetworks that make weights, as flat vectors of unit variance.

Bases, deltas and scales are not their affair.
"""

from .base import Controller
from .chunked import ChunkedController
from .coordinate import CoordinateController
from .experts import ExpertsController
from .flat import FlatController
from .low_rank import LowRankController

__all__ = [
    "ChunkedController",
    "Controller",
    "CoordinateController",
    "ExpertsController",
    "FlatController",
    "LowRankController",
]
