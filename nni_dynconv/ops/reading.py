"""What modules around a lifted layer read of it: its weight and bias, as they are made in the forward that is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional
from ..errors import ScopeError
from ..sites import repeats_of, scope

__all__ = ["ORIGINAL", "Readable"]

ORIGINAL = "lifted_from"
"""Attribute of a lifted op: what it stands for."""


class Readable:
    """Gives an op of a layer of torch the layer's ``weight`` and ``bias``, where it was lifted.

    Only an open forward has them. Where samples have weights of their own, dtype, device and shape can be read, and
    whoever computes with them is refused.
    """

    weight_specs: Any

    @property
    def has_bias(self) -> bool:
        """Whether a bias is made."""
        return bool(vars(self).get("bias", True))

    @property
    def weight(self) -> Tensor:
        """What is made for the layer now."""
        return _read(self, "weight")  # type: ignore[return-value]

    @property
    def bias(self) -> Any:
        """What is made for a lifted layer now; of others, whether there is one."""
        return _read(self, "bias") if ORIGINAL in vars(self) else self.has_bias

    @bias.setter
    def bias(self, value: bool) -> None:
        vars(self)["bias"] = value


def _read(op: Any, name: str) -> Tensor | None:
    opened = scope.current()
    if ORIGINAL not in vars(op) or opened is None or op.site is None:
        raise AttributeError(name)  # torch's modules then say that they have none
    spec = next((one for one in op.weight_specs() if one.name in _MADE_AS[name]), None)
    if spec is None:
        return None
    if opened.from_input is not None:
        return _Unshared(f"{op.site}.{name}", spec.shape, next(opened.owner.parameters()))  # type: ignore[attr-defined]
    weights, counts, batch = scope.weights_for(op, op.site, type(op).__name__, torch.empty(0))
    made = 1 + weights[spec.name] if spec.kind == "scale" else weights[spec.name]
    if made.dim() == len(spec.shape):
        return made
    return _Unshared(f"{op.site}.{name}", spec.shape, made, lambda: (made, counts, batch))


_MADE_AS = {"weight": ("weight", "scale"), "bias": ("bias", "shift")}


SERVED: dict[Any, Callable[..., Tensor]] = {
    F.linear: functional.linear,
    torch.ops.aten.linear.default: functional.linear,
    torch.ops.aten.conv1d.default: functional.conv1d,
    torch.ops.aten.conv2d.default: functional.conv2d,
    torch.ops.aten.conv3d.default: functional.conv3d,
    F.conv1d: functional.conv1d,
    F.conv2d: functional.conv2d,
    F.conv3d: functional.conv3d,
    F.conv_transpose1d: functional.conv_transpose1d,
    F.conv_transpose2d: functional.conv_transpose2d,
    F.conv_transpose3d: functional.conv_transpose3d,
}
"""Functions of torch, and those of the same arguments that take a set of weights a sample."""


class _Unshared(Tensor):
    """Stands for a weight of which samples have their own.

    It tells dtype, device and shape, and is an argument of torch's convolutions and linear maps; nothing else is
    computed with it.
    """

    layer: str
    made: Callable[[], tuple[Tensor, Sequence[int] | None, int | None]] | None

    @staticmethod
    def __new__(cls, layer: str, shape: tuple[int, ...], like: Tensor, made: Any = None) -> _Unshared:
        own = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        own.layer, own.made = layer, made
        return own

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.layer}, one a sample"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        unshared = [one for one in (*args, *(kwargs or {}).values()) if isinstance(one, cls) and one.made is not None]
        if func not in SERVED or not unshared:
            return super().__torch_function__(func, types, args, kwargs)
        _, counts, batch = unshared[0].made()  # type: ignore[misc]
        x = args[0] if args else (kwargs or {})["input"]
        if batch is not None and x.shape[0] != batch:  # nobody can say here whose they are: an op can be told
            repeats_of(f"`{unshared[0].layer}`", x.shape, batch, None)
        own = [_made(one) for one in args]
        named = {name: _made(one) for name, one in (kwargs or {}).items()}
        return SERVED[func](*own, **named, counts=counts)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        where = next((one.layer for one in args if isinstance(one, cls)), "a lifted layer")
        raise ScopeError(
            f"`{where}` is read by a module that computes with it, but each sample has its own. Do not lift that "
            f"layer (`where`), call it instead, or give one context for the whole batch."
        )


def _made(value: Any) -> Any:
    return value.made()[0] if isinstance(value, _Unshared) and value.made is not None else value
