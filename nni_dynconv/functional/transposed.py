"""``conv_transpose1d``, ``2d``, ``3d``: transposed convolutions with shared, per-sample or per-block weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .calling import find_plan, run
from .composed import Composed
from .planning.geometry import Sizes

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def conv_transpose1d(
    x: Tensor,  # B Cin L
    weight: Tensor | Composed,  # [D] Cin Cout/G K
    bias: Tensor | None = None,  # [D] Cout
    stride: int | Sizes = 1,
    padding: int | Sizes = 0,
    output_padding: int | Sizes = 0,
    groups: int = 1,
    dilation: int | Sizes = 1,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B Cout Lo
    """Transposed convolution of sequences, as :func:`conv_transpose2d` is of images.

    Parameters
    ----------
    x : Tensor, shape (B, Cin, L)
    weight : Tensor, shape (Cin, Cout/G, K), (B, Cin, Cout/G, K) or (D, Cin, Cout/G, K)
    bias, stride, padding, output_padding, groups, dilation, counts
        As in :func:`conv_transpose2d`.

    Returns
    -------
    Tensor, shape (B, Cout, Lo)

    Raises
    ------
    ShapeError
        As in :func:`conv_transpose2d`.

    Examples
    --------
    >>> import torch
    >>> conv_transpose1d(torch.ones(2, 1, 2), torch.tensor([[[[1.0, 1.0]]], [[[2.0, 2.0]]]])).tolist()
    [[[1.0, 2.0, 1.0]], [[2.0, 4.0, 2.0]]]
    """
    plan = find_plan(-1, x, weight, bias, (stride, padding, output_padding, groups, dilation, counts))
    return run(plan, x, weight, bias)


def conv_transpose2d(
    x: Tensor,  # B Cin H W
    weight: Tensor | Composed,  # [D] Cin Cout/G Kh Kw
    bias: Tensor | None = None,  # [D] Cout
    stride: int | Sizes = 1,
    padding: int | Sizes = 0,
    output_padding: int | Sizes = 0,
    groups: int = 1,
    dilation: int | Sizes = 1,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B Cout Ho Wo
    """Transposed convolution: the gradient of :func:`~nni_dynconv.functional.conv2d` with respect to its input.

    Values and gradients are those of a loop over the samples with :func:`torch.nn.functional.conv_transpose2d`. An
    export with a dynamic batch gets an ordinary convolution of an input with zeros put between its values.

    Parameters
    ----------
    x : Tensor, shape (B, Cin, H, W)
    weight : Tensor, shape (Cin, Cout/G, Kh, Kw), (B, Cin, Cout/G, Kh, Kw) or (D, Cin, Cout/G, Kh, Kw)
        Shared by all samples; one set per sample; one for each of D blocks of consecutive samples.
    bias : Tensor, shape (Cout,), (B, Cout) or (D, Cout), optional
        Shared, per sample or per block, whatever the weight is.
    stride, padding, output_padding, groups, dilation
        As in :func:`torch.nn.functional.conv_transpose2d`, and in its order.
    counts : sequence of int, optional
        Samples in each of the D blocks, where they are not equal; their sum is B.

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
    >>> conv_transpose2d(torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, 2.0]]]]), stride=2)
    tensor([[[[1., 2., 1., 2.]]]])
    """
    plan = find_plan(-2, x, weight, bias, (stride, padding, output_padding, groups, dilation, counts))
    return run(plan, x, weight, bias)


def conv_transpose3d(
    x: Tensor,  # B Cin T H W
    weight: Tensor | Composed,  # [D] Cin Cout/G Kt Kh Kw
    bias: Tensor | None = None,  # [D] Cout
    stride: int | Sizes = 1,
    padding: int | Sizes = 0,
    output_padding: int | Sizes = 0,
    groups: int = 1,
    dilation: int | Sizes = 1,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B Cout To Ho Wo
    """Transposed convolution of volumes, or videos, as :func:`conv_transpose2d` is of images.

    Parameters
    ----------
    x : Tensor, shape (B, Cin, T, H, W)
    weight : Tensor, shape (Cin, Cout/G, Kt, Kh, Kw), (B, Cin, Cout/G, Kt, Kh, Kw) or (D, Cin, Cout/G, Kt, Kh, Kw)
    bias, stride, padding, output_padding, groups, dilation, counts
        As in :func:`conv_transpose2d`.

    Returns
    -------
    Tensor, shape (B, Cout, To, Ho, Wo)

    Raises
    ------
    ShapeError
        As in :func:`conv_transpose2d`.

    Examples
    --------
    >>> import torch
    >>> conv_transpose3d(torch.ones(2, 1, 1, 1, 1), torch.ones(2, 1, 1, 2, 2, 2)).shape
    torch.Size([2, 1, 2, 2, 2])
    """
    plan = find_plan(-3, x, weight, bias, (stride, padding, output_padding, groups, dilation, counts))
    return run(plan, x, weight, bias)
