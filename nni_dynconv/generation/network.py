"""A network of one architecture with its controller: a plain module, without NNI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..sites import batch_of, scope
from .decision import Decision
from .source import WeightSource

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

    def forward(self, x: Any, context: Any = None, index: Tensor | None = None) -> Tensor:
        """Run ``network(x, context)`` or ``network((x, context))``; several inputs go in as one tuple.

        Parameters
        ----------
        x
            ``(B, ...)``.
        context
            As the encoder takes it: one a sample, one for all, or, with ``index``, any number.
        index
            ``(B,)``, which context each sample has.

        Raises
        ------
        ContextError
            The context is missing, not wanted, or of another batch size; the index does not fit.
        """
        if context is None:
            (x, *_), _, context, _ = self.source.take_context((x,), {})
        inputs = x if isinstance(x, tuple) else (x,)
        decision = Decision(sites=tuple(self.source.sites.values()))
        opened = self.source.open(decision, context, batch_of(*inputs), index)
        with scope.enter(opened):
            if opened.blocks is None:
                return self.network(*inputs)
            return opened.blocks.restore(self.network(*opened.blocks.sort(inputs)))

    def extra_repr(self) -> str:
        return ", ".join(f"{label}={value!r}" for label, value in self.architecture.items())
