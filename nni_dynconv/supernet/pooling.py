"""Mean and variance of all that a BatchNorm sees over some batches, as if these were one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..samplers import distributed

__all__ = ["Moments", "Pool", "merged"]


class Moments(NamedTuple):
    """Of the values of each channel, ``(C,)`` each.

    Parameters
    ----------
    number, mean, squares
        How many there are, their mean, and the sum of the squares of their distances from it.
    """

    number: Tensor
    mean: Tensor
    squares: Tensor


def merged(parts: Iterable[Moments]) -> Moments:
    """Return the moments of all values together.

    References
    ----------
    Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, COMPSTAT 1982.

    Examples
    --------
    >>> def of(*values):
    ...     x = torch.tensor([values])
    ...     return Moments(torch.tensor([float(len(values))]), x.mean(1), (x - x.mean(1)).square().sum(1))
    >>> [one.item() for one in merged([of(1.0, 3.0), of(5.0)])]
    [3.0, 3.0, 8.0]
    """
    found, *others = parts
    for one in others:
        number = found.number + one.number
        share, apart = one.number / number.clamp_min(1), one.mean - found.mean
        squares = found.squares + one.squares + found.number * share * apart.square()
        found = Moments(number, found.mean + share * apart, squares)
    return found


class Pool:
    """What one norm has seen.

    Every sample counts alike, and of sequences and images every position of every sample.

    Parameters
    ----------
    norm
        With running statistics.

    Attributes
    ----------
    calls
        How often it ran.
    """

    def __init__(self, norm: _BatchNorm):
        self.norm, self.calls = norm, 0
        dtype = torch.float32 if _mean(norm).device.type == "mps" else torch.float64
        self.moments = Moments(*torch.zeros(3, len(_mean(norm)), dtype=dtype, device=_mean(norm).device))
        self._several = False

    def see(self, x: Tensor) -> None:  # B C *
        """Take what the norm is given; of a norm that is sliced, the first channels."""
        values = x.detach().to(self.moments.mean.dtype).movedim(1, 0).flatten(1)
        if not values.shape[1]:
            return
        variance, mean = torch.var_mean(values, 1, correction=0)
        size, rest = torch.full_like(mean, values.shape[1]), len(self.moments.mean) - len(mean)
        ones = (torch.nn.functional.pad(one, (0, rest)) for one in (size, mean, variance * size))
        self.moments = merged([self.moments, Moments(*ones)])
        self.calls, self._several = self.calls + 1, self._several or values.shape[1] > 1

    @property
    def reached(self) -> bool:
        """Whether it has statistics to give: one value a time, as of a context that the batch shares, has none."""
        return self._several

    def share(self) -> None:
        """Take what the same norm has seen in other processes, each of which has to call this."""
        here = self.moments.mean.device
        found = distributed.of_all((Moments(*(one.cpu() for one in self.moments)), self.calls, self._several))
        self.moments = Moments(*(one.to(here) for one in merged(moments for moments, _, _ in found)))
        self.calls, self._several = sum(calls for _, calls, _ in found), any(several for _, _, several in found)

    @torch.no_grad()
    def write(self, correction: int = 0) -> None:
        """Give the norm what it has seen as its running statistics, if it has any to give.

        Parameters
        ----------
        correction
            1 for the unbiased variance, which torch keeps; 0 for the one by which it standardises in training.
        """
        if not self.reached:
            return
        number, mean, squares = self.moments
        for buffer, value in ((_mean(self.norm), mean), (_variance(self.norm), squares / (number - correction))):
            buffer.copy_(torch.where(number > 0, value, buffer).to(buffer.dtype))


def _mean(norm: _BatchNorm) -> Tensor:
    assert norm.running_mean is not None
    return norm.running_mean


def _variance(norm: _BatchNorm) -> Tensor:
    assert norm.running_var is not None
    return norm.running_var
