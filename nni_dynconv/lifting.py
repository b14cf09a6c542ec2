"""An unchanged model space, or module, becomes a dynamic one: chosen modules give up their parameters for made ones.

The operators that take their places are in ``ops/``; what makes their weights is the mutator's.
"""

from __future__ import annotations

import copy
import fnmatch
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from . import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.mutable import Mutable, frozen_context
from nni.nas.nn.pytorch import Cell, LayerChoice, ModelSpace, MutableModule, ParametrizedModule
from torch import Tensor, nn

from . import ops
from .errors import ConfigError, DynConvError, SpaceError
from .given import ORIGINAL, Original
from .mixture import HOOKS
from .ops import DynamicOp
from .ops.call import DynamicCall
from .ops.choices import ChoiceOp
from .source import NAME, WeightSource
from .supernet import Around, is_supernet

if TYPE_CHECKING:
    from .mutator import DynamicWeightMutator

__all__ = ["Kept", "Lifted", "lift", "unlift"]

TWINS: dict[type[nn.Module], type[DynamicOp]] = {
    getattr(nn, name.removeprefix("Dynamic")): getattr(ops, name)
    for name in ops.__all__
    if hasattr(nn, name.removeprefix("Dynamic"))
}
CONVOLUTIONS = tuple(torchs for torchs in TWINS if torchs.__name__.startswith("Conv"))
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

Base = Literal["given", "learned", "none"]
Rule = type[nn.Module] | nn.Module | str | re.Pattern[str] | Callable[[str, nn.Module], bool]
Where = Rule | Sequence[Rule] | None
Chosen = Callable[[str, nn.Module], bool]
Twin = DynamicOp | ChoiceOp


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


class Lifted:
    """What :func:`lift` did. ``print`` it: which modules were lifted, which were not, and why.

    Attributes
    ----------
    original
        What was given to :func:`lift`.
    space
        The dynamic space: the same one, or, around a plain module, one without choices.
    changes, kept
        What was lifted, and what has parameters and was not.
    """

    def __init__(self, original: nn.Module, space: ModelSpace, where: Where, base: Base):
        self.original, self.space, self.where, self.base = original, space, where, base
        self.changes: list[Change] = []
        self.kept: list[Kept] = []
        self.factories: list[tuple[Cell, Any]] = []

    @property
    def names(self) -> list[str]:
        """Paths of the modules that were lifted."""
        return [change.name for change in self.changes]

    def mutator(self, **options: Any) -> DynamicWeightMutator:
        """Return a mutator of the space, whose weights start as ``base`` says.

        Parameters
        ----------
        **options
            Of :class:`~nni_dynconv.mutator.DynamicWeightMutator`, except ``base``.

        Raises
        ------
        ConfigError
            ``base`` is among them.
        """
        from .mutator import DynamicWeightMutator

        if "base" in options:
            raise ConfigError(
                f"`base` is {options['base']!r} here, but {self.base!r} where the space was lifted. Say `base` to "
                f"`lift`; for some sites only, to `per_site`."
            )
        return DynamicWeightMutator(self.space, base=self.base, **options)

    def freeze(self, sample: Mapping[str, Any]) -> Lifted:
        """Return one architecture, with a controller of its own: for spaces that no supernet covers.

        Parameters
        ----------
        sample
            Of the space, as ``space.random()`` draws it.

        Notes
        -----
        Where freezing builds modules anew, so that none is dynamic, ``where`` is asked again in the frozen network; by
        default it then means all convolutions, for no choice is left.
        """
        network = self.space.freeze(dict(sample))
        if not any(isinstance(module, DynamicOp) for module in network.modules()):
            return lift(network, self.where, self.base)
        lifted = Lifted(network, network, self.where, self.base)
        twins = ((name, one) for name, one in network.named_modules() if ORIGINAL in vars(one))
        lifted.changes = [Change(name, vars(one)[ORIGINAL].module, one, []) for name, one in twins]
        return lifted

    def __str__(self) -> str:
        total = len(self.changes) + len(self.kept)
        made = sum(_num_generated(change.twin) for change in self.changes)
        groups: dict[str, list[str]] = {}
        for change in self.changes:
            kind = change.twin.op if isinstance(change.twin, ChoiceOp) else type(change.twin).__name__
            groups.setdefault(f"{type(change.module).__name__} -> {kind}", []).append(change.name)
        for kept in self.kept:
            groups.setdefault(f"{type(kept.module).__name__} kept, {kept.reason}", []).append(kept.name)
        title = f"Lifted {len(self.changes)} of {total} modules with parameters in {type(self.original).__name__}"
        lines = [f"{title}: {made:,} values are made (base: {self.base})."]
        for what, names in groups.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"  {len(names)} {what}: {', '.join(name or '(itself)' for name in names[:3])}{more}")
        return "\n".join(lines)


