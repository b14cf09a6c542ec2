"""Normalisations, and the affine map behind them, ``x * weight + bias``: shared, or made anew for samples or blocks.

The statistics are torch's: a batch norm takes them from the whole batch, whatever its affine maps are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ShapeError
from .checks import Axes, check_tensors, is_whole
from .planning.sets import Counts, counts_of, lead_name

__all__ = ["affine", "batch_norm", "group_norm", "instance_norm", "layer_norm"]


def affine(
    x: Tensor,  # B C ..., or B ... *shape
    weight: Tensor | None = None,  # C, or B C, or D C; or *shape, ...
    bias: Tensor | None = None,
    shape: Sequence[int] | None = None,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # as x
    """Scale and shift the channels, or, with a ``shape``, the values of the last axes.

    Parameters
    ----------
    x : Tensor, shape (B, C, ...) or (B, ..., *shape)
    weight, bias : Tensor, shape (C,), (B, C) or (D, C), optional
        Without a leading axis: shared by all samples. With one: one set per sample, or one for each of D blocks of
        consecutive samples: of B/D samples, or of ``counts``. With ``shape``: that instead of ``C``.
    shape : sequence of int, optional
        The last axes of ``x``.
    counts : sequence of int, optional
        Samples in each of the D blocks, where they are not equal; their sum is B.

    Returns
    -------
    Tensor, shape of ``x``

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.

    Examples
    --------
    >>> affine(torch.ones(3, 1, 2), torch.tensor([[2.0], [5.0]]), counts=[2, 1]).tolist()
    [[[2.0, 2.0]], [[2.0, 2.0]], [[5.0, 5.0]]]
    """
    return _checked("affine", x, shape, weight, bias, counts).of(x)


def batch_norm(
    x: Tensor,  # B C ...
    running_mean: Tensor | None,  # C
    running_var: Tensor | None,  # C
    weight: Tensor | None = None,  # C, or B C, or D C
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B C ...
    """Batch normalisation with a shared, per-sample or per-block affine map.

    Parameters
    ----------
    x : Tensor, shape (B, C, ...)
    running_mean, running_var, training, momentum, eps
        As in :func:`torch.nn.functional.batch_norm`.
    weight, bias : Tensor, shape (C,), (B, C) or (D, C), optional
        One axis: shared by all samples. Two: one set per sample, or for each of D blocks of consecutive samples.
    counts : sequence of int, optional
        Samples in each of the D blocks, where they are not equal; their sum is B.

    Returns
    -------
    Tensor, shape (B, C, ...)

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.
    ValueError
        Torch's own: in training, a channel has a single value, which has no variance.
    RuntimeError
        Torch's own: running statistics are of another size, or missing where not training.

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 3.0]], [[1.0, 3.0]]])
    >>> weight = torch.tensor([[1.0], [10.0]])
    >>> batch_norm(x, None, None, weight, training=True).round().tolist()
    [[[-1.0, 1.0]], [[-10.0, 10.0]]]
    """
    mapped = _checked("batch_norm", x, None, weight, bias, counts)
    return mapped.of(F.batch_norm(x, running_mean, running_var, None, None, training, momentum, eps))


def instance_norm(
    x: Tensor,  # B C L ...
    running_mean: Tensor | None = None,  # C
    running_var: Tensor | None = None,  # C
    weight: Tensor | None = None,  # C, or B C, or D C
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B C L ...
    """Normalise each channel of each sample over its places, with a shared, per-sample or per-block affine map.

    Parameters
    ----------
    x : Tensor, shape (B, C, L, ...)
    running_mean, running_var, use_input_stats, momentum, eps
        As in :func:`torch.nn.functional.instance_norm`.
    weight, bias, counts
        As in :func:`batch_norm`.

    Returns
    -------
    Tensor, shape (B, C, L, ...)

    Raises
    ------
    ShapeError
        As in :func:`batch_norm`.
    ValueError
        Torch's own: a channel has a single place, which has no variance.

    Examples
    --------
    >>> instance_norm(torch.tensor([[[1.0, 3.0]]]), weight=torch.tensor([[2.0]])).round().tolist()
    [[[-2.0, 2.0]]]
    """
    mapped = _checked("instance_norm", x, None, weight, bias, counts)
    return mapped.of(F.instance_norm(x, running_mean, running_var, None, None, use_input_stats, momentum, eps))


def group_norm(
    x: Tensor,  # B C ...
    num_groups: int,
    weight: Tensor | None = None,  # C, or B C, or D C
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B C ...
    """Normalise each group of channels of each sample, with a shared, per-sample or per-block affine map.

    Parameters
    ----------
    x : Tensor, shape (B, C, ...)
    num_groups : int
        Divides ``C``.
    weight, bias, counts
        As in :func:`batch_norm`.
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor, shape (B, C, ...)

    Raises
    ------
    ShapeError
        As in :func:`batch_norm`.
    RuntimeError
        Torch's own: ``num_groups`` does not divide the channels.

    Examples
    --------
    >>> x, weight = torch.tensor([[[1.0], [3.0]]]), torch.tensor([[2.0, 2.0]])
    >>> group_norm(x, 1, weight).round().flatten().tolist()
    [-2.0, 2.0]
    """
    mapped = _checked("group_norm", x, None, weight, bias, counts)
    return mapped.of(F.group_norm(x, num_groups, None, None, eps))


def layer_norm(
    x: Tensor,  # B ... *normalized_shape
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,  # *normalized_shape, or B *normalized_shape, or D *normalized_shape
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:  # B ... *normalized_shape
    """Normalise the last axes of each sample, with a shared, per-sample or per-block affine map.

    Parameters
    ----------
    x : Tensor, shape (B, ..., *normalized_shape)
    normalized_shape : sequence of int
        The last axes of ``x``.
    weight, bias : Tensor, shape (*normalized_shape), (B, *normalized_shape) or (D, *normalized_shape), optional
        Shared by all samples; one set per sample; one for each of D blocks of consecutive samples.
    eps : float
        Added to the variance.
    counts : sequence of int, optional
        Samples in each of the D blocks, where they are not equal; their sum is B.

    Returns
    -------
    Tensor, shape (B, ..., *normalized_shape)

    Raises
    ------
    ShapeError
        If an axis does not fit; the text names it and shows both sizes.

    Examples
    --------
    >>> weight = torch.tensor([[1.0, 1.0], [5.0, 5.0]])
    >>> layer_norm(torch.tensor([[1.0, 3.0], [1.0, 3.0]]), (2,), weight).round().tolist()
    [[-1.0, 1.0], [-5.0, 5.0]]
    """
    if not isinstance(normalized_shape, Sequence) or not all(is_whole(one, 1) for one in normalized_shape):
        raise ShapeError(f"`layer_norm`: `normalized_shape` is {normalized_shape!r}, but must be a tuple of sizes.")
    mapped = _checked("layer_norm", x, tuple(normalized_shape), weight, bias, counts)
    return mapped.of(F.layer_norm(x, tuple(normalized_shape), None, None, eps))


class _Affine(NamedTuple):
    """One checked affine map."""

    weight: Tensor | None
    bias: Tensor | None
    shape: Sequence[int] | None  # the last axes; None: the channels, behind the batch
    counts: list[Counts | None]  # of the weight, and of the bias

    def of(self, x: Tensor) -> Tensor:
        """Apply it; memory grows with the number of sets, and with ``x``."""
        if self.weight is not None:
            x = self._combined(torch.mul, x, self.weight, self.counts[0])
        return x if self.bias is None else self._combined(torch.add, x, self.bias, self.counts[1])

    def _combined(
        self, function: Callable[[Tensor, Tensor], Tensor], x: Tensor, sets: Tensor, counts: Counts | None
    ) -> Tensor:
        if counts is None:
            return function(x, self._placed(sets, x.dim()))
        if len(set(counts)) == 1 and counts[0]:
            placed = self._placed(sets, x.dim()).unsqueeze(1)
            return function(x.unflatten(0, (len(counts), -1)), placed).flatten(0, 1)
        parts = zip(x.split(counts), sets.unbind(), strict=True)
        return torch.cat([function(block, self._placed(one, x.dim())) for block, one in parts])

    def _placed(self, sets: Tensor, axes: int) -> Tensor:  # [B] C -> [B] C 1 ..., or [B] *shape -> [B] 1 ... *shape
        if self.shape is None:
            return sets.reshape(*sets.shape, *[1] * (axes - 2))
        if sets.dim() == len(self.shape):
            return sets
        return sets.reshape(sets.shape[0], *[1] * (axes - sets.dim()), *self.shape)


def _checked(
    op: str,
    x: Tensor,
    shape: Sequence[int] | None,
    weight: Tensor | None,
    bias: Tensor | None,
    counts: Sequence[int] | None,
) -> _Affine:
    check_tensors(op, x=x, weight=weight, bias=bias)
    axes = Axes(op)
    names = [f"N{i}" for i in range(x.dim() - 1)]
    if shape is None and names:
        names[0] = "C"
    axes.bind("x", x.shape, " ".join(["B", *names]))
    if shape is None and x.dim() < 2:
        axes.fail(f"`x` has {x.dim()} axes, {tuple(x.shape)}, but needs 2 or more: B C ...")
    if shape is not None and (not shape or tuple(x.shape[1:])[-len(shape) :] != tuple(shape)):
        axes.fail(f"`x` {tuple(x.shape)} must have a batch and end in the normalised shape, {tuple(shape)}.")
    own = names[:1] if shape is None else names[len(names) - len(shape) :]
    return _Affine(
        weight, bias, shape, [_counts(axes, "weight", weight, own, counts), _counts(axes, "bias", bias, own, counts)]
    )


def _counts(
    axes: Axes, name: str, sets: Tensor | None, own: Sequence[str], counts: Sequence[int] | None
) -> Counts | None:
    if sets is None:
        return None
    if sets.dim() != len(own) + 1:
        axes.bind(name, sets.shape, " ".join(own))
        return None
    axes.bind(name, sets.shape, " ".join([lead_name(axes, sets.shape[0]), *own]))
    return None if sets.shape[0] == 1 else counts_of(axes, name, sets.shape[0], counts)
