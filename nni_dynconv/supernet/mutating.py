"""A model space becomes a supernet, by NNI's own machinery, or one architecture of itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.mutable import Mutable
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy, no_default_hook
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.operation import NATIVE_MIXED_OPERATIONS
from torch import Tensor, nn

from ..errors import SpaceError
from ..generation import NAME
from ..ops import ChoiceOp
from .cells import ScopedCell
from .modules import ScopedInput, ScopedLayer, ScopedPolicy, ScopedRepeat
from .support import own_choices

__all__ = ["copyable", "freeze", "is_supernet", "mutate"]


class _Builder(OneShotStrategy):
    """NNI's own machinery for replacing modules in place."""

    def default_mutation_hooks(self) -> list[Any]:
        ours = [ScopedLayer.mutate, ScopedInput.mutate, ScopedRepeat.mutate, ScopedCell.mutate]
        return [_keep, *ours, *(operation.mutate for operation in NATIVE_MIXED_OPERATIONS), no_default_hook]

    def run_hook(self, hook: Any, name: str, module: nn.Module, memo: dict[str, Any]) -> Any:
        return hook(module, name, memo, {"mixed_op_sampling": ScopedPolicy})


def _keep(module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> bool:
    """Tell NNI to leave alone what reads the scope itself, and what only puts constraints on the choices of others."""
    return isinstance(module, ChoiceOp) or (bool(getattr(module, "mutables", [])) and not own_choices(module))


def mutate(space: ModelSpace) -> None:
    """Turn a model space into a supernet, in place.

    Raises
    ------
    SpaceError
        A module has mutables that neither NNI nor we can sample.
    """
    try:
        _Builder().mutate_model(space)
    except (TypeError, ValueError) as error:
        raise SpaceError(f"{type(space).__name__} cannot be made a supernet: {error}") from error


def freeze(space: ModelSpace, sample: Mapping[str, Any]) -> nn.Module:
    """Return one architecture of a space, of a supernet with its modules, also where the space's class builds anew."""
    if any(isinstance(module, (BaseSuperNetModule, ChoiceOp)) for module in space.modules()):
        return _frozen(space, dict(sample))
    return space.freeze(sample)


def _frozen(module: nn.Module, sample: dict[str, Any]) -> nn.Module:
    """Return a module with its choices made, as NNI's ``recursive_freeze``, which copies all of a choice to drop it."""
    made: dict[int, Any] = {}
    for name, child in module.named_children():
        if name != NAME:
            new = child.freeze(sample) if isinstance(child, Mutable) else _frozen(child, sample)
            made |= {} if new is child else {id(child): new}
    if not made:
        return module
    kept = getattr(module, NAME, None)  # what makes weights is left as it is
    return copy.deepcopy(module, made if kept is None else {**made, id(kept): kept})


@contextmanager
def copyable(network: nn.Module) -> Iterator[None]:
    """For a block, let torch copy modules that keep a tensor that they have computed, as ``nn.utils.weight_norm`` does.

    Whoever freezes copies, NNI too, and torch copies no tensor that has a graph: it is detached meanwhile.
    """
    kept = [
        (vars(module), name, one)
        for module in network.modules()
        for name, one in vars(module).items()
        if isinstance(one, Tensor) and not one.is_leaf
    ]
    for owner, name, one in kept:
        owner[name] = one.detach()
    try:
        yield
    finally:
        for owner, name, one in kept:
            owner[name] = one


def is_supernet(space: nn.Module) -> bool:
    """Tell whether some module of the space has been replaced already."""
    return any(isinstance(module, BaseSuperNetModule) for module in space.modules())
