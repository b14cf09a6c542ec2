"""What a network costs: multiply-adds by formulas and NNI's profilers that ask for them; and what one run of any costs.

Which costs count is not decided here.
"""

from .profiler import DynamicFlopsProfiler, DynamicNumParamsProfiler
from .running import by_turns, multiply_adds, seconds
from .steps import StepCost, estimate, estimate_and_warn

__all__ = [
    "DynamicFlopsProfiler",
    "DynamicNumParamsProfiler",
    "StepCost",
    "by_turns",
    "estimate",
    "estimate_and_warn",
    "multiply_adds",
    "seconds",
]