def lift(space: nn.Module, where: Where = None, base: Base = "given") -> Lifted:
    """Turn an unchanged model space, or a plain module, into a dynamic one, in place.

    Chosen modules give up their parameters for made ones: a layer of torch, or NNI's parametrised one, to its dynamic
    twin; any other module of one input to a :class:`~nni_dynconv.ops.call.DynamicCall`. Hyper-parameters stay, also
    ``nni.choice`` among the arguments of a layer, and so do running statistics. An error leaves all as it was.

    Parameters
    ----------
    space
        A ``ModelSpace`` that is not yet a supernet, or any module.
    where
        Which modules: a type, a glob on names (``"blocks.*.conv"``), a compiled regular expression that the whole name
        matches, a module, a predicate ``(name, module) -> bool``, or a list of those, of which any may hold. ``None``:
        what the search decides about, that is convolutions inside candidates of a ``LayerChoice`` and those with
        ``nni.choice`` arguments; all convolutions, where there are none of these.
    base
        ``given``: the original weights become the learned base, and the delta starts at zero, so that the network
        starts out as the original. ``learned`` and ``none`` are those of
        :class:`~nni_dynconv.mutator.DynamicWeightMutator`. :meth:`Lifted.mutator` sees to it.

    Returns
    -------
    What was lifted and what was not, and why. Its ``mutator()`` makes the weights.

    Raises
    ------
    SpaceError
        Nothing can be lifted, or the space is a supernet or has a mutator already.
    ConfigError
        ``where`` or ``base`` is none of the above.

    Notes
    -----
    What a factory makes for a ``Cell`` is lifted when it is made.

    Examples
    --------
    >>> import torch
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    >>> lifted = lift(network)
    >>> print(lifted)
    Lifted 1 of 2 modules with parameters in Sequential: 224 values are made (base: given).
      1 Conv2d -> DynamicConv2d: 0
      1 BatchNorm2d kept, not chosen: 1
    >>> lifted.mutator()(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 8, 6, 6])
    >>> unlift(lifted)[0]
    Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
    """
    if base not in ("given", "learned", "none"):
        raise ConfigError(f"`base` is {base!r}, but must be 'given', 'learned' or 'none'.")
    _check_space(space)
    lifted = Lifted(space, space if isinstance(space, ModelSpace) else Around(space), where, base)
    chosen = _chosen(where, space)
    lifted.changes, lifted.kept = _plan(lifted.space, chosen, "" if space is lifted.space else "network")
    _check_lifted(lifted)
    # all is planned; what follows only assigns
    for name, module in space.named_modules():
        if isinstance(module, Cell) and isinstance(module.op_candidates_factory, (list, dict)):
            lifted.factories.append((module, module.op_candidates_factory))
            module.op_candidates_factory = _lift_factories(module, f"{name}.ops".lstrip("."), chosen)
    _apply(lifted.changes)
    if isinstance(space, ModelSpace) and type(space).freeze is not MutableModule.freeze:
        space.freeze = MethodType(partial(_freeze_lifted, where=where, base=base), space)
    return lifted


