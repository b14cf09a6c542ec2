"""What a run leaves: the one layout of its folder, and `run.json`, which says how far it came. No torch.

What the files of networks and supernets hold is `export`'s affair.
"""

from .layout import TRAINED, UNTRAINED, Run

__all__ = ["TRAINED", "UNTRAINED", "Run"]
