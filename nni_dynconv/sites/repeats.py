"""Samples that an op sees several times as often as the forward has them: whose each of them is, as the network says.

An op does not guess: where nobody says, it is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, cast, get_args

from torch import Tensor

from ..errors import ConfigError, ShapeError, did_you_mean

__all__ = ["Order", "Repeats", "check_order", "order_told", "repeated", "repeats_of"]

Order = Literal["tiled", "consecutive"]


class _Thread(threading.local):
    """What the blocks around say; no context variable, which ``torch.compile`` can neither trace nor guard."""

    def __init__(self) -> None:  # in each thread; attributes of the class would not be guarded
        self.order: Order | None = None


_thread = _Thread()


def check_order(order: object, where: str) -> Order:
    """Return a word for how samples lie.

    Raises
    ------
    ConfigError
        There is no such word.
    """
    if order not in get_args(Order):
        known = did_you_mean(order, get_args(Order))
        raise ConfigError(f"{where}: repeated samples lie 'tiled' or 'consecutive', but not {order!r}.{known}")
    return cast(Order, order)


@contextmanager
def repeated(order: Order) -> Iterator[None]:
    """In the block, ops see each sample of the forward several times: their samples lie as ``order`` says.

    A network that lays views, frames or windows of its samples side by side in the batch says so at that place, so that
    each has the weights of its own sample. An op whose batch is the forward's is not touched.

    Parameters
    ----------
    order
        ``"tiled"``: whole batches one after another, as ``torch.cat([a, b])`` lays them, or frames before samples.
        ``"consecutive"``: all of a sample side by side, as ``x.flatten(0, 1)`` lays what is ``B T ...``.

    Raises
    ------
    ConfigError
        There is no such word.

    Examples
    --------
    >>> with repeated("tiled"):  # in a network's forward
    ...     order_told()
    'tiled'
    """
    checked, before = check_order(order, "`repeated`"), _thread.order
    _thread.order = checked
    try:
        yield
    finally:
        _thread.order = before


def order_told() -> Order | None:
    """Return what the innermost block around says."""
    return _thread.order


class Repeats(NamedTuple):
    """How the samples of an op lie.

    Parameters
    ----------
    batch
        Samples of the forward.
    times
        How often the op sees each.
    order
        As of :func:`repeated`.

    Examples
    --------
    >>> import torch
    >>> tiled = Repeats(batch=2, times=3, order="tiled")
    >>> tiled.gathered(torch.tensor([0, 1, 0, 1, 0, 1])), tiled.rows(torch.tensor([5, 6]))
    (tensor([0, 0, 0, 1, 1, 1]), tensor([5, 6, 5, 6, 5, 6]))
    """

    batch: int
    times: int
    order: Order

    def gathered(self, x: Tensor) -> Tensor:
        """Return the samples with all of one side by side."""
        return x if self.order == "consecutive" else _transposed(x, self.times, self.batch)

    def restored(self, y: Tensor) -> Tensor:
        """Return what :meth:`gathered` gave in the order that it had."""
        return y if self.order == "consecutive" else _transposed(y, self.batch, self.times)

    def counts(self, counts: Sequence[int]) -> tuple[int, ...]:
        """Return how many gathered samples each set serves, where it serves ``counts`` samples of the forward."""
        return tuple(self.times * one for one in counts)

    def rows(self, sets: Tensor) -> Tensor:
        """Return a set for each sample of the op, out of one for each of the forward."""
        axis = 1 if self.order == "consecutive" else 0
        size = list(sets.unsqueeze(axis).shape)
        size[axis] = self.times
        return sets.unsqueeze(axis).expand(size).flatten(0, 1)


def _transposed(x: Tensor, rows: int, columns: int) -> Tensor:
    return x.unflatten(0, (rows, columns)).transpose(0, 1).flatten(0, 1)


def repeats_of(where: str, shape: Sequence[int], batch: int, order: Order | None) -> Repeats:
    """Return how the samples of an op lie, which has a multiple of those of the forward.

    Parameters
    ----------
    where
        The op, as errors name it.
    shape
        Of its input.
    batch
        Samples of the forward.
    order
        What was said.

    Raises
    ------
    ShapeError
        Nothing was said, or what was said cannot be.
    """
    samples = shape[0]
    if samples % batch:
        raise ShapeError(
            f"{_found(where, shape, batch)} and {samples} is no multiple of {batch}: whose they are cannot be told. "
            f"Let this op see each sample of the forward, or let all share one context."
        )
    if order is None:
        raise ShapeError(
            f"{_found(where, shape, batch)}: whose are the others? Say how the network lays them, where it does so: "
            f'`with nni_dynconv.repeated("tiled"):`, whole batches one after another, as `torch.cat([a, b])`, or '
            f'`repeated("consecutive")`, all of a sample side by side, as `x.flatten(0, 1)` of `B T ...`. Or give it '
            f'to the op, `repeats="tiled"`, or to `lift(network, repeats="tiled")`.'
        )
    return Repeats(batch, samples // batch, order)


def _found(where: str, shape: Sequence[int], batch: int) -> str:
    samples = f"its input {tuple(shape)} has {shape[0]} samples"
    other = " (axis 1 has as many: if it is the batch, lay samples first, `x.transpose(0, 1)`)"
    told = other if batch > 1 and len(shape) > 2 and shape[1] == batch else ""
    return f"{where}: {samples}, but the forward has {batch}{told}, each with weights of its own"
