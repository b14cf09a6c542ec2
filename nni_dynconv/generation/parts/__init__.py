"""What controllers and encoders are made of and keep between versions: running statistics, and states of earlier files.

Nothing here makes a weight.
"""

from .places import code_of_all, codes_of_patches, has_places, in_patches
from .standardise import Gathered, Standardise
from .upgrading import Upgrading, upgraded

__all__ = [
    "Gathered",
    "Standardise",
    "Upgrading",
    "code_of_all",
    "codes_of_patches",
    "has_places",
    "in_patches",
    "upgraded",
]
