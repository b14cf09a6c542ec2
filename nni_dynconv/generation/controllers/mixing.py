"""What a controller hands out that mixes a few sets of weights: the sets, and whose shares are how large."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...settings import Shares
from ...sites import Site
from .base import Controller

__all__ = ["Blocks", "Mixing", "Mixture", "blocks_of", "mixed"]

Blocks = list[tuple[int, int]]
"""Flat weights one after the other: how many rows each has, and how many values there are in a row."""


class Mixture(NamedTuple):
    """The weights of a site as a mixture.

    Parameters
    ----------
    shares
        ``(B, E)``.
    bank
        ``(E, N)``.
    stds
        Standard deviation of each tensor in the bank; ``None``: 1.
    """

    shares: Tensor
    bank: Tensor
    stds: Mapping[str, float] | None = None

    def whole(self, site: Site) -> Tensor:
        """Return the site's values, of unit variance, ``(B, N)``."""
        if self.stds is None:
            return self.shares @ self.bank
        sizes = [torch.full((spec.numel,), 1 / self.stds[spec.name]) for spec in site.specs]
        return self.shares @ (self.bank * torch.cat(sizes).to(self.bank))


class Mixing(Controller):
    """A controller that mixes sets of weights which all samples share: ops may be given these and the shares."""

    mixes = True
    """Whether it does, as it is set."""

    @abstractmethod
    def mixtures(self, sites: Sequence[Site], context: Tensor) -> list[Mixture]:
        """Return what :meth:`generate` mixes, for contexts ``(B, dim)``."""


def blocks_of(site: Site, shares: Shares) -> Blocks:
    """Return what of a site is mixed by shares of its own: all of it, or each row of a weight.

    Examples
    --------
    >>> specs = WeightSpec("weight", (8, 2, 3, 3), 18), WeightSpec("bias", (8,), 18, "bias")
    >>> site = Site("conv", "DynamicConv2d", specs)
    >>> blocks_of(site, "row"), blocks_of(site, "site")
    ([(8, 18), (1, 8)], [(1, 152)])
    """
    if shares == "site":
        return [(1, site.num_generated)]
    rows = [spec.shape[0] if len(spec.shape) > 1 else 1 for spec in site.specs]
    return [(count, spec.numel // count) for count, spec in zip(rows, site.specs, strict=True)]


def mixed(shares: Tensor, bank: Tensor, blocks: Blocks) -> Tensor:  # ... row E, E N -> ... N
    """Mix sets of weights, each row of a block by shares of its own."""
    if len(blocks) == 1 and blocks[0][0] == 1:
        return shares.squeeze(-2) @ bank
    sets = bank.split([rows * values for rows, values in blocks], dim=1)
    pairs = zip(shares.split([rows for rows, _ in blocks], dim=-2), sets, strict=True)
    parts = [torch.einsum("...re,ern->...rn", own, some.unflatten(1, (own.shape[-2], -1))) for own, some in pairs]
    return torch.cat([one.flatten(-2) for one in parts], dim=-1)
