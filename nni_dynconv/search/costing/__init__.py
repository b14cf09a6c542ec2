"""What the architectures of a supernet cost: counted or timed, held against a budget; the largest and the smallest.

How good they are is not asked here.
"""

from .costs import Cost, Costs, costs_of
from .extremes import extremes
from .forwards import Called, called_on

__all__ = ["Called", "Cost", "Costs", "called_on", "costs_of", "extremes"]
