"""Training a supernet to its end: the strategy, its processes and penalties, rankings, and what comes after it.

What was found is trained to its end and compared here too. Which architecture is drawn is a sampler's affair, and
experiments of ``nnictl`` are none of this wing's.
"""

from .after_search import SupernetEvaluator
from .baselines import Comparison, compare, static_twin
from .closing import (
    Evaluators,
    Goal,
    Reports,
    Trained,
    Writer,
    evaluator_of,
    from_scratch,
    goal_of,
    initial_of,
    load_weights,
    measure,
    train_by_step,
    train_final,
    train_network,
    words_of,
)
from .lightning import loaders_of, loss_of, network_loss, replaced, silent, step_of
from .loaders import first_batches
from .ranking import Fidelity, Row, SupernetRanking, Task, distinct, fidelity, generated_losses
from .smoothing import smoothness
from .strategy import DynamicStrategy

__all__ = [
    "Comparison",
    "DynamicStrategy",
    "Evaluators",
    "Fidelity",
    "Goal",
    "Reports",
    "Row",
    "SupernetEvaluator",
    "SupernetRanking",
    "Task",
    "Trained",
    "Writer",
    "compare",
    "distinct",
    "evaluator_of",
    "fidelity",
    "first_batches",
    "from_scratch",
    "generated_losses",
    "goal_of",
    "initial_of",
    "load_weights",
    "loaders_of",
    "loss_of",
    "measure",
    "network_loss",
    "replaced",
    "silent",
    "smoothness",
    "static_twin",
    "step_of",
    "train_by_step",
    "train_final",
    "train_network",
    "words_of",
]
