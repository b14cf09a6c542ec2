"""``conv1d``, ``conv2d``, ``conv3d``: convolutions whose weights are shared, or made anew for samples or blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .calling import find_plan, run
from .composed import Composed
from .planning.geometry import Sizes

__all__ = ["conv1d", "conv2d", "conv3d"]


def conv2d(
    x: Tensor,  # B Cin H W
    weight: Tensor | Composed,  # Cout Cin/G Kh Kw, or B Cout Cin/G Kh Kw, or D Cout Cin/G Kh Kw; or [B] Gh Gw Cout ...
    bias: Tensor | None = None,  # Cout, or B Cout, or D Cout; or [B] Gh Gw Cout
    stride: int | Sizes = 1,
    padding: str | int | Sizes = 0,
    dilation: int | Sizes = 1,
    groups: int = 1,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B Cout Ho Wo
    r"""Convolve each sample with the shared weights, with its own, or with those of its block of samples.

    .. math:: y_b = x_b \star w_{d(b)} + c_{d(b)}, \qquad b = 1, \dots, B

    Values and gradients are those of a loop over the samples with :func:`torch.nn.functional.conv2d`, whatever
    path the planner takes. Memory grows with the number of sets of weights: none is repeated for its samples.

    Parameters
    ----------
    x : Tensor, shape (B, Cin, H, W)
    weight : Tensor, shape (Cout, Cin/G, Kh, Kw), (B, Cout, Cin/G, Kh, Kw) or (D, Cout, Cin/G, Kh, Kw)
        Four axes: shared by all samples. Five: one set per sample, or one for each of D blocks of consecutive samples:
        of B/D samples, or of ``counts``. Or a :class:`LowRank`, :class:`Scaled` or :class:`Mixed`: the planner forms
        these, or applies their parts. Two axes more, Gh and Gw, in front of the four: one set for each patch of a grid
        over the output. Sizes of patches differ by one place at most; each sees the pixels around it, so that alike
        weights leave no edges.
    bias : Tensor, shape (Cout,), (B, Cout) or (D, Cout), optional
        Shared, per sample or per block, whatever the weight is; with patches ``(Cout,)``, or as many sets as it has.
    stride, padding, dilation, groups
        As in :func:`torch.nn.functional.conv2d`, ``"same"`` and ``"valid"`` among them.
    counts : sequence of int, optional
        Samples in each of the D blocks, where they are not equal; their sum is B. Shared weights do not look at it.

    Returns
    -------
    Tensor, shape (B, Cout, Ho, Wo)

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(2, 1, 3, 3)
    >>> weight = torch.stack([torch.ones(1, 1, 3, 3), 2 * torch.ones(1, 1, 3, 3)])
    >>> conv2d(x, weight).flatten().tolist()
    [9.0, 18.0]
    >>> conv2d(torch.ones(3, 1, 3, 3), weight, counts=[2, 1]).flatten().tolist()
    [9.0, 9.0, 18.0]
    """
    plan = find_plan(2, x, weight, bias, (stride, padding, dilation, groups, counts))
    return run(plan, x, weight, bias)


def conv1d(
    x: Tensor,  # B Cin L
    weight: Tensor | Composed,  # Cout Cin/G K, or B Cout Cin/G K, or D Cout Cin/G K
    bias: Tensor | None = None,
    stride: int | Sizes = 1,
    padding: str | int | Sizes = 0,
    dilation: int | Sizes = 1,
    groups: int = 1,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B Cout Lo
    """Convolve sequences as :func:`conv2d` does images, by the same paths: a sequence is an image of one row.

    Parameters
    ----------
    x : Tensor, shape (B, Cin, L)
    weight : Tensor, shape (Cout, Cin/G, K), (B, Cout, Cin/G, K) or (D, Cout, Cin/G, K)
    bias, stride, padding, dilation, groups, counts
        As in :func:`conv2d`.

    Returns
    -------
    Tensor, shape (B, Cout, Lo)

    Raises
    ------
    ShapeError
        As in :func:`conv2d`.

    Examples
    --------
    >>> import torch
    >>> conv1d(torch.ones(2, 1, 3), torch.tensor([[[[1.0, 1.0]]], [[[2.0, 2.0]]]])).tolist()
    [[[2.0, 2.0]], [[4.0, 4.0]]]
    """
    plan = find_plan(1, x, weight, bias, (stride, padding, dilation, groups, counts))
    return run(plan, x, weight, bias)


def conv3d(
    x: Tensor,  # B Cin T H W
    weight: Tensor | Composed,  # Cout Cin/G Kt Kh Kw, or B Cout Cin/G Kt Kh Kw, or D Cout Cin/G Kt Kh Kw
    bias: Tensor | None = None,
    stride: int | Sizes = 1,
    padding: str | int | Sizes = 0,
    dilation: int | Sizes = 1,
    groups: int = 1,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B Cout To Ho Wo
    """Convolve volumes, or videos, as :func:`conv2d` does images.

    Parameters
    ----------
    x : Tensor, shape (B, Cin, T, H, W)
    weight : Tensor, shape (Cout, Cin/G, Kt, Kh, Kw), (B, Cout, Cin/G, Kt, Kh, Kw) or (D, Cout, Cin/G, Kt, Kh, Kw)
    bias, stride, padding, dilation, groups, counts
        As in :func:`conv2d`.

    Returns
    -------
    Tensor, shape (B, Cout, To, Ho, Wo)

    Raises
    ------
    ShapeError
        As in :func:`conv2d`.

    Examples
    --------
    >>> import torch
    >>> weight = torch.stack([torch.ones(1, 1, 2, 2, 2), 2 * torch.ones(1, 1, 2, 2, 2)])
    >>> conv3d(torch.ones(2, 1, 2, 2, 2), weight).flatten().tolist()
    [8.0, 16.0]
    """
    plan = find_plan(3, x, weight, bias, (stride, padding, dilation, groups, counts))
    return run(plan, x, weight, bias)
