"""What a network is called with: its own inputs told apart from the context, and what its last call was like.

Nothing here runs a network.
"""

from .calling import UNASKED, Call, Takes, is_unasked, pair_of, refusing_pairs, takes_of, unasked_in
from .remembering import Example, remembered

__all__ = [
    "UNASKED",
    "Call",
    "Example",
    "Takes",
    "is_unasked",
    "pair_of",
    "refusing_pairs",
    "remembered",
    "takes_of",
    "unasked_in",
]
