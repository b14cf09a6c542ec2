"""What a found network is compared with: the same without generated weights, and with contexts that are not its own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...generation import ChunkedController, DynamicNetwork, WeightSource
from ...settings import Recipe
from ...sites import count_of

__all__ = ["ShuffledContexts", "StaticTwin", "static_twin"]


def static_twin(network: DynamicNetwork) -> DynamicNetwork:
    """Return the same structure with learned weights in the place of generated ones; it takes no context.

    Parameters
    ----------
    network
        It stays as it is; ordinary weights are copied, the learned ones are new, as large as torch's layers have them.

    Examples
    --------
    >>> twin = static_twin(network)  # doctest: +SKIP
    >>> y = twin(x)  # doctest: +SKIP
    """
    sites = list(network.source.sites.values())
    sizes = ChunkedController(scale_rule="torch")  # makes nothing, for nothing is made
    source = WeightSource(sizes, None, sites, [Recipe("learned", "none") for _ in sites])
    twin = DynamicNetwork(copy.deepcopy(network.network), source, network.architecture)
    return twin.train(network.training)


class _Called(nn.Module):
    """Is called as a dynamic network is, and looks at the call."""

    network: DynamicNetwork

    def __init__(self, network: DynamicNetwork, like: DynamicNetwork):
        super().__init__()
        self.network, self.takes = network, like.takes
        self.wants_context = like.source.of_context is not None


class StaticTwin(_Called):
    """A static twin that is called as its dynamic network is: the context is taken and left alone.

    Parameters
    ----------
    like
        The dynamic network.
    """

    def __init__(self, like: DynamicNetwork):
        super().__init__(static_twin(like), like)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        called = self.takes.call(inputs, options, self.wants_context)
        return self.network(*called.args, **called.kwargs)


class ShuffledContexts(_Called):
    """A dynamic network whose samples are shown each other's contexts, in training and after it.

    Parameters
    ----------
    network
        Its weights depend on a context.
    seed
        Of the order.
    """

    def __init__(self, network: DynamicNetwork, seed: int = 0):
        super().__init__(network, network)
        self._generator = torch.Generator().manual_seed(seed)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        called = self.takes.call(inputs, options, self.wants_context)
        context, more = self._shuffled(called.context), {} if called.index is None else {"index": called.index}
        return self.network(*called.args, context=context, **more, **called.kwargs)

    def _shuffled(self, context: Any) -> Any:
        count = count_of(context)
        if not count:
            return context
        order = torch.randperm(count, generator=self._generator)

        def turned(one: Tensor) -> Tensor:
            return one[order.to(one.device)] if one.dim() and one.shape[0] == count else one

        return pytree.tree_map_only(Tensor, turned, context)
