"""What a mutator is given: its arguments, refused in words, and what the ops of its space ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from ..errors import ConfigError, SpaceError
from ..generation import NAME, ArchitectureEncoder, Controller, OwnInputContext, own_inputs_of, recipes_for
from ..ops import DynamicOp
from ..samplers import Sampler
from ..settings import Recipe
from .mutating import is_supernet
from .naming import name_sites

__all__ = ["OWN", "asked_of", "check_arguments", "check_example"]

OWN = "`DynamicWeightMutator`"


def asked_of(
    space: ModelSpace, settings: Mapping[str, Any], context: nn.Module | None
) -> tuple[dict[str, DynamicOp], list[Recipe]]:
    """Return a space's ops by site and the recipe of each, or refuse them; only names of sites are set."""
    ops = {str(op.site): op for op in name_sites(space)}
    recipes = recipes_for(ops, settings, OWN)
    if isinstance(context, OwnInputContext):
        own_inputs_of(ops, recipes)
    return ops, recipes


def check_example(example: Any) -> None:
    """Refuse to decide what is left open where nothing says what the network is called with."""
    if example is None:
        raise ConfigError(
            "`delta` is `auto`, which picks recipes by what a training step would cost, but there is no batch to tell "
            "that by. Give one, as the network is called with it: `example=(x, context)`, or `example=x`; or name a "
            "delta."
        )


def check_arguments(space: Any, controller: Any, sampler: Any, context: Any, architecture: Any) -> None:
    if not isinstance(space, ModelSpace):
        raise SpaceError(
            f"The space is a {type(space).__name__}, but must be a `nni.nas.nn.pytorch.ModelSpace`: let your network's "
            f"class inherit it."
        )
    parts: Iterable[tuple[str, Any, type]] = (
        ("controller", controller, Controller),
        ("sampler", sampler or None, Sampler),
        ("context", context, nn.Module),
        ("architecture", architecture, ArchitectureEncoder),
    )
    for name, value, wanted in parts:
        if value is not None and not isinstance(value, wanted):
            raise ConfigError(f"`{name}` is {value!r}, but must be a {wanted.__name__} (or None).")
        if isinstance(value, (Controller, ArchitectureEncoder, OwnInputContext)) and value.bound:
            raise ConfigError(f"This {type(value).__name__} serves another mutator already. Make one each.")
    if architecture is not None and sampler is False:
        raise ConfigError(
            "`architecture` needs a sampler of this package: with `sampler=False` NNI's own strategy chooses, and does "
            "not tell what before it runs. Leave `architecture` out."
        )
    if is_supernet(space) or hasattr(space, NAME):
        state = "is a supernet" if is_supernet(space) else "has a mutator"
        raise SpaceError(
            f"{type(space).__name__} {state} already. Make a new one: `{type(space).__name__}(...)`, and give it "
            f"to one mutator."
        )
    if not any(isinstance(module, DynamicOp) for module in space.modules()):
        raise SpaceError(
            f"{type(space).__name__} has no dynamic op: there is nothing for a controller to make. Put one in, such as "
            f"`nni_dynconv.ops.DynamicConv2d`."
        )
