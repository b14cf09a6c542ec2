"""Architectures with the weights that a space had before it was searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ...generation import DynamicNetwork
from ...supernet import DynamicWeightMutator

__all__ = ["from_scratch", "initial_of"]


def initial_of(mutator: DynamicWeightMutator) -> dict[str, Tensor]:
    """Return a copy of a space's tensors, on the CPU: before a search, what its architectures start from."""
    return {name: one.detach().cpu().clone() for name, one in mutator.space.state_dict().items()}


def from_scratch(
    mutator: DynamicWeightMutator, sample: Mapping[str, Any], initial: Mapping[str, Tensor]
) -> DynamicNetwork:
    """Return an architecture with the weights that the space had before it was searched."""
    with _weights(mutator, initial):
        return mutator.freeze(sample)


@contextmanager
def _weights(mutator: DynamicWeightMutator, state: Mapping[str, Tensor]) -> Iterator[None]:
    """For a block, give the space other weights."""
    now = {name: one.clone() for name, one in mutator.space.state_dict().items()}
    mutator.space.load_state_dict(state)
    try:
        yield
    finally:
        mutator.space.load_state_dict(now)