def unlift(lifted: Lifted) -> nn.Module:
    """Put the original modules back, with the weights they had, and return what was given to :func:`lift`.

    Raises
    ------
    SpaceError
        A mutator has made a supernet of the space.
    """
    space = lifted.space
    if is_supernet(space):
        raise SpaceError(
            f"{type(space).__name__} is a supernet already, which cannot be undone. Lift a copy: "
            f"`lift(copy.deepcopy(space))`."
        )
    if hasattr(space, NAME):
        WeightSource.uninstall(space)
    for _, parent, name, module in list(_walk(space)):
        if ORIGINAL in vars(module):
            parent._modules[name] = vars(module)[ORIGINAL].module
    for cell, factory in lifted.factories:
        cell.op_candidates_factory = factory
    vars(space).pop("freeze", None)
    return lifted.original


def _check_space(space: Any) -> None:
    if not isinstance(space, nn.Module):
        raise SpaceError(f"`lift` takes a `ModelSpace` or a `torch.nn.Module`, but got a {type(space).__name__}.")
    if is_supernet(space) or hasattr(space, NAME):
        raise SpaceError(
            f"{type(space).__name__} has a mutator, or is a supernet, already. Lift it before: `lift(space).mutator()`."
        )


def _check_lifted(lifted: Lifted) -> None:
    if not lifted.changes and not any(isinstance(module, DynamicOp) for module in lifted.space.modules()):
        raise SpaceError(f"Nothing can be lifted; say what in `where`.\n{lifted}")


# Which modules


def _chosen(where: Where, space: nn.Module) -> Chosen:
    """Return what tells whether a module is chosen."""
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
        return isinstance(module, CONVOLUTIONS) and (name.startswith(candidates) or bool(_choices(module)))

    if any(is_searched(name, module) for name, module in space.named_modules()):
        return is_searched
    return lambda name, module: isinstance(module, CONVOLUTIONS)


def _choices(module: nn.Module) -> list[Any]:
    return list(module.mutables) if isinstance(module, ParametrizedModule) else []


# What becomes of them


def _plan(root: nn.Module, chosen: Chosen, prefix: str) -> tuple[list[Change], list[Kept]]:
    """Make what takes the places of chosen modules, and change nothing.

    Parameters
    ----------
    prefix
        What names do not start with.
    """
    found: dict[nn.Module, tuple[str, list[tuple[nn.Module, str]]]] = {}
    for path, parent, name, module in _walk(root):
        found.setdefault(module, (path.removeprefix(prefix).lstrip("."), []))[1].append((parent, name))
    owners: dict[Tensor, list[str]] = {}
    for module, (name, _) in found.items():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, []).append(name)
    context = getattr(root, "_frozen_context", None)  # what NNI's dry run chose, for the twins' choices
    context = context if isinstance(context, frozen_context) else nullcontext()
    changes, kept = [], []
    for module, (name, places) in found.items():
        parameters = list(module.parameters(recurse=False))
        if not parameters:
            continue
        others = [other for one in parameters for other in owners[one] if other != name]
        reason = "not chosen" if not chosen(name, module) else _obstacle(module, [one for one, _ in places], others)
        if reason is None:
            try:
                with context:
                    changes.append(Change(name, module, _twin(module), places))
                continue
            except DynConvError as error:
                reason = str(error)
        kept.append(Kept(name, module, reason))
    return changes, kept


