"""Context encoders: what the controller looks at, as one vector a sample. Any module with ``out_dim`` is one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ContextError

__all__ = ["FeatureMapContext", "SequenceContext", "VectorContext"]


class Standardise(nn.BatchNorm1d):
    """Running standardisation without learned scale; a batch of one is standardised by the running values."""

    def __init__(self, dim: int):
        super().__init__(dim, affine=False)

    def forward(self, x: Tensor) -> Tensor:  # B D -> B D
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(x)


def _expect(context: Tensor, axes: str, size: int, encoder: nn.Module) -> None:
    names = axes.split()
    axis = next(index for index, name in enumerate(names) if name == "D")
    if context.dim() != len(names) or context.shape[axis] != size:
        raise ContextError(
            f"{type(encoder).__name__} takes a context ({', '.join(names)}) with D = {size}, "
            f"but was given {tuple(context.shape)}."
        )


class VectorContext(nn.Module):
    """A vector through a small MLP.

    Parameters
    ----------
    in_features
        Length ``D`` of the vector.
    dim
        Length of the code.

    Examples
    --------
    >>> VectorContext(3, dim=8)(torch.zeros(5, 3)).shape
    torch.Size([5, 8])
    """

    def __init__(self, in_features: int, dim: int):
        super().__init__()
        self.in_features, self.dim, self.out_dim = in_features, dim, dim
        self.mlp = nn.Sequential(nn.Linear(in_features, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, context: Tensor) -> Tensor:  # B D, or D for a context that the batch shares -> B dim
        if context.dim() == 1:
            context = context[None]
        _expect(context, "B D", self.in_features, self)
        return self.mlp(context)


class FeatureMapContext(nn.Module):
    """A feature map, or a stack of frames, through two strided convolutions and the strength of their answers.

    The code is an MLP of the standardised mean and log-variance over places. The plain mean of a convolution hardly
    varies between samples at first, and a controller then ignores it for hundreds of steps.

    Parameters
    ----------
    in_channels
        Channels ``D`` of the map.
    dim
        Length of the code.

    Examples
    --------
    >>> FeatureMapContext(3, dim=8)(torch.rand(5, 3, 16, 16)).shape
    torch.Size([5, 8])
    """

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        self.in_channels, self.dim, self.out_dim = in_channels, dim, dim
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, dim, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 3, stride=2, padding=1)
        )
        self.norm = Standardise(2 * dim)
        self.mlp = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, context: Tensor) -> Tensor:  # B D H W -> B dim
        _expect(context, "B D H W", self.in_channels, self)
        places = self.features(context).flatten(2)  # B dim places
        mean, spread = places.mean(2), places.var(2, correction=0)
        return self.mlp(self.norm(torch.cat([mean, (spread + 1e-6).log()], dim=1)))


class SequenceContext(nn.Module):
    """A sequence through a gated recurrent unit; the code is its last state.

    Parameters
    ----------
    in_features
        Length ``D`` of one element.
    dim
        Length of the code.

    Examples
    --------
    >>> SequenceContext(3, dim=8)(torch.zeros(5, 7, 3)).shape
    torch.Size([5, 8])
    """

    def __init__(self, in_features: int, dim: int):
        super().__init__()
        self.in_features, self.dim, self.out_dim = in_features, dim, dim
        self.gru = nn.GRU(in_features, dim, batch_first=True)

    def forward(self, context: Tensor) -> Tensor:  # B T D -> B dim
        _expect(context, "B T D", self.in_features, self)
        return self.gru(context)[1][-1]
