"""``linear``: an affine map whose weights are shared, or made anew for each sample."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import Axes

__all__ = ["linear"]


def linear(
    x: Tensor,  # B ... Cin
    weight: Tensor,  # Cout Cin, or B Cout Cin
    bias: Tensor | None = None,  # Cout, or B Cout
) -> Tensor:  # B ... Cout
    r"""Map the last axis of each sample with the shared weights, or with its own.

    .. math:: y_b = x_b w_b^\top + c_b, \qquad b = 1, \dots, B

    Parameters
    ----------
    x : Tensor, shape (B, ..., Cin)
    weight : Tensor, shape (Cout, Cin) or (B, Cout, Cin)
        Two axes: shared by all samples. Three: one set per sample.
    bias : Tensor, shape (Cout,) or (B, Cout), optional
        Shared or per sample, whatever the weight is.

    Returns
    -------
    Tensor, shape (B, ..., Cout)

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.

    Examples
    --------
    >>> linear(torch.ones(2, 3), torch.tensor([[[1.0, 1, 1]], [[2, 2, 2]]])).tolist()
    [[3.0], [6.0]]
    """
    check = _check if torch.compiler.is_compiling() else _check_once
    try:
        check(x.shape, weight.shape, None if bias is None else bias.shape)
    except TypeError:  # a symbolic size: nothing to remember it by
        _check(x.shape, weight.shape, None if bias is None else bias.shape)
    if weight.dim() == 2:
        shared = bias is None or bias.dim() == 1
        return F.linear(x, weight, bias) if shared else _add_bias(F.linear(x, weight), bias)
    if x.dim() == 2:
        return _add_bias(torch.bmm(x.unsqueeze(1), weight.mT).squeeze(1), bias)
    y = torch.bmm(x.flatten(1, -2), weight.mT)
    return _add_bias(y.unflatten(1, x.shape[1:-1]), bias)


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:  # B ... Cout, [B] Cout -> B ... Cout
    if bias is None:
        return y
    while bias.dim() not in (1, y.dim()):
        bias = bias.unsqueeze(1)
    return y + bias


def _check(x: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...] | None) -> None:
    axes = Axes("linear")
    if len(x) < 2:
        axes.fail(f"`x` has {len(x)} axes, {tuple(x)}, but needs 2 or more: B ... Cin. For one sample, pass `x[None]`.")
    axes.bind("x", x, " ".join(["B", *[f"N{i}" for i in range(1, len(x) - 1)], "Cin"]))
    if len(weight) not in (2, 3):
        axes.fail(
            f"`weight` has {len(weight)} axes, {tuple(weight)}, but needs 2 when all samples share it (Cout Cin) "
            f"or 3 when each sample has its own (B Cout Cin)."
        )
    axes.bind("weight", weight, "Cout Cin" if len(weight) == 2 else "B Cout Cin")
    if bias is not None:
        axes.bind("bias", bias, "B Cout" if len(bias) == 2 else "Cout")


_check_once = lru_cache(maxsize=4096)(_check)
