"""``linear``: an affine map whose weights are shared, or made anew for samples or blocks of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import Axes
from .sets import Counts, bind_sets, spread

__all__ = ["linear"]


class Sets(NamedTuple):
    """Samples that each set serves; ``None``: the weights are shared, or each sample has its own."""

    weight: Counts | None
    bias: Counts | None  # only where its sets are not those of the weight


def linear(
    x: Tensor,  # B ... Cin
    weight: Tensor,  # Cout Cin, or B Cout Cin, or D Cout Cin
    bias: Tensor | None = None,  # Cout, or B Cout, or D Cout
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B ... Cout
    r"""Map the last axis of each sample with the shared weights, with its own, or with those of its block of samples.

    .. math:: y_b = x_b w_{d(b)}^\top + c_{d(b)}, \qquad b = 1, \dots, B

    Parameters
    ----------
    x : Tensor, shape (B, ..., Cin)
    weight : Tensor, shape (Cout, Cin), (B, Cout, Cin) or (D, Cout, Cin)
        Two axes: shared by all samples. Three: one set per sample, or one for each of D blocks of consecutive samples:
        of B/D samples, or of ``counts``.
    bias : Tensor, shape (Cout,), (B, Cout) or (D, Cout), optional
        Shared, per sample or per block, whatever the weight is.
    counts : sequence of int, optional
        Samples in each of the D blocks, where they are not equal; their sum is B.

    Returns
    -------
    Tensor, shape (B, ..., Cout)

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.

    Examples
    --------
    >>> weight = torch.tensor([[[1.0, 1, 1]], [[2, 2, 2]]])
    >>> linear(torch.ones(2, 3), weight).tolist()
    [[3.0], [6.0]]
    >>> linear(torch.ones(4, 3), weight).flatten().tolist()
    [3.0, 3.0, 6.0, 6.0]
    """
    sets = _find_sets(x, weight, bias, None if counts is None else tuple(counts))
    if sets.bias is not None and bias is not None:
        return _add_bias(_map(x, weight, None, sets.weight), spread(bias, sets.bias))
    return _map(x, weight, bias, sets.weight)


def _map(x: Tensor, weight: Tensor, bias: Tensor | None, counts: Counts | None) -> Tensor:
    if weight.dim() == 2:
        shared = bias is None or bias.dim() == 1
        return F.linear(x, weight, bias) if shared else _add_bias(F.linear(x, weight), bias)
    if counts is None:
        return _add_bias(_multiply(x, weight), bias)
    if len(set(counts)) == 1 and x.shape[0]:  # the samples of a block are more rows of one matrix
        y = _add_bias(_multiply(x.unflatten(0, (len(counts), -1)), weight), bias)
        return y.flatten(0, 1)
    biases = [None] * len(counts) if bias is None else bias.expand(len(counts), bias.shape[-1]).unbind()
    return torch.cat([F.linear(*one) for one in zip(x.split(counts), weight.unbind(), biases, strict=True)])


def _multiply(x: Tensor, weight: Tensor) -> Tensor:  # B ... Cin, B Cout Cin -> B ... Cout
    if x.dim() == 2:
        return torch.bmm(x.unsqueeze(1), weight.mT).squeeze(1)
    return torch.bmm(x.flatten(1, -2), weight.mT).unflatten(1, x.shape[1:-1])


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:  # B ... Cout, [B] Cout -> B ... Cout
    if bias is None:
        return y
    while bias.dim() not in (1, y.dim()):
        bias = bias.unsqueeze(1)
    return y + bias


def _find_sets(x: Tensor, weight: Tensor, bias: Tensor | None, counts: Counts | None) -> Sets:
    shapes = (x.shape, weight.shape, None if bias is None else bias.shape)
    if torch.compiler.is_compiling():
        return _check(*shapes, counts)
    try:
        return _check_once(*shapes, counts)
    except TypeError:  # a symbolic size: nothing to remember it by
        return _check(*shapes, counts)


def _check(
    x: Sequence[int], weight: Sequence[int], bias: Sequence[int] | None, counts: Sequence[int] | None = None
) -> Sets:
    axes = Axes("linear")
    if len(x) < 2:
        axes.fail(f"`x` has {len(x)} axes, {tuple(x)}, but needs 2 or more: B ... Cin. For one sample, pass `x[None]`.")
    axes.bind("x", x, " ".join(["B", *[f"N{i}" for i in range(1, len(x) - 1)], "Cin"]))
    _, own, apart = bind_sets(axes, weight, bias, "Cout Cin", counts)
    return Sets(own, apart)


_check_once = lru_cache(maxsize=4096)(_check)