def _walk(parent: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
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

    return visit(parent, path)


def _obstacle(module: nn.Module, parents: list[nn.Module], others: list[str]) -> str | None:
    """Return why a module cannot be lifted, if so."""
    if any(getattr(module, name) for name in HOOKS) or "forward" in vars(module):
        return "its hooks, or its own `forward`, would be lost"
    if others:
        return f"it shares a parameter with {others[0]}"
    for parent in parents:
        if type(parent).__module__.startswith("torch.nn.") and not isinstance(parent, CONTAINERS):
            return f"{type(parent).__name__} may read its weights itself"
    return None if _torchs(module) is not None else _obstacle_to_call(module)


def _obstacle_to_call(module: nn.Module) -> str | None:
    """Return why a module without a dynamic twin cannot be called with made parameters, if so."""
    if _choices(module):
        return "there is no dynamic twin for its choices"
    if any(True for child in module.children() for _ in child.parameters()):
        return "there is no dynamic twin, and modules inside have parameters too"
    if isinstance(module, nn.RNNBase):
        return "there is no dynamic twin, and it keeps its weights in a place of its own"
    inputs = list(inspect.signature(type(module).forward).parameters.values())[1:]
    needed = [one for one in inputs if one.default is one.empty]
    if len(needed) != 1 or needed[0].kind not in (needed[0].POSITIONAL_ONLY, needed[0].POSITIONAL_OR_KEYWORD):
        return "there is no dynamic twin, and its forward does not take one input"
    return None


def _torchs(module: nn.Module) -> type[nn.Module] | None:
    """Return the class of torch that a module is, or that NNI's parametrised one wraps."""
    torchs = getattr(module, "_bound_type", None) if isinstance(module, ParametrizedModule) else type(module)
    return torchs if torchs in TWINS else None


def _twin(module: nn.Module) -> Twin:
    """Make what takes a module's place; it has the module's arguments, running statistics and mode."""
    torchs = _torchs(module)
    twin = DynamicCall(module) if torchs is None else _of_class(TWINS[torchs], module)
    for one in (twin, *_variants(twin)):
        vars(one)[ORIGINAL] = Original(module)
    return twin.train(module.training)


def _of_class(cls: type[DynamicOp], module: Any) -> Twin:
    given = module.args if _choices(module) else vars(module) | {"bias": getattr(module, "bias", None) is not None}
    names = inspect.signature(cls.__init__).parameters
    for name, value in given.items() if _choices(module) else ():
        if isinstance(value, Mutable) and name not in names:
            raise SpaceError(f"its `{name}` is a choice, which {cls.__name__} does not have")
    twin = cls(**{name: given[name] for name in names if name in given})
    for op in _variants(twin):
        for name, buffer in module.named_buffers():  # running statistics
            own = op.norm.get_buffer(name)
            if own.shape == buffer.shape:
                op.norm.register_buffer(name, buffer.clone())
    return twin


def _variants(twin: Any) -> list[Any]:
    return list(twin.variants.values()) if isinstance(twin, ChoiceOp) else [twin]


def _num_generated(twin: Twin) -> int:
    return sum(op.num_generated for op in _variants(twin))


def _apply(changes: Sequence[Change]) -> None:
    for change in changes:
        for parent, name in change.places:
            parent._modules[name] = change.twin


# Factories and freezing


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
        changes, _ = _plan(holder, lambda name, module: self.chosen(f"{path}.{name}".rstrip("."), module), "0")
        _apply(changes)
        return holder[0]


def _lift_factories(cell: Cell, path: str, chosen: Chosen) -> Any:
    factory = cell.op_candidates_factory
    named = factory.items() if isinstance(factory, dict) else enumerate(factory)
    lifted = {name: _LiftedFactory(one, path, cell.num_predecessors, str(name), chosen) for name, one in named}
    return lifted if isinstance(factory, dict) else list(lifted.values())


def _freeze_lifted(space: ModelSpace, sample: Mapping[str, Any], where: Where, base: Base) -> nn.Module:
    """Freeze a space whose own ``freeze`` builds all anew, as NNI's NASNet family does, and keep it dynamic."""
    if is_supernet(space) or not space.simplify():
        return MutableModule.freeze(space, sample)
    return lift(type(space).freeze(space, sample), where, base).space
