"""Which architectures keep a space's constraints: the most probable of them, and draws among them.

Constraints are read once, into sums and tables; beginnings of architectures that can no longer keep them are not gone
on with. What is more probable than what, a sampler says.
"""

from .allowed import Allowed
from .growing import Growth
from .leading import Ahead, Ranked, leading
from .reading import read

__all__ = ["Ahead", "Allowed", "Growth", "Ranked", "leading", "read"]
