"""What is asked for: the tensors of an op, the place where it stands, and the plan of one architecture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ..errors import ParamsError

__all__ = ["Plan", "Site", "WeightSpec", "split"]


@dataclass(frozen=True)
class WeightSpec:
    """One tensor that an op needs.

    Parameters
    ----------
    name
        The op's own name for it, such as ``weight`` or ``depthwise``.
    shape
        Shape of one set, without a batch axis.
    fan_in
        Number of inputs that one output of the op sums over with this tensor, on the mean: it sets the scale at the
        start. A kernel of 3 with a stride of 2 gives outputs of a transposed convolution 1 or 2 taps along an axis.
    kind
        ``weight`` multiplies the input, ``bias`` is added; ``scale`` and ``shift`` change an output a little, to
        ``(1 + scale) * y + shift``: an affine map near the identity.
    transposed
        Groups of a transposed convolution, whose weight has the outputs of a group in its second axis; 0 for all
        others, which have the outputs in their first.
    fan_out
        Number of outputs that one input reaches with this tensor, on the mean; ``None`` where nobody said. A bias has
        that of its weight.
    groups
        Of a convolution.

    Examples
    --------
    >>> WeightSpec("weight", (8, 3, 5, 5), fan_in=75).numel
    600
    >>> WeightSpec("weight", (8, 3, 5, 5), fan_in=50, transposed=4).outputs
    12
    """

    name: str
    shape: tuple[int, ...]
    fan_in: float
    kind: Literal["weight", "bias", "scale", "shift"] = "weight"
    transposed: int = 0
    fan_out: float | None = None
    groups: int = 1

    def __deepcopy__(self, memo: dict[int, Any]) -> WeightSpec:
        return self  # it never changes, and a large space has thousands

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("fan_in", "transposed", "fan_out", "groups")}
        if any(isinstance(one, np.generic) for one in (*self.shape, *numbers.values())):  # no file takes those
            object.__setattr__(self, "shape", tuple(int(one) for one in self.shape))
            for name, one in numbers.items():
                object.__setattr__(self, name, one.item() if isinstance(one, np.generic) else one)

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """Number of output channels that it makes."""
        return self.transposed * self.shape[1] if self.transposed else self.shape[0]


@dataclass(frozen=True)
class Site:
    """One place in the network where an op stands.

    Parameters
    ----------
    name
        Owning label, candidate and path inside the candidate; the path in the network for an op outside any choice.
    op
        Class name of the op.
    specs
        What it needs, in the op's order.
    patch_grid
        Patches of the image, along its height and width, of which each has a set of its own where codes have places.
    """

    name: str
    op: str
    specs: tuple[WeightSpec, ...]
    patch_grid: tuple[int, int] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Site:
        return self  # it never changes, and a large space has thousands

    @property
    def num_generated(self) -> int:
        """Number of values that the controller makes for it."""
        return sum(spec.numel for spec in self.specs)


@dataclass(frozen=True)
class Plan:
    """The sites that are alive under one sample: what the controller is told to make. ``print(plan)`` is a table.

    Parameters
    ----------
    sites
        In the order of the network's modules.
    sample
        The architecture, or ``None`` for the whole supernet.
    """

    sites: tuple[Site, ...]
    sample: Mapping[str, Any] | None = None

    @property
    def num_generated(self) -> int:
        """Values that the controller makes for one context."""
        return sum(site.num_generated for site in self.sites)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __str__(self) -> str:
        rows = [("site", "op", "tensors", "values")]
        for site in self.sites:
            tensors = ", ".join(f"{spec.name} {'x'.join(map(str, spec.shape))}" for spec in site.specs)
            rows.append((site.name, site.op, tensors, f"{site.num_generated:,}"))
        rows.append(("total", f"{len(self.sites)} sites", "", f"{self.num_generated:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def split(flat: Tensor, specs: Sequence[WeightSpec], where: str = "params") -> dict[str, Tensor]:
    """Cut one flat vector into the tensors of an op.

    Parameters
    ----------
    flat
        ``(N,)``, or ``(B, N)`` for one set a sample; ``N`` is the total of the specs.
    specs
        In order.
    where
        Name of the op, for the error's words.

    Returns
    -------
    Views by name, ``(*shape)`` or ``(B, *shape)``.

    Raises
    ------
    ParamsError
        The length does not fit.

    Examples
    --------
    >>> import torch
    >>> specs = [WeightSpec("weight", (1, 2), 2), WeightSpec("bias", (1,), 2, "bias")]
    >>> split(torch.arange(3.0), specs)
    {'weight': tensor([[0., 1.]]), 'bias': tensor([2.])}
    """
    total = sum(spec.numel for spec in specs)
    if flat.dim() not in (1, 2) or flat.shape[-1] != total:
        needed = ", ".join(f"{spec.name} {spec.shape} = {spec.numel}" for spec in specs)
        raise ParamsError(
            f"{where}: flat params must be ({total},) or (B, {total}), but are {tuple(flat.shape)}.\n  needed: {needed}"
        )
    pieces = flat.split([spec.numel for spec in specs], dim=-1)
    batch = flat.shape[:-1]
    return {spec.name: piece.reshape(*batch, *spec.shape) for spec, piece in zip(specs, pieces, strict=True)}
