"""What a network costs: shapes and multiply-adds by formulas, and NNI's profilers that ask for them.

Nothing is measured by a clock here.
"""

from .profiler import DynamicFlopsProfiler, DynamicNumParamsProfiler

__all__ = ["DynamicFlopsProfiler", "DynamicNumParamsProfiler"]
