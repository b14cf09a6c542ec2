"""The end of a run: what was found is trained to its end, measured, reported and written.

Which architecture wins is not decided here; what it is compared with is the affair of ``baselines``, and ``searching``
joins both.
"""

from .best import Goal, goal_of
from .evaluators import Evaluators
from .keeping import KeepEpochs
from .reports import Reports, words_of
from .scratch import from_scratch, initial_of
from .stepping import evaluator_of, train_by_step
from .training import Trained, measure, train_final, train_network
from .writing import Writer, load_weights, save_shown, save_weights

__all__ = [
    "Evaluators",
    "Goal",
    "KeepEpochs",
    "Reports",
    "Trained",
    "Writer",
    "evaluator_of",
    "from_scratch",
    "goal_of",
    "initial_of",
    "load_weights",
    "measure",
    "save_shown",
    "save_weights",
    "train_by_step",
    "train_final",
    "train_network",
    "words_of",
]
