"""A network of one architecture with its controller: a plain module, without NNI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from . import scope
from .source import WeightSource, batch_of

__all__ = ["DynamicNetwork"]


class DynamicNetwork(nn.Module):
    """Call it as ``network(x, context)``: the controller makes the weights, the network uses them.

    Parameters
    ----------
    network
        One architecture, with dynamic ops in it.
    source
        Makes the weights of just these ops.
    architecture
        The NNI sample that it comes from.
    """

    def __init__(self, network: nn.Module, source: WeightSource, architecture: Mapping[str, Any]):
        super().__init__()
        self.network, self.source = network, source
        self.architecture = dict(architecture)

    def forward(self, x: Any, context: Any = None) -> Tensor:
        """Run ``network(x, context)`` or ``network((x, context))``; several inputs go in as one tuple."""
        if context is None:
            (x, *_), _, context = self.source.take_context((x,), {})
        inputs = x if isinstance(x, tuple) else (x,)
        with scope.enter(self.source.open((None, None), context, batch_of(inputs, {}))):
            return self.network(*inputs)

    def extra_repr(self) -> str:
        return ", ".join(f"{label}={value!r}" for label, value in self.architecture.items())
