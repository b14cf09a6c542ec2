"""What a network costs: multiply-adds by formulas and NNI's profilers that ask for them; and what one run of any costs.

Which costs count is not decided here.
"""

from .profiler import DynamicFlopsProfiler, DynamicNumParamsProfiler
from .running import by_turns, multiply_adds, seconds

__all__ = ["DynamicFlopsProfiler", "DynamicNumParamsProfiler", "by_turns", "multiply_adds", "seconds"]
