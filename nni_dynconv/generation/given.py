"""What the ops of a network say of their own: how their weights come about, their inputs, the weights of before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..errors import SpaceError
from ..ops import ORIGINAL, DynamicOp
from ..settings import Recipe, check_settings, recipes_of
from .bases import stored_name
from .context import OwnInputContext, channels_of
from .decision import site_of
from .source import WeightSource

__all__ = [
    "ORIGINAL",
    "Original",
    "bind_own_input",
    "given_of",
    "original_of",
    "own_inputs_of",
    "recipes_for",
    "start_as_given",
]


class Original(NamedTuple):
    """What a dynamic module stands for; copies of the module stand for the same."""

    module: nn.Module

    def __deepcopy__(self, memo: dict[int, Any]) -> Original:
        return self


def original_of(module: nn.Module) -> nn.Module | None:
    """Return what a dynamic module stands for, if it was lifted."""
    original = vars(module).get(ORIGINAL)
    return None if original is None else original.module


def recipes_for(ops: Mapping[str, DynamicOp], settings: Mapping[str, Any], where: str) -> list[Recipe]:
    """Return the recipe of each op.

    Parameters
    ----------
    ops
        By site.
    settings
        ``base``, ``delta``, ``rank``, ``per_site``, as of :class:`~nni_dynconv.DynamicWeightMutator`.
    where
        Place of the settings, for the error's words.

    Raises
    ------
    ConfigError
        A setting is wrong, a delta has no base to change, or a pattern matches no site.
    SpaceError
        Bases are to be given, and nothing was lifted, or not that site.
    """
    default, per_site = check_settings(settings, where)
    own = {name: op.recipe for name, op in ops.items()}
    recipes = recipes_of(own, _defaults_of(default, ops), per_site)
    for name, recipe in recipes.items():
        if recipe.base == "given" and original_of(ops[name]) is None:
            raise SpaceError(
                f"The base of site `{name}` is to be given, but its {type(ops[name]).__name__} was not lifted, so that "
                f"there is no original weight. Take `learned`."
            )
    return list(recipes.values())


def _defaults_of(default: Recipe, ops: Mapping[str, DynamicOp]) -> dict[str, Recipe]:
    """Return each site's default: beside lifted ops, one that was dynamic before has a learned base instead."""
    if default.base != "given":
        return dict.fromkeys(ops, default)
    if not any(map(original_of, ops.values())):
        raise SpaceError(
            "`base` is `given`, but no op of this space was lifted, so that there is no original weight. Take "
            "`learned`, or lift an ordinary network: `lift(space)`."
        )
    learned = replace(default, base="learned")
    return {name: learned if original_of(op) is None else default for name, op in ops.items()}


def bind_own_input(context: nn.Module | None, ops: Mapping[str, DynamicOp], recipes: Sequence[Recipe]) -> None:
    """Tell an encoder of own inputs which inputs there are."""
    if isinstance(context, OwnInputContext):
        context.bind(own_inputs_of(ops, recipes))


def own_inputs_of(ops: Mapping[str, DynamicOp], recipes: Sequence[Recipe]) -> dict[str, tuple[int, int]]:
    """Return what an encoder of own inputs is told; the inputs of static ops are not encoded.

    Raises
    ------
    SpaceError
        An op does not tell how many channels its input has.
    """
    named = zip(ops.items(), recipes, strict=True)
    return {name: channels_of(op, name) for (name, op), recipe in named if recipe.delta != "none"}


@torch.no_grad()
def start_as_given(source: WeightSource, ops: Mapping[str, DynamicOp]) -> None:
    """Let given bases be the original weights, learned where those were, and each delta zero; its factor is learned.

    What makes weights for lifted ops is of their device and type.

    Parameters
    ----------
    ops
        By site; those whose base is given are lifted.
    """
    originals = [one for one in map(original_of, ops.values()) if one is not None]
    first = next((parameter for one in originals for parameter in one.parameters()), None)
    if first is not None:
        source.to(first.device, first.dtype)
    given = [name for name, recipe in source.recipes.items() if recipe.base == "given"]
    for name in given:
        original = original_of(ops[name])
        values = None if original is None else given_of(ops[name], original)
        for spec, value in (values or {}).items():
            source.bases.parameters_of(name)[spec].copy_(value).requires_grad_(value.requires_grad)
    source.start_from_bases(given)


def given_of(op: DynamicOp, module: nn.Module) -> dict[str, Tensor] | None:
    """Return the original weights by name of an op's spec, as its base is stored; ``None`` where shapes are other ones.

    A normalisation without a bias has one here, which is not learned.
    """
    site, found = site_of(op), {}
    for spec in site.specs:
        value: Any = getattr(module, stored_name(site, spec))
        if value is None and spec.kind == "shift":
            value = torch.zeros_like(cast(Tensor, module.weight))
        if value is None or value.shape != spec.shape:
            return None
        found[spec.name] = value
    return found
