"""Commands on runs: two go on with one, two show what they found. What a run is, is not known here."""

from .compare import compare
from .export import export
from .report import report
from .train import train

__all__ = ["compare", "export", "report", "train"]
