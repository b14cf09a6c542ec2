"""Networks as graphs of torch's operators: traced, written as data, and run without the class that defined them."""

from typing import Any

from .running import Portable

__all__ = ["Portable", "describe_network"]


def describe_network(*arguments: Any) -> Any:
    """Write a network as data: see :func:`~nni_dynconv.export.portable.describing.describe_network`."""
    from .describing import describe_network  # it loads torch's compiler, which who reads a file does without

    return describe_network(*arguments)
