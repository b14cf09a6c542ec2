"""One training step under torch's profiler, and whose each of its operators is, forward and backward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils import _pytree as pytree

from ...errors import ConfigError
from ...functional import noted
from ...generation import WeightSource
from ...ops import DynamicOp
from .explanation import Explanation, SiteTaken

__all__ = ["explain_step"]

MARK = "nni_dynconv."
USE, MAKE, ENCODE = f"{MARK}use:", f"{MARK}make:", f"{MARK}encode"
BACKWARD = "autograd::engine::evaluate_function"
Owner = str | None  # the mark of a range, or none


class _Taken(NamedTuple):
    seconds: dict[Owner, float]
    memory: dict[Owner, int]


def explain_step(network: nn.Module, source: WeightSource, run: Callable[[], Any]) -> Explanation:
    """Run two training steps of a network, and tell what the second one has taken.

    Its parameters get gradients, and running statistics move: give it a copy.

    Parameters
    ----------
    network
        Whose ops are looked at.
    source
        What makes their weights.
    run
        Calls it.

    Raises
    ------
    ConfigError
        Nothing that comes out can be differentiated.
    """
    marks, activities = _Marks(network, source), [ProfilerActivity.CPU]
    with torch.random.fork_rng(devices=[]):
        _step(run)  # plans calls, and takes the memory that the next one uses again
        network.zero_grad()
        with marks.set(), profile(activities=activities, profile_memory=True) as measured:
            output = _step(run)
    taken = _by_owner(measured.events() or [])
    return _explanation(marks, taken, source, output)


def _step(run: Callable[[], Any]) -> Any:
    output = run()
    parts = [one.sum() for one in pytree.tree_leaves(output) if isinstance(one, Tensor) and one.requires_grad]
    if not parts:
        raise ConfigError("`explain` needs a training step, but nothing that comes out of the network has a gradient.")
    sum(parts[1:], parts[0]).backward()
    return output


class _Marks:
    """Marks, in what a profiler sees, which site is made and which is used; and keeps how ops were computed."""

    def __init__(self, network: nn.Module, source: WeightSource):
        self.source = source
        self.ops = [one for one in network.modules() if isinstance(one, DynamicOp) and one.site in source.sites]
        self.runs: dict[str, int] = {}
        self.choices: dict[str, dict[str, str]] = defaultdict(dict)  # by site, the reason of each path

    @contextmanager
    def set(self) -> Iterator[None]:
        """Set them for a block."""
        source = self.source
        changes: list[tuple[Any, str, Any]] = [
            (source, "make_factored", self._made), (source, "open", self._opened),
            *((op, "forward", self._used(op)) for op in self.ops),
        ]  # fmt: skip
        with ExitStack() as stack:
            for owner, name, change in changes:
                vars(owner)[name] = change
                stack.callback(vars(owner).pop, name)
            yield

    def _opened(self, *args: Any, **options: Any) -> Any:
        with record_function(ENCODE):
            return type(self.source).open(self.source, *args, **options)

    def _made(self, sites: Sequence[Any], code: Any) -> Any:
        with record_function(MAKE + "\n".join(site.name for site in sites)):
            return type(self.source).make_factored(self.source, sites, code)

    def _used(self, op: DynamicOp) -> Callable[..., Any]:
        name, before = str(op.site), op.forward

        def forward(*args: Any, **options: Any) -> Any:
            self.runs[name] = self.runs.get(name, 0) + 1
            with record_function(USE + name), noted() as choices:
                result = before(*args, **options)
            self.choices[name].update({one.path: one.why for one in choices})
            return result

        return forward


def _by_owner(events: Sequence[Any]) -> _Taken:
    """Sum what operators took by the range that they, or the operators that they differentiate, stand in."""
    owners: dict[int, Owner] = {}
    for one in sorted(events, key=lambda one: one.time_range.start):
        if one.sequence_nr >= 0 and not _is_backward(one):
            owners[one.sequence_nr] = _range_of(one)  # of those of one number the last has made the node
    seconds, memory = defaultdict[Owner, float](float), defaultdict[Owner, int](int)
    for one in events:
        root = _root_of_backward(one)
        owner = _range_of(one) if root is None else owners.get(root.sequence_nr)
        seconds[owner] += 1e-6 * one.self_cpu_time_total
        if root is None:
            memory[owner] += one.self_cpu_memory_usage
    return _Taken(seconds, memory)


def _is_backward(event: Any) -> bool:
    return _root_of_backward(event) is not None


def _root_of_backward(event: Any) -> Any:
    """Return the node of the backward that an operator belongs to, if there is one."""
    while event is not None and not event.name.startswith(BACKWARD):
        event = event.cpu_parent
    return event


def _range_of(event: Any) -> Owner:
    while event is not None and not event.name.startswith(MARK):
        event = event.cpu_parent
    return None if event is None else event.name


def _explanation(marks: _Marks, taken: _Taken, source: WeightSource, output: Any) -> Explanation:
    making, kept = _shared_out(taken.seconds, source), _shared_out(taken.memory, source)
    sites = tuple(
        SiteTaken(
            name, source.recipes[name], " > ".join(marks.choices[name]), "; ".join(marks.choices[name].values()), runs,
            making.get(name, 0.0), taken.seconds.get(USE + name, 0.0),
            round(kept.get(name, 0.0)) + taken.memory.get(USE + name, 0),
        )
        for name, runs in marks.runs.items()
    )  # fmt: skip
    first = next(one for one in pytree.tree_leaves(output) if isinstance(one, Tensor))
    controller = None if source.controller is None else type(source.controller).__name__
    encoding, elsewhere = taken.seconds.get(ENCODE, 0.0), taken.seconds.get(None, 0.0)
    return Explanation(len(first) if first.dim() else 1, controller, sites, encoding, elsewhere)


def _shared_out(amounts: Mapping[Owner, float], source: WeightSource) -> dict[str, float]:
    """Share out among sites what was made in one call, by the values that the controller made for each."""
    shares: dict[str, float] = defaultdict(float)
    for owner, amount in amounts.items():
        if owner is None or not owner.startswith(MAKE):
            continue
        names = owner.removeprefix(MAKE).split("\n")
        values = {name: source.asked[name].num_generated for name in names}
        total = sum(values.values()) or 1
        for name in names:
            shares[name] += amount * values[name] / total
    return shares
