"""Where random generators are: the global ones of Python, numpy and torch, and those that loaders keep.

The package sets global generators for one purpose only: a run that goes on draws what it would have drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..errors import CheckpointError

__all__ = ["of_loaders", "position", "seed", "set_loaders", "set_position", "untouched"]

INSIDE = ("sampler", "batch_sampler", "dataset")
"""Where a loader keeps what draws for it."""


def position() -> dict[str, Any]:
    """Return where the global generators are."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": devices,
    }


def set_position(state: Mapping[str, Any]) -> None:
    """Let the global generators go on from where they were."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def seed(number: int) -> None:
    """Let the global generators begin at a seed; inside :func:`untouched`, so that nobody else sees it."""
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    torch.manual_seed(number)


def of_loaders(loaders: Iterable[Any]) -> list[Any]:
    """Return where the generators are that loaders, or modules, have of their own, in their order.

    Parameters
    ----------
    loaders
        What is looked into: its attributes, and those of its samplers and data sets.
    """
    return [_where(one) for one in _generators(loaders)]


def set_loaders(loaders: Iterable[Any], states: Iterable[Any]) -> None:
    """Let loaders' own generators go on from where they were.

    Raises
    ------
    CheckpointError
        There are more or fewer of them.
    """
    found, states = _generators(loaders), list(states)
    if len(found) != len(states):
        raise CheckpointError(
            f"{len(states)} random generators of loaders, data sets and modules were kept, but there are {len(found)} "
            f"here. Make them in constructors, so that they are there when a run goes on."
        )
    for one, state in zip(found, states, strict=True):
        _set(one, state)


@contextmanager
def untouched(loaders: Iterable[Any] = ()) -> Iterator[None]:
    """For a block, let random generators be drawn from, and be afterwards where they were.

    Parameters
    ----------
    loaders
        As of :func:`of_loaders`.
    """
    loaders = list(loaders)
    before, own = position(), of_loaders(loaders)
    try:
        yield
    finally:
        set_position(before)
        set_loaders(loaders, own)


def _generators(loaders: Iterable[Any]) -> list[Any]:
    found: dict[int, Any] = {}
    for loader in loaders:
        for holder in _holders(loader):
            for one in vars(holder).values() if hasattr(holder, "__dict__") else ():
                if isinstance(one, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)):
                    found.setdefault(id(one), one)
    return list(found.values())


def _holders(one: Any, depth: int = 4) -> Iterator[Any]:
    """Yield a loader, and what it draws by: a sampler in a sampler, a data set in a subset."""
    yield one
    inside = [getattr(one, name, None) for name in INSIDE] if depth else []
    for part in inside:
        if part is not None and part is not one:
            yield from _holders(part, depth - 1)


def _where(one: Any) -> Any:
    if isinstance(one, torch.Generator):
        return one.get_state()
    if isinstance(one, random.Random):
        return one.getstate()
    return one.bit_generator.state if isinstance(one, np.random.Generator) else one.get_state(legacy=False)


def _set(one: Any, state: Any) -> None:
    if isinstance(one, torch.Generator):
        one.set_state(state)
    elif isinstance(one, random.Random):
        one.setstate(state)
    elif isinstance(one, np.random.Generator):
        one.bit_generator.state = state
    else:
        one.set_state(state)
