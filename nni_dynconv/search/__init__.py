"""Training a supernet to its end: the strategy, its processes and penalties, rankings, and what comes after it.

Which architecture is drawn is a sampler's affair, and experiments of ``nnictl`` are none of this wing's.
"""

from .after_search import SupernetEvaluator
from .blame import candidate_of, module_of, site_of
from .lightning import in_place, loaders_of, loss_of, network_loss, replaced, silent, step_of
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
    "candidate_of",
    "distinct",
    "fidelity",
    "first_batches",
    "generated_losses",
    "in_place",
    "loaders_of",
    "loss_of",
    "module_of",
    "network_loss",
    "replaced",
    "silent",
    "site_of",
    "smoothness",
    "step_of",
]
