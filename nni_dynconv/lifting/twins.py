"""One module and its dynamic twin: why there can be none, or the twin itself."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.mutable import Mutable
from nni.nas.nn.pytorch import ParametrizedModule
from torch import nn

from .. import ops
from ..errors import SpaceError
from ..generation import ORIGINAL, Original
from ..ops import ChoiceOp, DynamicCall, DynamicOp
from ..supernet import HOOKS

__all__ = ["TWINS", "Twin", "choices_of", "obstacle_of", "twin_of", "variants_of"]

Twin = DynamicOp | ChoiceOp
# Torch's layers that have a dynamic op of the same name.
TWINS: dict[type[nn.Module], type[DynamicOp]] = {
    getattr(nn, name.removeprefix("Dynamic")): getattr(ops, name)
    for name in ops.__all__
    if hasattr(nn, name.removeprefix("Dynamic"))
}
TOLD = (bool, int, float, str, tuple, type(None))
"""Arguments that a layer keeps as attributes are of these types; what stands around it may read them."""
PLAIN = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Classes of torch that do nothing with the parameters of modules inside."""


def obstacle_of(module: nn.Module, parents: Sequence[nn.Module], others: Sequence[str]) -> str | None:
    """Return why a module cannot be lifted, if so.

    Parameters
    ----------
    parents
        The modules that it stands in.
    others
        Names of other modules that it shares a parameter with.
    """
    if any(getattr(module, name) for name in HOOKS) or "forward" in vars(module):
        return "its hooks, or its own `forward`, would be lost"
    if others:
        return f"it shares a parameter with {others[0]}"
    for parent in parents:
        if any(cls.__module__.startswith("torch.nn.") for cls in type(parent).__mro__ if cls not in PLAIN):
            return f"{type(parent).__name__} may read its weights itself"
    return None if _torchs(module) is not None else _obstacle_to_call(module)


def _obstacle_to_call(module: nn.Module) -> str | None:
    """Return why a module without a dynamic twin cannot be called with made parameters, if so."""
    if choices_of(module):
        return "there is no dynamic twin for its choices"
    if any(True for child in module.children() for _ in child.parameters()):
        return "there is no dynamic twin, and modules inside have parameters too"
    if isinstance(module, nn.RNNBase):
        return "there is no dynamic twin, and it keeps its weights in a place of its own"
    inputs = list(inspect.signature(type(module).forward).parameters.values())[1:]
    if len(inputs) != 1 or inputs[0].kind not in (inputs[0].POSITIONAL_ONLY, inputs[0].POSITIONAL_OR_KEYWORD):
        return "there is no dynamic twin, and its forward does not take one input"
    return None


def _torchs(module: nn.Module) -> type[nn.Module] | None:
    """Return the class of torch that a module is, or that NNI's parametrised one wraps."""
    torchs = getattr(module, "_bound_type", None) if isinstance(module, ParametrizedModule) else type(module)
    return torchs if torchs in TWINS else None


def twin_of(module: nn.Module) -> Twin:
    """Make what takes a module's place; it has the module's arguments, running statistics and mode."""
    torchs = _torchs(module)
    twin = DynamicCall(module) if torchs is None else _of_class(TWINS[torchs], module)
    for one in (twin, *variants_of(twin)):
        vars(one)[ORIGINAL] = Original(module)
        told = {name: value for name, value in vars(module).items() if isinstance(value, TOLD)}
        vars(one).update({name: value for name, value in told.items() if not hasattr(one, name)})
    return twin.train(module.training)


def _of_class(cls: type[DynamicOp], module: Any) -> Twin:
    given = module.args if choices_of(module) else vars(module) | {"bias": getattr(module, "bias", None) is not None}
    names = inspect.signature(cls.__init__).parameters
    for name, value in given.items() if choices_of(module) else ():
        if isinstance(value, Mutable) and name not in names:
            raise SpaceError(f"its `{name}` is a choice, which {cls.__name__} does not have")
    twin = cls(**{name: given[name] for name in names if name in given})
    for op in variants_of(twin):
        for name, buffer in module.named_buffers():  # running statistics
            own = op.norm.get_buffer(name)
            if own.shape == buffer.shape:
                op.norm.register_buffer(name, buffer.clone())
    return twin


def variants_of(twin: Twin) -> list[Any]:
    """Return the ops that a twin may run: one, or one for each combination of its choices."""
    return list(twin.variants.values()) if isinstance(twin, ChoiceOp) else [twin]


def choices_of(module: nn.Module) -> list[Any]:
    """Return the choices among a module's arguments, of which only NNI's parametrised modules have any."""
    return list(module.mutables) if isinstance(module, ParametrizedModule) else []
