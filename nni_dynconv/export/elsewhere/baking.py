"""One context, baked in: a network whose weights were made once, and which takes none."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ...generation import DynamicNetwork
from ...sites import scope

__all__ = ["Baked", "bake"]


class Baked(nn.Module):
    """A network with the weights of one context, as buffers; the controller is gone.

    Parameters
    ----------
    network
        It is not needed any more.
    context
        The one that counts.
    """

    def __init__(self, network: DynamicNetwork, context: Any):
        super().__init__()
        self.network, self._source = network.network, [network.source]  # in a list: it is no part of the state
        self._names: dict[str, dict[str, str]] = {}
        with torch.no_grad():
            made = network.source.make_all(context)
        for site, tensors in made.items():
            self._names[site] = {name: self._keep(site, name, one) for name, one in tensors.items()}

    def _keep(self, site: str, name: str, tensor: Tensor) -> str:
        kept = f"{site}/{name}".replace(".", "/")
        self.register_buffer(kept, tensor.detach().clone())
        return kept

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run the network, without a context."""
        made = {
            site: {name: self.get_buffer(kept) for name, kept in names.items()} for site, names in self._names.items()
        }
        with scope.enter(self._source[0].given(made)):
            return self.network(*inputs, **options)


def bake(network: DynamicNetwork, context: Any = None) -> Baked:
    """Return a network with the weights of one context baked in: it runs without a controller.

    Parameters
    ----------
    network
        It stays as it is.
    context
        One, with or without a first axis of 1; ``None`` where weights depend on none.

    Raises
    ------
    ContextError
        There are several, or weights are made from each layer's own input.

    Examples
    --------
    >>> plain = bake(nni_dynconv.load("runs/mine"), context)  # doctest: +SKIP
    >>> y = plain(x)  # doctest: +SKIP
    """
    return Baked(copy.deepcopy(network).cpu().eval(), context).eval()
