"""Whose weights a sample gets: what the contexts of some samples reach, against what these samples themselves reach.

A sample's context makes weights for that sample's data, so it can reach no output that the data do not reach. Where it
does, the network has laid its samples in another order than the forward's, and an op, which knows them by their number
alone, gave them each other's weights. Samples that interact by themselves reach all outputs: nothing can be told then,
and nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..ops import DynamicOp
from .measuring import Step, between, within
from .readings import WhoseReading

if TYPE_CHECKING:
    from ..supernet import DynamicWeightMutator

__all__ = ["whose_reading"]

NUDGE = 0.01
"""How far inputs are moved, in their own deviations: little, for a network may sort by them."""
FAINT = 1e-6
"""Least change of an output, over its size, that counts as reached."""
STRONG = 0.05
"""Least change by a context, over the largest of any sample, that counts as astray."""

Seen = dict[tuple[str, int], Tensor]
"""Of an output or an op's input, by name and axis: which samples changed, a mask; or what they were."""


def whose_reading(
    mutator: DynamicWeightMutator, batches: Sequence[Any], samples: Sequence[Any], step: Step, seed: int = 0
) -> WhoseReading | None:
    """Run architectures in evaluation mode and tell whether samples have their own weights.

    Parameters
    ----------
    batches, samples
        What is run: each sample on one of the batches in turn.
    step
        Gives a batch to the network.
    seed
        Decides what is changed, and what a network draws.

    Returns
    -------
    The reading; ``None`` where no batch has contexts of several samples.
    """
    judged, unknown, astray, where = 0, 0, 0, ""
    with _evaluated(mutator.space), torch.no_grad(), _awake(mutator):
        for number, sample in enumerate(samples):
            call = _call_of(mutator, sample, batches[number % len(batches)], step, seed)
            if call is None:
                continue
            found = [call.judge(bits) for bits in _halves(call.sets, number, len(samples), seed)]
            known = [one for one in found if one is not None]
            judged, unknown = judged + bool(known), unknown + (not known)
            wrong = [one for one in known if one]
            astray, where = astray + bool(wrong), where or (wrong[0] if wrong else "")
    return WhoseReading(judged, unknown, astray, where) if judged or unknown else None


