"""Controllers: the hypernetworks that make weights."""

from .base import Controller
from .chunked import ChunkedController

__all__ = ["ChunkedController", "Controller"]
