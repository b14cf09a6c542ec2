"""What a search was worth: what it found beside its static twin, random architectures and shuffled contexts.

Nothing here decides: what was found is found, and trained, before.
"""

from .comparing import compare, compare_with
from .jury import Jury
from .rivals import ShuffledContexts, StaticTwin, static_twin
from .table import TWIN, Comparison, Entry

__all__ = [
    "TWIN",
    "Comparison",
    "Entry",
    "Jury",
    "ShuffledContexts",
    "StaticTwin",
    "compare",
    "compare_with",
    "static_twin",
]
