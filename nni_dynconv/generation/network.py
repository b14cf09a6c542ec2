"""A network of one architecture with its controller: a plain module, without NNI."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from ..ops import DynamicOp
from ..sites import batch_of, scope
from .calling import refuse_context, refusing_pairs, takes_of
from .decision import Decision
from .source import Made, WeightSource

if TYPE_CHECKING:
    from ..cost import Explanation, StepCost

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
        self.takes = takes_of(network)
        self._made: Made | None = None
        source.caller = "network"
        for one in network.modules():
            if isinstance(one, DynamicOp):
                one.caller = "network"

    @contextmanager
    def fixed(self, context: Any = None) -> Iterator[DynamicNetwork]:
        """For a block, make the weights once, for one context that lasts, such as a stream's: call it without context.

        Parameters
        ----------
        context
            One, with or without a first axis of 1.

        Raises
        ------
        ContextError
            There are several, or each layer's own input is the context.

        Examples
        --------
        >>> with network.fixed(context):  # doctest: +SKIP
        ...     results = [network(frame) for frame in stream]
        """
        before, self._made = self._made, self.source.make_all(context)
        try:
            yield self
        finally:
            self._made = before

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run ``network(x, context)``, as the supernet ``network(x, context=c)``, or ``network((x, context))``.

        Parameters
        ----------
        *inputs, **options
            Of the network's own forward, and behind them:
        context
            As the encoder takes it: one a sample, one for all, or, with ``index``, any number.
        index
            ``(B,)``, which context each sample has.

        Raises
        ------
        ContextError
            The context is missing, not wanted, or of another batch size; the index does not fit.
        """
        if self._made is not None:
            called = self.takes.call(inputs, options, False)
            refuse_context(called)
            with scope.enter(self.source.given(self._made)):
                return self.network(*called.args, **called.kwargs)
        called = self.takes.call(inputs, options, self.source.of_context is not None)
        self.source.remember(called)
        decision = Decision(sites=tuple(self.source.sites.values()))
        batch = batch_of(*called.args, *called.kwargs.values())
        opened = self.source.open(decision, called.context, batch, called.index)
        with scope.enter(opened), refusing_pairs(called.args, self.source.of_context):
            if opened.blocks is None:
                return self.network(*called.args, **called.kwargs)
            args, kwargs = opened.blocks.sort((called.args, called.kwargs))
            return opened.blocks.restore(self.network(*args, **kwargs))

    def cost(self, *inputs: Any, **options: Any) -> StepCost:
        """Estimate what a training step costs, as :meth:`nni_dynconv.DynamicWeightMutator.cost` does.

        Parameters
        ----------
        *inputs, **options
            What the network is called with, a batch of it.
        """
        from ..cost import estimate_and_warn

        return estimate_and_warn(self, inputs, options)

    def explain(self, *inputs: Any, **options: Any) -> Explanation:
        """Measure one training step, and tell what each site takes of it, as the mutator's ``explain`` does.

        Parameters
        ----------
        *inputs, **options
            What the network is called with: ``x, context``.
        """
        from ..cost import explain_step

        network = copy.deepcopy(self).train()
        return explain_step(network, network.source, lambda: network(*inputs, **options))

    def extra_repr(self) -> str:
        return ", ".join(f"{label}={value!r}" for label, value in self.architecture.items())


def _as_called(self: Any, x: Any, context: Any = None, index: Any = None, *more: Any, **options: Any) -> Any:
    """How exporters are to name what a network is called with."""


DynamicNetwork.forward.__signature__ = inspect.signature(_as_called)  # type: ignore[attr-defined]
