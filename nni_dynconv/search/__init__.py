"""Training a supernet to its end: the strategy, its processes and penalties, rankings, and what comes after it.

Which architecture is drawn is a sampler's affair, and experiments of ``nnictl`` are none of this wing's.
"""

from .after_search import SupernetEvaluator
from .costing import called_on
from .final import PROXIES, evolve, proxy_scores
from .lightning import loaders_of, loss_of, network_loss, replaced, silent, step_of
from .loaders import first_batches
from .ranking import Fidelity, Row, SupernetRanking, Task, distinct, fidelity, generated_losses
from .smoothing import smoothness
from .strategy import DynamicStrategy

__all__ = [
    "PROXIES",
    "DynamicStrategy",
    "Fidelity",
    "Row",
    "SupernetEvaluator",
    "SupernetRanking",
    "Task",
    "called_on",
    "distinct",
    "evolve",
    "fidelity",
    "first_batches",
    "generated_losses",
    "loaders_of",
    "loss_of",
    "network_loss",
    "proxy_scores",
    "replaced",
    "silent",
    "smoothness",
    "step_of",
]
