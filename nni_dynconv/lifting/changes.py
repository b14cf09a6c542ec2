"""What changes in a network that is lifted: which modules are chosen, what takes their places, and where.

The twin of one module is made in ``twins.py``.
"""

from __future__ import annotations

import copy
import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.mutable import frozen_context
from nni.nas.nn.pytorch import Cell, LayerChoice
from torch import Tensor, nn

from ..errors import ConfigError, DynConvError
from ..ops import ChoiceOp, DynamicOp
from .readers import reader_of
from .twins import TWINS, Twin, choices_of, obstacle_of, twin_of

__all__ = [
    "Change",
    "Kept",
    "Where",
    "apply_changes",
    "chosen_by",
    "find_changes",
    "lift_factories",
    "places_in",
]

CONVOLUTIONS = tuple(torchs for torchs in TWINS if torchs.__name__.startswith("Conv"))

Rule = type[nn.Module] | nn.Module | str | re.Pattern[str] | Callable[[str, nn.Module], bool]
Where = Rule | Sequence[Rule] | None
Chosen = Callable[[str, nn.Module], bool]


class Change(NamedTuple):
    """A module, and the dynamic one that takes its place wherever it stands."""

    name: str
    module: nn.Module
    twin: Twin
    places: list[tuple[nn.Module, str]]


class Kept(NamedTuple):
    """A module that keeps its parameters, and why."""

    name: str
    module: nn.Module
    reason: str


# Which modules


def chosen_by(where: Where, space: nn.Module) -> Chosen:
    """Return what tells whether a module is chosen.

    Raises
    ------
    ConfigError
        ``where`` is none of what :func:`~nni_dynconv.lifting.lift` takes.
    """
    if where is None:
        return _by_default(space)
    rules = [_rule(one) for one in (where if isinstance(where, (list, tuple)) else [where])]
    return lambda name, module: any(rule(name, module) for rule in rules)


def _rule(rule: Any) -> Chosen:
    if isinstance(rule, type):
        return lambda name, module: isinstance(module, rule)
    if isinstance(rule, nn.Module):
        return lambda name, module: module is rule
    if isinstance(rule, str):
        return lambda name, module: fnmatch.fnmatchcase(name, rule)
    if isinstance(rule, re.Pattern):
        return lambda name, module: rule.fullmatch(name) is not None
    if not callable(rule):
        raise ConfigError(
            f"`where` is {rule!r}, but must be a type of module, a glob on names, a regular expression, a module, a "
            f"predicate `(name, module) -> bool`, or a list of these."
        )
    return rule


def _by_default(space: nn.Module) -> Chosen:
    candidates = tuple(f"{name}." for name, module in space.named_modules() if isinstance(module, LayerChoice))

    def is_searched(name: str, module: nn.Module) -> bool:
        return isinstance(module, CONVOLUTIONS) and (name.startswith(candidates) or bool(choices_of(module)))

    if any(is_searched(name, module) for name, module in space.named_modules()):
        return is_searched
    return lambda name, module: isinstance(module, CONVOLUTIONS)


# What becomes of them


def find_changes(root: nn.Module, chosen: Chosen, prefix: str) -> tuple[list[Change], list[Kept]]:
    """Make what takes the places of chosen modules, and change nothing.

    Parameters
    ----------
    root
        It stays; modules inside of it may change.
    chosen
        As of :func:`chosen_by`.
    prefix
        What names do not start with.
    """
    found: dict[nn.Module, tuple[str, list[tuple[nn.Module, str]]]] = {}
    modules = [("", root)]
    for path, parent, name, module in places_in(root):
        modules.append((path.removeprefix(prefix).lstrip("."), module))
        found.setdefault(module, (modules[-1][0], []))[1].append((parent, name))
    owners: dict[Tensor, list[str]] = {}
    for module, (name, _) in found.items():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, []).append(name)
    wanted = {module for module, (name, _) in found.items() if chosen(name, module)}
    stay = [
        name
        for module, (name, _) in found.items()
        if module not in wanted and next(module.parameters(False), None) is not None
    ]
    context = getattr(root, "_frozen_context", None)  # what NNI's dry run chose, for the twins' choices
    context = context if isinstance(context, frozen_context) else nullcontext()
    changes: list[Change] = []
    kept: list[Kept] = []
    for module, (name, places) in found.items():
        parameters = list(module.parameters(recurse=False))
        if not parameters:
            continue
        others = [other for one in parameters for other in owners[one] if other != name]
        reason: str | None = "not chosen"
        if module in wanted:
            around = [(path, one) for path, one in modules if one is not module and _is_inside(name, path)]
            reason = obstacle_of(module, [one for one, _ in places], others) or reader_of(name, module, around, stay)
        if reason is None:
            try:
                with context:
                    changes.append(Change(name, module, twin_of(module), places))
                continue
            except DynConvError as error:
                reason = str(error)
        kept.append(Kept(name, module, reason))
    return changes, kept


def _is_inside(name: str, path: str) -> bool:
    return f"{name}.".startswith(f"{path}.".lstrip("."))


def places_in(root: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
    """Yield ``(path, parent, name, module)`` of each place once, except inside of what is dynamic already."""
    seen: set[nn.Module] = set()

    def visit(parent: nn.Module, path: str) -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
        if parent in seen or isinstance(parent, (DynamicOp, ChoiceOp)):
            return
        seen.add(parent)
        for name, module in list(parent._modules.items()):
            if module is not None:
                below = f"{path}.{name}".lstrip(".")
                yield below, parent, name, module
                yield from visit(module, below)

    return visit(root, "")


def apply_changes(changes: Sequence[Change]) -> None:
    """Put each twin at all places of its module."""
    for change in changes:
        for parent, name in change.places:
            parent._modules[name] = change.twin


# Factories of cells


def lift_factories(space: nn.Module, chosen: Chosen) -> list[tuple[Cell, Any]]:
    """Let each cell lift what its factories make, when they make it; return the cells with the factories they had."""
    replaced = []
    for name, module in space.named_modules():
        if isinstance(module, Cell) and isinstance(module.op_candidates_factory, (list, dict)):
            replaced.append((module, module.op_candidates_factory))
            module.op_candidates_factory = _lifted_factory(module, f"{name}.ops".lstrip("."), chosen)
    return replaced


def _lifted_factory(cell: Cell, path: str, chosen: Chosen) -> Any:
    factory = cell.op_candidates_factory
    named = factory.items() if isinstance(factory, dict) else enumerate(factory)
    lifted = {name: _LiftedFactory(one, path, cell.num_predecessors, str(name), chosen) for name, one in named}
    return lifted if isinstance(factory, dict) else list(lifted.values())


class _LiftedFactory:
    """Makes a candidate of a cell, as NNI asks for it, and lifts it."""

    def __init__(self, make: Any, path: str, first: int, candidate: str, chosen: Chosen):
        self.make, self.path, self.first, self.candidate, self.chosen = make, path, first, candidate, chosen

    def __deepcopy__(self, memo: dict[int, Any]) -> _LiftedFactory:
        return self  # as a function

    def __call__(self, node: int, slot: int, source: int | None) -> nn.Module:
        made = copy.deepcopy(self.make) if isinstance(self.make, nn.Module) else self.make(node, slot, source)
        path = f"{self.path}.{node - self.first}.{slot}.{self.candidate}"  # as it stands in the space
        holder = nn.ModuleList([made])
        changes, _ = find_changes(holder, lambda name, module: self.chosen(f"{path}.{name}".rstrip("."), module), "0")
        apply_changes(changes)
        return holder[0]
