"""Checks that bind axis names to sizes and, where two tensors disagree, show both; of whole numbers, and of dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from ..errors import DtypeError, ShapeError

__all__ = ["Axes", "check_alike", "check_dtypes", "check_tensors", "is_whole"]


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is a whole number, also one that torch traces, and not too small.

    Examples
    --------
    >>> is_whole(3, 1), is_whole(0, 1), is_whole(3.0, 1), is_whole(True, 1), is_whole(None, 1)
    (True, False, False, False, False)
    """
    if value is None or isinstance(value, (bool, float, str, tuple, list)):
        return False
    try:
        return bool(value >= least)
    except (TypeError, ValueError, RuntimeError):  # nothing that is compared with a number
        return False


def check_tensors(op: str, **given: Any) -> None:
    """Refuse what is no tensor; a bias may be ``None``.

    Raises
    ------
    DtypeError
        In words.
    """
    for name, one in given.items():
        if not (hasattr(one, "dtype") and hasattr(one, "dim")) and not (name != "x" and one is None):
            raise DtypeError(f"`{op}`: `{name}` is a {type(one).__name__}, but must be a tensor.")


def check_dtypes(axes: int, x: Any, weight: Any, bias: Any) -> None:
    """Refuse tensors of one call whose dtypes differ, but under autocast, where torch casts them.

    Parameters
    ----------
    axes
        Of space; negative: of a transposed convolution; 0: of a linear map.

    Raises
    ------
    DtypeError
        In words.
    """
    check_alike(_op_of(axes), x, weight, bias)


def check_alike(op: str, x: Any, weight: Any, bias: Any = None) -> None:
    """Refuse tensors of one call whose dtypes differ; as :func:`check_dtypes`, of a function by its name."""
    check_tensors(op, x=x, weight=weight if weight is not None else (), bias=bias)
    if torch.is_autocast_enabled(x.device.type):
        return
    dtypes = {"x": x.dtype, "weight": weight.dtype} | ({} if bias is None else {"bias": bias.dtype})
    told = ", ".join(f"`{name}` is {str(dtype).removeprefix('torch.')}" for name, dtype in dtypes.items())
    raise DtypeError(
        f"`{op}`: the dtypes differ: {told}. Convert the input, `x.to(weight.dtype)`, or the whole network "
        f"with what makes its weights, `.to(x.dtype)`."
    )


class Axes:
    """The axis names of one call, bound to sizes by the tensors seen so far.

    Parameters
    ----------
    where : str
        The function that checks, as its caller knows it.

    Examples
    --------
    >>> axes = Axes("conv2d")
    >>> axes.bind("x", (2, 3, 8, 8), "B Cin H W")
    >>> axes["Cin"]
    3
    >>> axes.bind("weight", (4, 5, 1, 1), "Cout Cin Kh Kw")
    Traceback (most recent call last):
    nni_dynconv.errors.ShapeError: `conv2d`: axis `Cin` is 3 in `x` but 5 in `weight`.
      x: B Cin H W = (2, 3, 8, 8)
      weight: Cout Cin Kh Kw = (4, 5, 1, 1)
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._bound: dict[str, tuple[int, str]] = {}
        self._seen: list[str] = []

    def __getitem__(self, name: str) -> int:
        return self._bound[name][0]

    def bind(self, tensor: str, shape: Sequence[int], names: str) -> None:
        """Bind each of ``names`` to its size in ``shape``.

        Raises
        ------
        ShapeError
            If the number of axes differs, or a name is already bound to another size.
        """
        split = names.split()
        if len(shape) != len(split):
            self.fail(f"`{tensor}` has {len(shape)} axes, {tuple(shape)}, but needs {len(split)}: {names}.")
        self._seen.append(f"{tensor}: {names} = {tuple(shape)}")
        for name, size in zip(split, shape, strict=True):
            bound, owner = self._bound.setdefault(name, (size, f"`{tensor}`"))
            if bound != size:
                self.fail(f"axis `{name}` is {bound} in {owner} but {size} in `{tensor}`.")

    def derive(self, name: str, size: int, owner: str) -> None:
        """Bind ``name`` to a size that follows from others; ``owner`` says in words where it comes from."""
        self._bound[name] = (size, owner)

    def check_whole(self, name: str, value: Any, least: int = 1) -> None:
        """Refuse an option that is no whole number, or too small.

        Raises
        ------
        ShapeError
            In words.
        """
        if not is_whole(value, least):
            self.fail(f"`{name}` is {value!r}, but must be a whole number of {least} or more.")

    def fail(self, what: str) -> NoReturn:
        """Raise a :class:`ShapeError` that says what is wrong and lists the tensors seen so far."""
        raise ShapeError("\n  ".join([f"`{self.where}`: {what}", *self._seen]))


def _op_of(axes: int) -> str:
    return "linear" if not axes else f"conv{'_transpose' if axes < 0 else ''}{abs(axes)}d"
