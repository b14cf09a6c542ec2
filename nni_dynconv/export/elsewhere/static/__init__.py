"""One context for good, as ordinary layers of torch: a module, and a folder that is read without this package."""

from .layers import make_static
from .writing import export_static

__all__ = ["export_static", "make_static"]
