"""Rankings of architectures: comparing them by held-out loss, and telling how well one ranking foretells another.

Which ones are compared is not decided here.
"""

from .contest import Task, distinct, generated_losses, held_out_loss, train_briefly
from .report import Row, SupernetRanking
from .statistics import Fidelity, fidelity, interval, kendall_tau, precision, regret

__all__ = [
    "Fidelity",
    "Row",
    "SupernetRanking",
    "Task",
    "distinct",
    "fidelity",
    "generated_losses",
    "held_out_loss",
    "interval",
    "kendall_tau",
    "precision",
    "regret",
    "train_briefly",
]
