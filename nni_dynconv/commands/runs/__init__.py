"""Commands that go on with a run: `train` and `export`. What a run is, is not known here."""

from .export import export
from .train import train

__all__ = ["export", "train"]
