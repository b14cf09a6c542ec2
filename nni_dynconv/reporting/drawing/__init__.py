"""Marks on a page: lines, dots and a graph as SVG, arrays as PNG. What they show is not known here."""

from .graph import graph
from .kernels import laid_out
from .plots import COLOURS, Line, dots, lines
from .png import coloured, in_page, picture_of

__all__ = ["COLOURS", "Line", "coloured", "dots", "graph", "in_page", "laid_out", "lines", "picture_of"]
