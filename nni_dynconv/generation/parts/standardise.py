"""Running statistics of what controllers look at: values of any size come out around zero, with variance one."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...processes import together
from ...sites import scope
from .upgrading import Upgrading

__all__ = ["Gathered", "Standardise"]


class Standardise(nn.BatchNorm1d):
    """Standardisation of a network's own features without learned scale: they move, so that late batches count most.

    A batch of one is standardised by the running values, and counts in them; it used to leave no trace.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int):
        super().__init__(dim, affine=False)

    def forward(self, x: Tensor) -> Tensor:  # B D -> B D
        if not self.training or len(x) != 1:
            return super().forward(x)
        if not scope.in_backward():
            self._count(x.detach()[0])
        return (x - self.running_mean) * (self.running_var + self.eps).rsqrt()

    @torch.no_grad()
    def _count(self, x: Tensor) -> None:
        """Update the statistics by one sample, as exponential averages: of its distance from the mean, too."""
        self.num_batches_tracked += 1
        weight: Any = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked
        distance = x - self.running_mean
        self.running_mean += weight * distance
        self.running_var.copy_((1 - weight) * (self.running_var + weight * distance.square()))


class Gathered(Upgrading):
    r"""Standardisation of what a network is given, by mean and variance over all that it has seen in training.

    .. math:: z = (x - \mu) / \sigma

    In training the statistics count the batch first, and standardise it then: each row by itself, also in a batch of
    one or two; processes that train together count the batches of all. In evaluation they stay. What never varied is
    not divided, and what is not finite does not count.

    Parameters
    ----------
    dim
        Length of the axis whose places have statistics of their own.
    axis
        Which axis that is.

    Attributes
    ----------
    mean, var
        ``(dim,)``; until something was seen, 0 and 1.
    count
        Values of each place that were seen.

    References
    ----------
    Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, COMPSTAT 1982.

    Examples
    --------
    >>> standardise = Gathered(1)
    >>> standardise(torch.tensor([[100.0], [200.0]])).flatten()
    tensor([-1.,  1.])
    >>> standardise.eval()(torch.tensor([[150.0]])).item()
    0.0
    """

    mean: Tensor
    var: Tensor
    count: Tensor
    UNSEEN = 1 << 30
    """What counts as seen in a state of a version that did not standardise: its values stay as they are."""

    def __init__(self, dim: int, axis: int = -1):
        super().__init__()
        self.axis = axis
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():  # what comes next refuses it in its words
            return x
        if self.training and not scope.in_backward():
            self._count(x.detach().movedim(self.axis, -1).flatten(0, -2).to(self.mean.dtype))
        varies = self.var > (1e-4 * self.mean).square() + 1e-12
        scale = torch.where(varies, self.var, 1.0).rsqrt()
        shape = [-1 if axis == self.axis % x.dim() else 1 for axis in range(x.dim())]
        return ((x - self.mean.view(shape)) * scale.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _count(self, x: Tensor) -> None:  # n dim
        var, mean = torch.var_mean(x, 0, correction=0) if len(x) else (self.var, self.mean)
        for one in _of_all(torch.stack([mean, var, torch.full_like(mean, len(x))])):
            self._add(*one)

    def _add(self, mean: Tensor, var: Tensor, number: Tensor) -> None:
        """Count values of which there are so many at each place."""
        total = self.count + number[0].long()
        share = torch.where((mean + var).isfinite(), number / total.clamp_min(1), 0.0)  # of the new values
        distance = torch.where(share > 0, mean - self.mean, 0.0)
        var = torch.where(share > 0, var, self.var)
        self.var.copy_(torch.lerp(self.var, var, share) + share * (1 - share) * distance.square())
        self.mean += share * distance
        self.count.copy_(total)

    def upgrade(self, state: dict[str, Any], prefix: str) -> None:
        if f"{prefix}count" not in state:
            state[f"{prefix}mean"], state[f"{prefix}var"] = torch.zeros_like(self.mean), torch.ones_like(self.var)
            state[f"{prefix}count"] = torch.full_like(self.count, self.UNSEEN)

    def extra_repr(self) -> str:
        return f"{len(self.mean)}, axis={self.axis}"


def _of_all(mine: Tensor) -> list[Tensor]:
    """Return a tensor of one shape from each process that trains together, in their order."""
    if not together():
        return [mine]
    values = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(values, mine)
    return values
