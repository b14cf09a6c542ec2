"""What a run leaves: the one layout of its folder, `run.json`, which says how far it came, and its history. No torch.

What the files of networks and supernets hold is `export`'s affair.
"""

from .history import History
from .layout import CRASH_FILE, ERROR_FILE, TRAINED, UNTRAINED, WHERE, Run

__all__ = ["CRASH_FILE", "ERROR_FILE", "TRAINED", "UNTRAINED", "WHERE", "History", "Run"]
