"""Sets of weights and the samples they serve: all of them, one each, or one block of consecutive samples each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import Axes

__all__ = ["Counts", "bind_sets", "counts_of", "lead_name", "spread"]

Counts = tuple[int, ...]


def counts_of(axes: Axes, tensor: str, sets: int, counts: Sequence[int] | None) -> Counts | None:
    """Return how many samples each of ``sets`` serves; ``None``: each serves one.

    Raises
    ------
    ShapeError
        The sets cannot be dealt out to the ``B`` samples.
    """
    B = axes["B"]
    if counts is not None and len(counts) == sets:
        if any(isinstance(one, (bool, float)) or one < 0 for one in counts) or sum(counts) != B:
            axes.fail(f"`counts` is {tuple(counts)}, but must be whole numbers that sum up to {B}, axis `B` of `x`.")
        return None if sets == B and all(one == 1 for one in counts) else tuple(counts)
    if sets == B:
        return None
    if sets == 1:
        return (B,)
    if counts is not None:
        axes.fail(f"`counts` has {len(counts)} numbers, but `{tensor}` has {sets} sets. Give one number a set.")
    if sets == 0 or B % sets:
        axes.fail(
            f"axis `B` is {B} in `x` but {sets} in `{tensor}`, which does not divide it. Give one set for each sample, "
            f"one for each of equal blocks of samples, or `counts=`, the number of samples of each set."
        )
    return (B // sets,) * sets


def bind_sets(
    axes: Axes, weight: Sequence[int], bias: Sequence[int] | None, names: str, counts: Sequence[int] | None
) -> tuple[bool, Counts | None, Counts | None]:
    """Bind weight and bias, shared or with a leading axis of sets.

    Returns
    -------
    Whether the weight has several sets; the samples that each serves, ``None`` for one each; and the same of the bias,
    ``None`` where its sets are those of the weight, or shared.

    Raises
    ------
    ShapeError
        An axis does not fit, or the sets cannot be dealt out to the ``B`` samples.
    """
    rank = len(names.split())
    if len(weight) not in (rank, rank + 1):
        axes.fail(
            f"`weight` has {len(weight)} axes, {tuple(weight)}, but needs {rank} when all samples share it ({names}) "
            f"or {rank + 1} when each sample, or each block of samples, has its own (B {names})."
        )
    per_sample = len(weight) == rank + 1
    axes.bind("weight", weight, f"{lead_name(axes, weight[0])} {names}" if per_sample else names)
    own = counts_of(axes, "weight", weight[0], counts) if per_sample else None
    return per_sample, own, None if bias is None else _bind_bias(axes, bias, own, counts)


def _bind_bias(axes: Axes, bias: Sequence[int], own: Counts | None, counts: Sequence[int] | None) -> Counts | None:
    """Return which samples each set of the bias serves, where they are not those of the weight's sets."""
    if len(bias) != 2:
        axes.bind("bias", bias, "Cout")
        return None
    sets = bias[0]
    axes.bind("bias", bias, f"{lead_name(axes, sets)} Cout")
    if sets == 1 or (own is not None and sets == len(own)):
        return None
    found = counts_of(axes, "bias", sets, counts)
    return (1,) * sets if found is None and own is not None else found


def lead_name(axes: Axes, sets: int) -> str:
    """Return the name of a leading axis of sets: one for each sample, one for all, or one for each block."""
    return "B" if sets == axes["B"] else "1" if sets == 1 else "D"


def spread(bias: Tensor, counts: Counts) -> Tensor:  # D Cout -> B Cout
    """Repeat each row for its block's samples; a bias is small beside the output it is added to."""
    if len(set(counts)) == 1:
        return bias.repeat_interleave(counts[0], 0)
    return bias.repeat_interleave(torch.tensor(counts, device=bias.device), 0, output_size=sum(counts))
