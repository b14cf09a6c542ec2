"""Commands on runs: `train` and `export` go on with one, `report` and `compare` show some. What a run is, is not known here."""

from .compare import compare
from .export import export
from .report import report
from .train import train

__all__ = ["compare", "export", "report", "train"]
