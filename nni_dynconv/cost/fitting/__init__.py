"""`delta="auto"`: the richest recipe of each site whose weights cost no more than a budget allows."""

from .fitting import fit
from .table import Fitted, SiteFitted

__all__ = ["Fitted", "SiteFitted", "fit"]
