"""A weight as the product of two thin matrices: which weights are factored, into what, and multiplied again."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..sites import Site, WeightSpec, split

__all__ = ["factors_of", "multiplied"]


def factors_of(spec: WeightSpec, rank: int) -> tuple[WeightSpec, ...]:
    """Return ``A (Cout, r)`` and ``B (r, ...)``, which keeps the axes of the kernel; or the tensor itself.

    It stays whole where A and B would be no smaller. So do biases, affine maps and depthwise kernels, whose channels
    would else share ``r`` kernels.

    Examples
    --------
    >>> [one.shape for one in factors_of(WeightSpec("weight", (8, 16, 3, 3), 144), rank=2)]
    [(8, 2), (2, 16, 3, 3)]
    >>> [one.shape for one in factors_of(WeightSpec("weight", (64, 1, 5, 5), 25, groups=64), rank=2)]
    [(64, 1, 5, 5)]
    """
    rows, columns = spec.shape[0], math.prod(spec.shape[1:])
    depthwise = spec.groups > 1 and spec.shape[1:2] == (1,)
    if spec.kind != "weight" or depthwise or rank * (rows + columns) >= rows * columns:
        return (spec,)
    reached, share = (rank, 1.0) if spec.transposed else (rows, rank / rows)  # by A, and by B of what the tensor does
    A = WeightSpec(f"{spec.name}.A", (rows, rank), rank, fan_out=reached)
    fan_out = None if spec.fan_out is None else spec.fan_out * share
    return A, WeightSpec(f"{spec.name}.B", (rank, *spec.shape[1:]), spec.fan_in, fan_out=fan_out)


def multiplied(flat: Tensor, site: Site, asked: Site) -> Tensor:
    """Return the values of a site's own tensors, ``(..., N)``, from those of their factors.

    Parameters
    ----------
    flat
        The values of ``asked``, whose specs are :func:`factors_of` the site's.
    """
    parts = split(flat, asked.specs)
    made = [_whole(spec, parts).flatten(-len(spec.shape)) for spec in site.specs]
    return made[0] if len(made) == 1 else torch.cat(made, dim=-1)


def _whole(spec: WeightSpec, parts: Mapping[str, Tensor]) -> Tensor:
    """Return a tensor as it was made, or ``A B / sqrt(r)``: of unit variance where A and B are."""
    if spec.name in parts:
        return parts[spec.name]
    A, B = parts[f"{spec.name}.A"], parts[f"{spec.name}.B"]
    return ((A * A.shape[-1] ** -0.5) @ B.flatten(1 - len(spec.shape))).unflatten(-1, spec.shape[1:])
