"""What a file may name: torch's layers and operators and what this package has, and no more unless it is trusted."""

from __future__ import annotations

import importlib
import math
import operator
import re
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from .. import generation, ops
from ..errors import ExportError
from .renames import renamed

__all__ = ["SIZES", "class_named", "is_allowed", "name_of", "operator_named"]


def name_of(cls: type) -> str:
    """Return a class as ``module:Class``."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _modules_of(*places: Any) -> dict[str, type[nn.Module]]:
    found = [one for place in places for one in vars(place).values()]
    return {name_of(one): one for one in found if isinstance(one, type) and issubclass(one, nn.Module)}


OURS: dict[str, type[nn.Module]] = _modules_of(ops, generation)
TORCHS = _modules_of(nn)


def is_allowed(reference: str) -> bool:
    """Whether a class is read without trust."""
    return renamed(reference) in OURS or renamed(reference) in TORCHS


def class_named(reference: Any, trust: Collection[str] = ()) -> type[nn.Module]:
    """Return a class by ``module:Class``: one of torch's or ours, or of a module that the user trusts.

    Parameters
    ----------
    trust
        Names of modules and packages that may be imported.

    Raises
    ------
    ExportError
        It is of another module, is not there, or is no module of torch.
    """
    if not isinstance(reference, str):
        raise ExportError(f"{reference!r} is no class of torch modules.")
    known = renamed(reference)
    if known in OURS:
        return OURS[known]
    if known in TORCHS:
        return TORCHS[known]
    found = object_named(known, trust)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ExportError(f"`{reference}` is no class of torch modules.")
    return found


def object_named(reference: str, trust: Collection[str] = ()) -> Any:
    """Return what stands at ``module:name``, of a module that the user trusts.

    Raises
    ------
    ExportError
        He does not, or it is not there.
    """
    place, _, name = str(reference).partition(":")
    if not any(place == one or place.startswith(f"{one}.") for one in trust):
        package = place.partition(".")[0]
        raise ExportError(
            f"It needs the class `{reference}`, which is neither torch's nor this package's: to read it is to run code "
            f'of `{package}`. If you trust that, say so: `nni_dynconv.load(folder, trust=["{package}"])`.'
        )
    return _imported(place, name, reference)


def _imported(place: str, name: str, reference: str) -> Any:
    try:
        found: Any = importlib.import_module(place)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ExportError(f"The class `{reference}` of the saved network is not to be found: {error}.") from None
    return found


# Operators

OPERATOR = re.compile(r"aten::([A-Za-z][A-Za-z0-9_]*)\.([A-Za-z][A-Za-z0-9_]*)")
ALSO = re.compile(r"aten::(__(?:i?and|i?or|i?xor|i?lshift|i?rshift)__|_[a-z][A-Za-z0-9_]*)\.([A-Za-z][A-Za-z0-9_]*)")
PRIVATE = frozenset(
    [
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "_add_relu",
        "_cdist_forward",
        "_cholesky_solve_helper",
        "_conj",
        "_convolution_mode",
        "_euclidean_dist",
        "_fft_c2c",
        "_fft_c2r",
        "_fft_r2c",
        "_grouped_mm",
        "_local_scalar_dense",
        "_log_softmax",
        "_neg_view",
        "_pdist",
        "_scaled_dot_product_attention_math",
        "_shape_as_tensor",
        "_softmax",
        "_stack",
        "_to_copy",
        "_trilinear",
        "_unique2",
        "_unsafe_index",
        "_unsafe_view",
        "_upsample_bicubic2d_aa",
        "_upsample_bilinear2d_aa",
        "_upsample_nearest_exact1d",
        "_upsample_nearest_exact2d",
        "_upsample_nearest_exact3d",
        "_weight_norm",
    ]
)
"""Operators of torch's own use that networks have in them; of the others many trust what they are given."""
REFUSED = frozenset(
    ["from_file", "set_", "set_data", "resize_", "resize_as_", "record_stream", "retain_grad", "requires_grad_", "data"]
)
"""Operators that reach beyond tensors, or behind what autograd knows."""
REFUSED_TYPES = ("Storage", "Stream", "Dimname", "Future", "__torch__")

SIZES: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(operator, name)
        for name in (
            [
                "add",
                "sub",
                "mul",
                "floordiv",
                "truediv",
                "mod",
                "pow",
                "neg",
                "pos",
                "eq",
                "ne",
                "lt",
                "le",
                "gt",
                "ge",
                "and_",
                "or_",
                "getitem",
                "lshift",
                "rshift",
                "abs",
            ]
        )
    },
    **{
        name: getattr(torch, name)
        for name in ("sym_max", "sym_min", "sym_not", "sym_int", "sym_float", "sym_ite", "sym_sum", "sym_sqrt")
        if hasattr(torch, name)
    },
    **{name: getattr(math, name) for name in ("trunc", "floor", "ceil")},
}
"""What is done to sizes; an item of a tuple too."""


def operator_named(name: Any) -> Any:
    """Return one of torch's operators by ``aten::name.overload``.

    Raises
    ------
    ExportError
        There is none, or it is none of those that networks are made of.
    """
    found = isinstance(name, str) and (OPERATOR.fullmatch(name) or ALSO.fullmatch(name))
    if not found:
        raise ExportError(f"The saved network calls `{name}`, which is no operator of torch.")
    packet, overload = found.groups()
    private = packet.startswith("_") and not packet.startswith("__") and packet.rstrip("_") not in PRIVATE
    try:
        op = getattr(getattr(torch.ops.aten, packet), overload)
    except (AttributeError, RuntimeError):
        raise ExportError(f"The saved network calls `{name}`, which torch {torch.__version__} does not have.") from None
    types = [str(one.type) for one in op._schema.arguments]
    if private or packet in REFUSED or any(word in one for one in types for word in REFUSED_TYPES):
        raise ExportError(f"The saved network calls `{name}`, which a saved network may not.")
    return op
