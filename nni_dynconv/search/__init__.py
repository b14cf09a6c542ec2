"""Training a supernet to its end: the strategy, its processes and penalties, rankings, and what comes after it.

What was found is trained to its end and compared here too. Which architecture is drawn is a sampler's affair, and
experiments of ``nnictl`` are none of this wing's.
"""

from .after_search import SupernetEvaluator
from .baselines import Comparison, Jury, compare, static_twin
from .closing import (
    Evaluators,
    Goal,
    KeepEpochs,
    Reports,
    Trained,
    Writer,
    evaluator_of,
    from_scratch,
    goal_of,
    initial_of,
    load_weights,
    measure,
    save_shown,
    train_by_step,
    train_final,
    train_network,
    words_of,
)
from .costing import called_on, costs_of
from .final import PROXIES, evolve, proxy_scores
from .guarding import candidate_of, module_of, site_of
from .lightning import in_place, loaders_of, loss_of, network_loss, replaced, silent, step_of
from .loaders import first_batches
from .ranking import Fidelity, Row, SupernetRanking, Task, distinct, fidelity, generated_losses
from .smoothing import smoothness
from .strategy import DynamicStrategy
from .timed import Allotted
from .trainer import TellPhase

__all__ = [
    "PROXIES",
    "Allotted",
    "Comparison",
    "DynamicStrategy",
    "Evaluators",
    "Fidelity",
    "Goal",
    "Jury",
    "KeepEpochs",
    "Reports",
    "Row",
    "SupernetEvaluator",
    "SupernetRanking",
    "Task",
    "TellPhase",
    "Trained",
    "Writer",
    "called_on",
    "candidate_of",
    "compare",
    "costs_of",
    "distinct",
    "evaluator_of",
    "evolve",
    "fidelity",
    "first_batches",
    "from_scratch",
    "generated_losses",
    "goal_of",
    "in_place",
    "initial_of",
    "load_weights",
    "loaders_of",
    "loss_of",
    "measure",
    "module_of",
    "network_loss",
    "proxy_scores",
    "replaced",
    "save_shown",
    "silent",
    "site_of",
    "smoothness",
    "static_twin",
    "step_of",
    "train_by_step",
    "train_final",
    "train_network",
    "words_of",
]
