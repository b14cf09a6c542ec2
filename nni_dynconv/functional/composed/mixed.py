"""A weight as a mixture of a few that all samples share, in shares of each one's own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import ShapeError
from .shapes import measured_once

__all__ = ["Mixed"]


class Mixed(NamedTuple):
    r"""The weight of a convolution, or of a linear map, as a mixture of ``E`` weights, on top of a shared base.

    .. math:: W_d = W_0 + \sum_e r_{d e} K_e

    The convolutions of :mod:`nni_dynconv.functional`, transposed ones too, and its ``linear`` take it in the place of a
    weight. The planner mixes the weights, by one matrix product for all of them, or, where that costs less, applies
    each to all samples and mixes what comes out.

    Parameters
    ----------
    shares : Tensor, shape (E,), (B, E) or (D, E)
        Shared, per sample or per block.
    bank : Tensor, shape (E, Cout, Cin/G, \*K), transposed (E, Cin, Cout/G, \*K)
    base : Tensor, shape (Cout, Cin/G, \*K), optional
        Shared by all samples.

    Raises
    ------
    ShapeError
        When it is used: the parts do not fit.

    References
    ----------
    Yang et al., CondConv: Conditionally parameterized convolutions for efficient inference, NeurIPS 2019, section 3.1
    (that mixing weights and mixing outputs are the same).

    Examples
    --------
    >>> weight = Mixed(torch.tensor([[1.0, 0.0], [2.0, 1.0]]), torch.tensor([[[[1.0]]], [[[10.0]]]]))
    >>> weight.shape, weight.whole().flatten().tolist()
    ((2, 1, 1, 1), [1.0, 12.0])
    """

    shares: Tensor
    bank: Tensor
    base: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole weight.

        Raises
        ------
        ShapeError
            The parts do not fit.
        """
        base = None if self.base is None else tuple(self.base.shape)
        shapes = tuple(self.shares.shape), tuple(self.bank.shape), base
        return _mixed(*shapes)

    @property
    def rank(self) -> int:
        """How many weights are mixed."""
        return self.bank.shape[0]

    @property
    def requires_grad(self) -> bool:
        """Whether gradients of any part are wanted."""
        return any(part is not None and part.requires_grad for part in self)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the whole weight."""
        return self.bank.dtype

    def whole(self) -> Tensor:
        """Form the weight: ``(*shape)``, by one matrix product."""
        shares = self.shares if self.shares.dim() == 2 else self.shares.unsqueeze(0)
        bank = self.bank.flatten(1)
        made = shares @ bank if self.base is None else torch.addmm(self.base.flatten(), shares, bank)
        return made.reshape(self.shape)

    def as_image(self) -> Mixed:
        """Return the weight of an image of one row, for that of a sequence."""
        base = None if self.base is None else self.base.unsqueeze(-2)
        return Mixed(self.shares, self.bank.unsqueeze(-2), base)


@measured_once
def _mixed(shares: tuple[int, ...], bank: tuple[int, ...], base: tuple[int, ...] | None) -> tuple[int, ...]:
    if len(bank) < 3 or len(shares) not in (1, 2):
        raise ShapeError(
            f"`Mixed`: `shares` are {shares} and `bank` is {bank}, but they must be [D] E and E Cout Cin/G *K."
        )
    if shares[-1] != bank[0]:
        raise ShapeError(
            f"`Mixed`: `shares` are {shares}, for {shares[-1]} weights, but `bank`, {bank}, has {bank[0]}."
        )
    if base is not None and base != bank[1:]:
        raise ShapeError(f"`Mixed`: `base` is {base}, but the weights of `bank` are {bank[1:]}.")
    return *shares[:-1], *bank[1:]
