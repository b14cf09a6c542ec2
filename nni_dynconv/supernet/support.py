"""What a sampler cannot search is refused by name, before anything is changed: the matrix of ``docs/support.md``."""

from __future__ import annotations

from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.mutable import Categorical, Constraint, Mutable, MutableAnnotation
from nni.nas.nn.pytorch import (
    Cell,
    InputChoice,
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLayerNorm,
    MutableLinear,
    MutableMultiheadAttention,
    Repeat,
)
from nni.nas.oneshot.pytorch.supermodule._expression_utils import traverse_all_options
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingCell
from torch import nn

from ..errors import SpaceError
from ..ops import ChoiceOp

__all__ = ["check_supported", "own_choices"]

WEIGHED: dict[type[nn.Module], tuple[str, ...]] = {
    MutableConv2d: ("in_channels", "out_channels", "kernel_size", "padding"),
    MutableLinear: ("in_features", "out_features"),
    MutableBatchNorm2d: ("num_features",),
    MutableLayerNorm: ("normalized_shape",),
    MutableMultiheadAttention: ("embed_dim", "kdim", "vdim"),
}
"""Arguments of NNI's modules that may be a mixture of whole numbers: their weights are sliced and weighed."""
PARAMETRISED = tuple(WEIGHED)


def own_choices(module: nn.Module) -> list[Mutable]:
    """Return what a module itself chooses by; constraints choose nothing."""
    return [one for one in getattr(module, "mutables", []) if not isinstance(one, MutableAnnotation)]


def check_supported(space: ModelSpace, gradient: bool, mixes: bool) -> None:
    """Refuse by name what a sampler cannot search, before anything is changed.

    Parameters
    ----------
    gradient
        The sampler learns by gradient (GDAS, DARTS).
    mixes
        A forward runs all candidates at once (DARTS).
    """
    _check_whole(space, mixes)
    for name, module in space.named_modules():
        if isinstance(module, InputChoice) and module.reduction == "none":
            _refuse(name, "`InputChoice` with `reduction='none'`", "any sampler")
        if mixes and isinstance(module, InputChoice) and module.reduction == "concat":
            _refuse(name, "`InputChoice` with `reduction='concat'`", "a sampler that mixes all inputs (DARTS)")
        if mixes and isinstance(module, ChoiceOp):
            _refuse(name, f"`{module.op}` with `nni.choice` arguments", "a sampler that mixes all candidates (DARTS)")
        if not gradient or module is space or isinstance(module, ChoiceOp):
            continue
        depth = getattr(module, "depth_choice", None)
        if isinstance(module, Repeat) and not isinstance(depth, (int, Categorical)):
            _refuse(name, "`Repeat` with an expression as its depth", "samplers that learn by gradient (DARTS, GDAS)")
        if isinstance(module, PARAMETRISED):
            if mixes:
                _check_weighed(name, module)
            continue
        primitive = isinstance(module, (LayerChoice, InputChoice, Repeat, Cell, PathSamplingCell))
        if own_choices(module) and not primitive:
            _refuse(name, f"`{type(module).__name__}` with `nni.choice` arguments", "samplers that learn by gradient")


def _check_weighed(name: str, module: Any) -> None:
    """Refuse what NNI's own module cannot mix, of arguments whose candidates are all in a forward at once."""
    known = WEIGHED[next(kind for kind in WEIGHED if isinstance(module, kind))]
    given = module.trace_kwargs
    chosen = {argument: value for argument, value in given.items() if isinstance(value, Mutable)}
    for argument, value in chosen.items():
        mixes = argument in known and all(isinstance(one, int) for one in traverse_all_options(value))
        if argument == "padding":  # NNI takes the largest, where kernels are mixed: a choice of its own learns nothing
            mixes = "kernel_size" in chosen and value.simplify().keys() <= chosen["kernel_size"].simplify().keys()
        if argument == "kernel_size" and isinstance(given.get("padding"), str):
            mixes = False
        if not mixes:
            what = f"`{type(module).__name__}` with `nni.choice` for `{argument}`"
            _refuse(name, what, "a sampler that mixes all candidates (DARTS)")


def _check_whole(space: ModelSpace, mixes: bool) -> None:
    """Refuse constraints that a mixture cannot keep, and choices that the space itself makes where it is built."""
    constraints = [label for label, one in space.simplify().items() if isinstance(one, Constraint)]
    if mixes and constraints:
        raise SpaceError(
            f"Constraint `{constraints[0]}` is not supported by a sampler that mixes all candidates (DARTS): the "
            f"mixture has what the constraint forbids. Take another sampler."
        )
    inside = [one for module in space.modules() if module is not space for one in own_choices(module)]
    known = {label for one in inside for label in one.simplify()}
    alone = [label for one in own_choices(space) for label in one.simplify() if label not in known]
    if alone:
        raise SpaceError(
            f"Label `{alone[0]}` is chosen by {type(space).__name__} itself (`add_mutable`), where it builds its "
            f"modules, and a supernet is built once. Let a module inside choose by it, or lift each architecture by "
            f"itself: `lift(space).freeze(sample).mutator()`."
        )


def _refuse(name: str, what: str, whom: str) -> None:
    raise SpaceError(f"Module `{name}`: {what} is not supported by {whom}. See the support matrix in docs/support.md.")
