"""A model space as a supernet: NNI's super-modules told by the scope, mixtures, statistics of BatchNorm, the mutator.

Nothing here trains.
"""

from .calibration import calibrate, fixed_affine, input_of, modes_kept, recalibrated, tracking_norms
from .cells import ScopedCell
from .mixture import HOOKS
from .mutating import is_supernet
from .mutator import DynamicWeightMutator
from .naming import Around, name_sites

__all__ = [
    "HOOKS",
    "Around",
    "DynamicWeightMutator",
    "ScopedCell",
    "calibrate",
    "fixed_affine",
    "input_of",
    "is_supernet",
    "modes_kept",
    "name_sites",
    "recalibrated",
    "tracking_norms",
]
