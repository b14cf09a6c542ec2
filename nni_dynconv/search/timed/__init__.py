"""The time that a run may take, and how it is shared out between the search and what comes after it.

Who gives it (a trainer, NNI, ``launch``) is told from outside; how long a run has been going on, its keeper knows.
"""

from .limit import Allotted, TimeLimit, allotted_by
from .needs import Needs, Tempo, comparison_seconds
from .stopping import StopInTime

__all__ = ["Allotted", "Needs", "StopInTime", "Tempo", "TimeLimit", "allotted_by", "comparison_seconds"]
