"""What a network costs: multiply-adds by formulas and NNI's profilers that ask for them; and what one run of any costs.

Which costs count is not decided here.
"""

from .explaining import Explanation, explain_step
from .fitting import Fitted, fit
from .profiler import DynamicFlopsProfiler, DynamicNumParamsProfiler
from .running import by_turns, multiply_adds, seconds
from .steps import StepCost, estimate, estimate_and_warn

__all__ = [
    "DynamicFlopsProfiler",
    "DynamicNumParamsProfiler",
    "Explanation",
    "Fitted",
    "StepCost",
    "by_turns",
    "estimate",
    "estimate_and_warn",
    "explain_step",
    "fit",
    "multiply_adds",
    "seconds",
]
