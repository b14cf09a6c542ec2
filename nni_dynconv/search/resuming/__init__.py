"""A search that was killed goes on where it was: what its stages keep, and how Lightning's loops are kept and restored.

What a checkpoint is on disk is the wing `keeping`'s affair.
"""

from .describing import described
from .keeper import Keeper, Memo
from .training import KeepTraining

__all__ = ["KeepTraining", "Keeper", "Memo", "described"]