def _halves(count: int, number: int, of: int, seed: int) -> Iterator[Tensor]:
    """Yield masks of half of the samples: by the digits of their numbers, so that all masks together tell any two."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    digits = max(1, math.ceil(math.log2(count)))
    for turn in range(max(2, math.ceil(digits / of))):
        yield (order >> ((number * 2 + turn) % digits)) % 2 == 1


@contextmanager
def _evaluated(space: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in space.modules()}
    space.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _awake(mutator: DynamicWeightMutator) -> Iterator[None]:
    """Let deltas count whose factors start at zero, as those of a lifted network do: contexts do nothing until then."""
    asleep = [one for one in between(mutator) if not one.any()]
    for one in asleep:
        one.fill_(1.0)
    try:
        yield
    finally:
        for one in asleep:
            one.zero_()


def _call_of(mutator: DynamicWeightMutator, sample: Any, batch: Any, step: Step, seed: int) -> _Call | None:
    """Return how a step calls the network; ``None`` where samples have no contexts of their own."""
    calls: list[tuple[Any, Any]] = []

    def note(module: nn.Module, args: Any, kwargs: Any) -> None:
        calls.append((args, kwargs))

    handle = mutator.space.register_forward_pre_hook(note, prepend=True, with_kwargs=True)
    try:
        with within(mutator, sample):
            step(batch)
    finally:
        handle.remove()
    if not calls or mutator.source.of_context is None:
        return None
    called = mutator.source.take_context(*calls[0])
    sets, count = _length(called.context), _length((called.args, called.kwargs))
    if sets is None or count is None or sets < 2 or (called.index is None and sets != count):
        return None
    return _Call(mutator, sample, called, sets, count, seed)


def _length(values: Any) -> int | None:
    return next((len(one) for one in pytree.tree_leaves(values) if isinstance(one, Tensor) and one.dim()), None)


class _Call:
    """One call of a network, which can be made again with some samples or contexts changed."""

    def __init__(self, mutator: DynamicWeightMutator, sample: Any, called: Any, sets: int, count: int, seed: int):
        self.mutator, self.sample, self.called, self.seed = mutator, sample, called, seed
        self.sets, self.count = sets, count
        self.before = self._run(called)

    def judge(self, half: Tensor) -> str | None:
        """Return where weights go astray when half of the contexts change, ``""`` for nowhere; ``None``: unknown."""
        context = pytree.tree_map(lambda one: _moved(one, half), self.called.context)
        by_context = self._changes(self.called._replace(context=context))
        index = self.called.index
        own = half if index is None else half[index.cpu()]
        for axis in (0, 1):
            args, kwargs = pytree.tree_map(
                lambda one, axis=axis: self._nudged(one, own, axis), (self.called.args, self.called.kwargs)
            )
            by_input = self._changes(self.called._replace(args=args, kwargs=kwargs))
            outputs = [key for key in by_context if not key[0] and _tells(by_input[key])]
            if outputs:
                wrong = any(_astray(by_context[key], by_input[key]) for key in outputs)
                return self._place(by_input, own, axis) if wrong else ""
        return None

    def _place(self, by_input: Seen, own: Tensor, axis: int) -> str:
        """Return the first op whose input has these samples elsewhere, or the network."""
        for (site, _), change in by_input.items():
            reached = change > FAINT
            if site and _tells(change) and (axis or not torch.equal(reached, own.to(reached.device))):
                return site
        return "network"

    def _changes(self, called: Any) -> Seen:
        """Return how far each sample of each output and op's input is from what it was, over the size of all."""
        after = self._run(called)
        return {
            key: _per_sample(after[key] - before, key[1]) / before.square().mean().sqrt().clamp_min(1e-30)
            for key, before in self.before.items()
            if key in after and after[key].shape == before.shape
        }

    def _run(self, called: Any) -> Seen:
        seen: Seen = {}
        options = {name: one for name in ("context", "index") if (one := getattr(called, name)) is not None}
        torch.manual_seed(self.seed)  # of the block that forks it
        with ExitStack() as stack:
            for module in self.mutator.space.modules():
                if isinstance(module, DynamicOp) and module.site:
                    stack.callback(module.register_forward_pre_hook(self._note(seen, str(module.site))).remove)
            with within(self.mutator, self.sample):
                output = self.mutator.space(*called.args, **called.kwargs, **options)
        for place, one in enumerate(pytree.tree_leaves(output)):
            for axis in (0, 1):
                if isinstance(one, Tensor) and one.dim() > axis and one.shape[axis] == self.count:
                    seen["", 2 * place + axis] = (one.double() if one.is_floating_point() else one.float()).clone()
        return seen

    def _note(self, seen: Seen, site: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any) -> None:
            if args and isinstance(args[0], Tensor) and args[0].shape[:1] == (self.count,):
                seen.setdefault((site, 0), args[0].detach().clone())

        return note

    def _nudged(self, one: Any, half: Tensor, axis: int) -> Any:
        """Move some samples a little; those that are no floating-point numbers become their neighbours."""
        if not isinstance(one, Tensor) or one.dim() <= axis or one.shape[axis] != self.count or not one.numel():
            return one
        if not one.is_floating_point():
            return _moved(one.transpose(0, axis), half).transpose(0, axis)
        noise = torch.randn(one.shape, generator=torch.Generator().manual_seed(self.seed)).to(one)
        mask = half.to(one.device).view([-1 if place == axis else 1 for place in range(one.dim())])
        return torch.where(mask, one + NUDGE * one.std() * noise, one)


def _moved(one: Any, half: Tensor) -> Any:
    """Let some samples become their neighbours."""
    if not isinstance(one, Tensor) or one.shape[:1] != half.shape:
        return one
    mask = half.to(one.device).view([-1] + [1] * (one.dim() - 1))
    return torch.where(mask, one.roll(1, 0), one)


def _per_sample(change: Tensor, axis: int) -> Tensor:
    return change.abs().transpose(0, axis % 2).flatten(1).amax(1) if change.dim() > 1 else change.abs()


def _tells(change: Tensor) -> bool:
    """Whether some samples are reached and some are not, and none so little that rounding decides."""
    reached = change > FAINT
    doubtful = (change > FAINT / 10) & (change < 10 * FAINT)
    return bool(reached.any()) and not bool(reached.all()) and not bool(doubtful.any())


def _astray(by_context: Tensor, by_input: Tensor) -> bool:
    strong = (by_context > STRONG * by_context.max()) & (by_context > FAINT)
    return bool((strong & (by_input <= FAINT)).any())
