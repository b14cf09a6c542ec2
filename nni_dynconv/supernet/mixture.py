"""Mixtures of candidates: outputs added up, each times its factor; the convolutions among them run as one.

Convolution is linear in its kernel: a mixture of convolutions is one convolution with the mixed kernel, in which each
kernel is embedded at its place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple, cast

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.oneshot.pytorch.supermodule._expression_utils import weighted_sum
from torch import Tensor, nn

from ..ops import DynamicConv1d, DynamicConv2d, DynamicConv3d
from ..sites import scope

__all__ = ["HOOKS", "mix", "run_mixture", "without_fusion"]

Sizes = tuple[int, ...]
Convolution = DynamicConv1d | DynamicConv2d | DynamicConv3d
CONVOLUTIONS = (DynamicConv1d, DynamicConv2d, DynamicConv3d)
# Multiply-adds that one convolution must save: mixing the kernels takes some calls, whatever their size.
WORTH = 1 << 20
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
WATCHED = (*HOOKS, "forward", "compute")
_fusion: ContextVar[bool] = ContextVar("nni_dynconv.supernet.mixture.fusion", default=True)


@contextmanager
def without_fusion() -> Iterator[None]:
    """Run every candidate of a mixture on its own, inside the block: slower, the same values."""
    token = _fusion.set(False)
    try:
        yield
    finally:
        _fusion.reset(token)


def mix(items: Sequence[Any], weights: Tensor | Sequence[Tensor | None] | None) -> Any:
    """Add outputs up, each times its factor; structures of tensors too."""
    if weights is None:
        return items[0] if len(items) == 1 else weighted_sum(items)
    return weighted_sum(items, list(weights))


def run_mixture(candidates: Sequence[nn.Module], weights: Tensor | None, x: Any) -> Any:
    r"""Run candidates on one input and mix their outputs, convolutions as one where that saves work.

    .. math:: \sum_i p_i \, (x \star w_i) = x \star \sum_i p_i \, \mathrm{embed}(w_i)

    Parameters
    ----------
    candidates
        Of one choice. Fused are dynamic convolutions that differ in kernel, dilation and padding only, keep the same
        size, and are not watched one by one (by hooks, or in a subclass).
    weights
        ``(len(candidates),)``, the factors; ``None`` for ones.
    x
        The input of all.
    """
    if weights is None or len(candidates) == 1:
        return mix([one(x) for one in candidates], weights)
    outputs, mixed = [], []
    groups = fusable(candidates, x) if _wants_fusion() and _is_of_all(candidates, x) else []
    for group in groups:
        outputs.append(_run_as_one([candidates[number] for number in group], weights[group], x))
        mixed += group
    rest = [number for number in range(len(candidates)) if number not in mixed]
    outputs += [candidates[number](x) for number in rest]
    return mix(outputs, [None] * len(groups) + [weights[number] for number in rest])


def _wants_fusion() -> bool:
    return torch.compiler.is_compiling() or _fusion.get()  # which cannot trace a context variable


def _is_of_all(candidates: Sequence[nn.Module], x: Any) -> bool:
    """Whether the input has the samples of the forward; whose others are, each op finds out for itself."""
    opened = scope.seen_by(candidates[0])
    batch = None if opened is None else opened.batch()
    return isinstance(x, Tensor) and (batch is None or x.shape[0] == batch)


# Which convolutions run as one


class Place(NamedTuple):
    """How far a kernel reaches along each axis of space, around the input that an output stands at."""

    before: Sizes
    after: Sizes

    def taps(self) -> int:
        """Taps of a kernel without gaps that reaches as far."""
        return math.prod([b + a + 1 for b, a in zip(self.before, self.after, strict=True)])

    def within(self, other: Place) -> bool:
        """Whether another kernel reaches at least as far on all sides."""
        return all(mine <= its for mine, its in zip(self.before + self.after, other.before + other.after, strict=True))


def fusable(candidates: Sequence[nn.Module], x: Any) -> list[list[int]]:
    """Return groups of candidates, by number, that are cheaper as one convolution of ``x``.

    Examples
    --------
    >>> convs = [DynamicConv2d(16, 16, K, padding=K // 2) for K in (1, 3, 5)]
    >>> others = [nn.Identity(), DynamicConv2d(16, 16, 5, padding=4, dilation=2)]
    >>> fusable([*convs, *others], torch.zeros(32, 16, 32, 32))
    [[0, 1, 2]]
    """
    alike: dict[Any, dict[int, Place]] = {}
    for number, one in enumerate(candidates):
        place = _place(one)
        if place is not None and isinstance(one, CONVOLUTIONS):
            shift = tuple(b - a for b, a in zip(*place, strict=True))  # what sets the size of the output
            key = type(one), one.in_channels, one.out_channels, one.stride, one.groups, shift
            alike.setdefault(key, {})[number] = place
    groups: list[list[int]] = []
    for (_, inputs, outputs, stride, divisor, _), places in alike.items():
        positions = x.shape[0] * math.prod(x.shape[2:]) / math.prod(stride)
        least = WORTH * divisor / max(positions * inputs * outputs, 1.0)
        groups += _cheaper(places, candidates, least)
    return groups


def _place(op: nn.Module) -> Place | None:
    """Return where a convolution's kernel reaches; ``None`` where it must run itself."""
    if type(op) not in CONVOLUTIONS or any(vars(op).get(name) for name in WATCHED):
        return None
    assert isinstance(op, CONVOLUTIONS)
    spans = [d * (k - 1) for d, k in zip(op.dilation, op.kernel_size, strict=True)]
    uneven = op.padding == "same" and any(span % 2 for span in spans)
    if uneven or op.padding_mode != "zeros":
        return None
    if isinstance(op.padding, str):
        before = tuple(span // 2 if op.padding == "same" else 0 for span in spans)
    else:
        before = op.padding
    return Place(before, tuple(span - b for span, b in zip(spans, before, strict=True)))


def _cheaper(places: dict[int, Place], candidates: Sequence[Any], least: float) -> list[list[int]]:
    """Split convolutions that can run as one into groups that save taps, ``least`` or more; others are left out."""
    groups: list[list[int]] = []
    while places:
        options = [_saved(limit, places, candidates) for limit in dict.fromkeys(places.values())]
        saved, group = max(options, key=lambda option: option[0])
        if saved <= 0 or saved < least:
            break
        groups.append(group)
        places = {number: place for number, place in places.items() if number not in group}
    return groups


def _saved(limit: Place, places: dict[int, Place], candidates: Sequence[Any]) -> tuple[int, list[int]]:
    """Return how many taps one kernel of a reach saves, and the candidates that fit into it."""
    group = [number for number, place in places.items() if place.within(limit)]
    return sum(math.prod(candidates[number].kernel_size) for number in group) - limit.taps(), group


# One for all


def _run_as_one(ops: Sequence[Any], weights: Tensor, x: Tensor) -> Tensor:
    first: Convolution = ops[0]
    made, counts = [], None
    for op in ops:
        own, counts, _ = scope.weights_for(op, op.site, type(op).__name__, x)
        made.append(own)
    layout = _layout if torch.compiler.is_compiling() else _layout_once
    parts = tuple((op.kernel_size, op.dilation, cast(Place, _place(op))) for op in ops)
    size, before, targets, owners = layout(parts)
    # each tap's factor, in the row of the tap and the column of its place in the mixed kernel
    factors = weights[torch.tensor(owners, device=weights.device), None]
    embedding = weights.new_zeros(len(targets), math.prod(size))
    embedding = embedding.scatter(1, torch.tensor(targets, device=weights.device)[:, None], factors)
    taps = torch.cat(_alike([one["weight"].flatten(-op.rank) for op, one in zip(ops, made, strict=True)]), dim=-1)
    params = {"weight": (taps @ embedding.to(taps)).unflatten(-1, size)}
    biases = [factor * one["bias"] for factor, one in zip(weights, made, strict=True) if "bias" in one]
    if biases:
        params["bias"] = torch.stack(_alike(biases)).sum(0)
    channels = first.in_channels, first.out_channels
    one = type(first)(*channels, size, first.stride, before, 1, first.groups, bool(biases))
    return one(x, params, counts)


def _alike(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Give tensors that all samples share the axis of sets that others have, if any."""
    most = max([one.dim() for one in tensors])
    sets = [one.shape[0] for one in tensors if one.dim() == most]
    return [one if one.dim() == most else one.expand(sets[0], *one.shape) for one in tensors]


def _layout(parts: tuple[tuple[Sizes, Sizes, Place], ...]) -> tuple[Sizes, Sizes, list[int], list[int]]:
    """Return size and padding of the mixed kernel and, for each tap of each kernel, its place there and whose it is."""
    before = tuple(map(max, zip(*(place.before for _, _, place in parts), strict=True)))
    after = tuple(map(max, zip(*(place.after for _, _, place in parts), strict=True)))
    size = tuple(b + a + 1 for b, a in zip(before, after, strict=True))
    targets, owners = [], []
    for owner, (kernel, dilation, place) in enumerate(parts):
        for tap in itertools.product(*map(range, kernel)):
            target = 0
            for axis, step in enumerate(tap):
                target = target * size[axis] + before[axis] - place.before[axis] + step * dilation[axis]
            targets.append(target)
            owners.append(owner)
    return size, before, targets, owners


_layout_once = lru_cache(maxsize=256)(_layout)
