"""Training a supernet to its end: the strategy, its processes and penalties, rankings, and what comes after it.

Which architecture is drawn is a sampler's affair, and experiments of ``nnictl`` are none of this wing's.
"""

from .after_search import SupernetEvaluator
from .final import evolve
from .lightning import loaders_of, loss_of, network_loss, replaced, silent, step_of
from .loaders import first_batches
from .ranking import Fidelity, Row, SupernetRanking, Task, distinct, fidelity, generated_losses
from .smoothing import smoothness
from .strategy import DynamicStrategy

__all__ = [
    "DynamicStrategy",
    "Fidelity",
    "Row",
    "SupernetEvaluator",
    "SupernetRanking",
    "Task",
    "distinct",
    "evolve",
    "fidelity",
    "first_batches",
    "generated_losses",
    "loaders_of",
    "loss_of",
    "network_loss",
    "replaced",
    "silent",
    "smoothness",
    "step_of",
]
