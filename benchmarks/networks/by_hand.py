"""What people write by hand to condition a network on a context: FiLM, CondConv, low-rank changes. Plain torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BY_HAND", "Conditioned"]

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


class Conditioned(nn.Module):
    """A network whose layers are conditioned, each by a linear map of the context, which it hands to them.

    Parameters
    ----------
    network
        Its convolutions and linear maps are wrapped.
    wrap
        One of :data:`BY_HAND`.
    """

    def __init__(self, network: nn.Module, wrap: Callable[[Layer, int], nn.Module], context_dim: int):
        super().__init__()
        self.network = network
        self.wrapped: list[nn.Module] = []
        for path, layer in list(network.named_modules()):
            if isinstance(layer, Layer):
                owner = network.get_submodule(path.rpartition(".")[0])
                setattr(owner, path.rpartition(".")[2], own := wrap(layer, context_dim))
                self.wrapped.append(own)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        for layer in self.wrapped:
            layer.context = context
        y: Tensor = self.network(x)
        return y


class Film(nn.Module):
    """Perez et al., AAAI 2018, on a layer: its output without bias, scaled for each channel."""

    context: Tensor

    def __init__(self, layer: Layer, context_dim: int):
        super().__init__()
        self.layer, self.scale = layer, nn.Linear(context_dim, _outputs(layer))
        self.bias, layer.bias = layer.bias, None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        y = y * _along(1 + self.scale(self.context), y)
        return y if self.bias is None else y + _along(self.bias, y)


class Mixture(nn.Module):
    """Yang et al., NeurIPS 2019 (CondConv), four kernels: mixed, then applied by the groups of one convolution."""

    context: Tensor
    EXPERTS = 4

    def __init__(self, layer: Layer, context_dim: int):
        super().__init__()
        self.layer, self.shape = layer, layer.weight.shape
        bank = torch.stack([torch.empty_like(layer.weight).normal_(std=0.05) for _ in range(self.EXPERTS)])
        self.bank, self.routing = nn.Parameter(bank.flatten(1)), nn.Linear(context_dim, self.EXPERTS)
        del layer.weight

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.routing(self.context).sigmoid() @ self.bank).unflatten(1, self.shape)
        return _each_its_own(x, weight, self.layer)


class LowRank(nn.Module):
    """Hu et al., ICLR 2022, with a product of rank 4 for each sample: beside the layer, or added to its kernel."""

    context: Tensor
    RANK = 4

    def __init__(self, layer: Layer, context_dim: int):
        super().__init__()
        self.layer, self.weight = layer, layer.weight
        self.rows, self.columns = layer.weight.shape[0], layer.weight[0].numel()
        self.factors = nn.Linear(context_dim, self.RANK * (self.rows + self.columns))
        self.is_small = self.RANK * (self.rows + self.columns) >= self.rows * self.columns
        if self.is_small:
            self.factors = nn.Linear(context_dim, self.rows * self.columns)

    def forward(self, x: Tensor) -> Tensor:
        made = self.factors(self.context)
        if self.is_small:
            delta = made
        else:
            A, B = made.split([self.RANK * self.rows, self.RANK * self.columns], 1)
            delta = A.view(-1, self.rows, self.RANK) @ B.view(-1, self.RANK, self.columns)
        return _each_its_own(x, self.weight + delta.view(-1, *self.weight.shape), self.layer)


class LowRankBeside(LowRank):
    """The same, applied to activations: a convolution to four channels for each sample, and a 1x1 behind it."""

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        if self.is_small or not isinstance(layer, nn.Conv2d) or layer.groups > 1:
            return super().forward(x)
        made = self.factors(self.context)
        A, B = made.split([self.RANK * self.rows, self.RANK * self.columns], 1)
        kernel = B.reshape(-1, *self.weight.shape[1:])  # B r channels, in the groups of one convolution
        options = layer.stride, layer.padding, layer.dilation, len(x)
        thin = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernel, None, *options)
        y: Tensor = layer(x)
        mixed = A.view(-1, self.rows, self.RANK) @ thin.view(len(x), self.RANK, -1)
        return y + mixed.view(y.shape)


def _each_its_own(x: Tensor, weight: Tensor, layer: Layer) -> Tensor:  # weight: B *shape
    if isinstance(layer, nn.Linear):
        y = (weight @ x.unsqueeze(-1)).squeeze(-1)
        return y if layer.bias is None else y + layer.bias
    together, kernels = x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1)
    groups = layer.groups * len(x)
    if isinstance(layer, nn.ConvTranspose2d):
        y = F.conv_transpose2d(together, kernels, None, layer.stride, groups=groups)
    else:
        y = F.conv2d(together, kernels, None, layer.stride, layer.padding, layer.dilation, groups)
    y = y.view(len(x), -1, *y.shape[2:])
    return y if layer.bias is None else y + _along(layer.bias, y)


def _outputs(layer: Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _along(values: Tensor, y: Tensor) -> Tensor:
    return values.unflatten(-1, (-1, *[1] * (y.dim() - 2)))


BY_HAND: dict[str, tuple[type[nn.Module], ...]] = {
    "film": (Film,),
    "rank 4": (LowRank, LowRankBeside),
    "experts": (Mixture,),
}
"""What a user would write for a delta; of several the faster counts."""
