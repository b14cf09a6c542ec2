"""What a supernet is called with on one batch, to be called so again with any architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import ConfigError
from ...supernet import DynamicWeightMutator, modes_kept
from ..ranking.contest import Sample, Task

__all__ = ["Called", "called_on"]


class Called(NamedTuple):
    """One call of a network.

    Parameters
    ----------
    args, kwargs
        What it was called with.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def samples(self) -> int:
        """How many samples its first tensor has."""
        return len(self.input)

    @property
    def input(self) -> Tensor:
        """Its first tensor."""
        return next(one for one in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(one, Tensor))

    def map(self, change: Callable[[Tensor], Tensor]) -> Called:
        """Return the same call with other tensors."""
        return Called(*pytree.tree_map_only(Tensor, change, (self.args, self.kwargs)))

    def of(self, network: nn.Module) -> Any:
        """Call a network so."""
        return network(*self.args, **self.kwargs)

    def run(self, mutator: DynamicWeightMutator, sample: Sample, how: Callable[[Callable[[], Any]], float]) -> float:
        """Have something run an architecture of a supernet in evaluation mode, and return what it gives."""
        with evaluated(mutator, sample):
            return how(lambda: self.of(mutator.space))


@contextmanager
def evaluated(mutator: DynamicWeightMutator, sample: Sample) -> Iterator[None]:
    """For a block, let a supernet be one architecture in evaluation mode."""
    with modes_kept(mutator.space), mutator.using(sample):
        mutator.space.eval()
        yield


def called_on(mutator: DynamicWeightMutator, task: Task, sample: Sample) -> Called:
    """Return how a task's loss calls the network on its first held-out batch; of several calls, the first.

    Raises
    ------
    ConfigError
        It does not call the network, or gives it no tensor.
    """
    calls: list[Called] = []

    def note(network: nn.Module, args: Any, kwargs: Any) -> None:
        calls.append(Called(args, kwargs))

    hook = mutator.space.register_forward_pre_hook(note, prepend=True, with_kwargs=True)
    try:
        with evaluated(mutator, sample), torch.no_grad():
            task.loss(mutator.space, task.held_out[0])
    finally:
        hook.remove()
    if not calls or not any(isinstance(one, Tensor) and one.dim() for one in pytree.tree_leaves(list(calls[0]))):
        raise ConfigError(
            "The training step does not call its model with a tensor, so that an architecture cannot be run by itself. "
            "Leave `objectives`, `budget` and `proxy` out, or give costs of your own (`costs`)."
        )
    return calls[0]
