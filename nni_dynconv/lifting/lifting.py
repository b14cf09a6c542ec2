"""An unchanged model space, or module, becomes a dynamic one: chosen modules give up their parameters for made ones.

What takes their places is made in ``twins.py`` and found in ``changes.py``; what makes weights is the mutator's.
"""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import Cell, ModelSpace, MutableModule
from torch import Tensor, nn

from ..errors import ConfigError, SpaceError
from ..generation import NAME, ORIGINAL, load_original, uninstall
from ..ops import ChoiceOp, DynamicOp
from ..sites import Order, check_order
from ..supernet import Around, is_supernet
from .changes import Change, Kept, Where, apply_changes, chosen_by, find_changes, lift_factories, places_in
from .twins import variants_of

if TYPE_CHECKING:
    from ..supernet import DynamicWeightMutator

__all__ = ["Kept", "Lifted", "lift", "unlift"]

Base = Literal["given", "learned", "none"]
Repeats = Order | Mapping[str, Order] | None
MANY = 1_000_000
"""Values of bases of which nobody needs to be warned."""


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

    def __init__(self, original: nn.Module, space: ModelSpace, where: Where, base: Base, repeats: Repeats = None):
        self.original, self.space, self.where, self.base, self.repeats = original, space, where, base, repeats
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
            Of :class:`~nni_dynconv.DynamicWeightMutator`, except ``base``.

        Raises
        ------
        ConfigError
            ``base`` is among them.
        """
        from ..supernet import DynamicWeightMutator

        if "base" in options:
            raise ConfigError(
                f"`base` is {options['base']!r} here, but {self.base!r} where the space was lifted. Say `base` to "
                f"`lift`; for some sites only, to `per_site`."
            )
        self._warn_of_bases()
        return DynamicWeightMutator(self.space, base=self.base, **options)

    def load_original(self, state: Mapping[str, Tensor]) -> None:
        """Load the ``state_dict()`` of the network that was lifted, before or after a mutator is made.

        Before, the mutator starts from it; after, it goes into the bases, and deltas stay as they are.

        Raises
        ------
        ParamsError
            Names or shapes differ, or a lifted layer has no base; nothing is loaded then.
        """
        network = self.space.network if isinstance(self.space, Around) else self.space
        load_original(network, state, getattr(self.space, NAME, None))

    def _warn_of_bases(self) -> None:
        """Warn where the variants of layers with choices have far more values than the slices that NNI shares."""
        variants = [[op.num_generated for op in variants_of(change.twin)] for change in self.changes]
        own, shared = sum(map(sum, variants)), sum(map(max, variants))
        if self.base != "none" and own > max(2 * shared, MANY):
            warnings.warn(
                f"Each variant of a layer with `nni.choice` arguments has a base of its own: {own:,} values, where "
                f"NNI's supernet, whose variants share slices, has {shared:,}. Give the choices fewer candidates, "
                f"leave such layers out (`where`), or lift with `base='none'`.",
                stacklevel=3,
            )

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
            return lift(network, self.where, self.base, self.repeats)
        lifted = Lifted(network, network, self.where, self.base, self.repeats)
        twins = ((name, one) for name, one in network.named_modules() if ORIGINAL in vars(one))
        lifted.changes = [Change(name, vars(one)[ORIGINAL].module, one, []) for name, one in twins]
        return lifted

    def __str__(self) -> str:
        total = len(self.changes) + len(self.kept)
        made = sum(op.num_generated for change in self.changes for op in variants_of(change.twin))
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


def lift(space: nn.Module, where: Where = None, base: Base = "given", repeats: Repeats = None) -> Lifted:
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
        :class:`~nni_dynconv.DynamicWeightMutator`. :meth:`Lifted.mutator` sees to it.
    repeats
        How samples lie where a module sees several times as many as the network: ``"tiled"`` or ``"consecutive"``, as
        of :func:`nni_dynconv.repeated`; for some modules by a glob on names, ``{"encoder.*": "tiled"}``, of which the
        first that matches counts.

    Returns
    -------
    What was lifted and what was not, and why. Its ``mutator()`` makes the weights.

    Raises
    ------
    SpaceError
        Nothing can be lifted, or the space is a supernet or has a mutator already.
    ConfigError
        ``where``, ``base`` or ``repeats`` is none of the above.

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
    orders = _orders(repeats)
    _check_space(space)
    lifted = Lifted(space, space if isinstance(space, ModelSpace) else Around(space), where, base, repeats)
    chosen = chosen_by(where, space)
    lifted.changes, lifted.kept = find_changes(lifted.space, chosen, "" if space is lifted.space else "network")
    _check_lifted(lifted)
    _tell_orders(lifted.changes, orders)
    # all is planned; what follows only assigns
    lifted.factories = lift_factories(space, chosen)
    apply_changes(lifted.changes)
    if isinstance(space, ModelSpace) and type(space).freeze is not MutableModule.freeze:
        space.freeze = MethodType(partial(_freeze_lifted, where=where, base=base, repeats=repeats), space)
    return lifted


def unlift(lifted: Lifted) -> nn.Module:
    """Put the original modules back, with the weights they had, and return what was given to :func:`lift`.

    Of a space without choices a mutator may have made and trained weights meanwhile: they are dropped.

    Parameters
    ----------
    lifted
        What :func:`lift` gave, or :meth:`Lifted.freeze`.

    Returns
    -------
    ``lifted.original``, in place.

    Raises
    ------
    SpaceError
        A mutator has made a supernet of the space.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3))
    >>> weight = network[0].weight
    >>> unlift(lift(network)) is network and network[0].weight is weight
    True
    """
    space = lifted.space
    if is_supernet(space):
        raise SpaceError(
            f"{type(space).__name__} is a supernet already, which cannot be undone. Lift a copy: "
            f"`lift(copy.deepcopy(space))`."
        )
    if hasattr(space, NAME):
        uninstall(space)
    for _, parent, name, module in list(places_in(space)):
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


def _orders(repeats: Repeats) -> dict[str, Order]:
    """Return what is said of repeated samples, by glob."""
    given = repeats if isinstance(repeats, Mapping) else {} if repeats is None else {"*": repeats}
    return {pattern: check_order(order, "`repeats` of `lift`") for pattern, order in given.items()}


def _tell_orders(changes: Sequence[Change], orders: Mapping[str, Order]) -> None:
    for change in changes:
        told = next((order for glob, order in orders.items() if fnmatch.fnmatchcase(change.name, glob)), None)
        for op in variants_of(change.twin):
            op.repeats = told


def _freeze_lifted(
    space: ModelSpace, sample: Mapping[str, Any], where: Where, base: Base, repeats: Repeats
) -> nn.Module:
    """Freeze a space whose own ``freeze`` builds all anew, as NNI's NASNet family does, and keep it dynamic."""
    if is_supernet(space) or not space.simplify():
        return MutableModule.freeze(space, sample)
    return lift(type(space).freeze(space, sample), where, base, repeats).space
