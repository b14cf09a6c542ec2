"""What is asked for and who answers: specs, sites and plans, the open scope of a forward, samples that share a set.

How weights come about is not known here, and no operator is.
"""

from .batch import Blocks, batch_of, blocks_of, count_of
from .repeats import Order, Repeats, check_order, order_told, repeated, repeats_of
from .scope import Gate, Scope
from .spec import Plan, Site, WeightSpec, split

__all__ = [
    "Blocks",
    "Gate",
    "Order",
    "Plan",
    "Repeats",
    "Scope",
    "Site",
    "WeightSpec",
    "batch_of",
    "blocks_of",
    "check_order",
    "count_of",
    "order_told",
    "repeated",
    "repeats_of",
    "split",
]
