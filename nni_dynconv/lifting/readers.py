"""What the code of a module says about its layers: whether it computes with their parameters itself."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from torch import nn

__all__ = ["reader_of"]

TOLD = ("dtype", "device", "shape", "ndim", "is_cuda", "requires_grad", "dim", "size", "numel", "element_size")
"""What a lifted layer's weight tells without being made for anyone."""
ALL = ("parameters", "named_parameters", "state_dict")
"""Methods of a module that give all of its parameters."""
BEFORE = ("__init__", "reset_parameters", "init_weights", "_init_weights", "extra_repr", "__repr__")
"""Methods that run before a network is lifted, or compute nothing."""


class Read(NamedTuple):
    """A parameter that some method reads: ``self.<path>.<name>``, or all, as ``self.<path>.parameters()``."""

    path: str
    name: str
    method: str
    first: bool = False
    """Whether any parameter will do, as to ``next(self.parameters())``."""


def reader_of(
    name: str, module: nn.Module, ancestors: Sequence[tuple[str, nn.Module]], stay: Sequence[str] = ()
) -> str | None:
    """Return why a module's parameters cannot be made, for what a module around it does with them.

    Parameters
    ----------
    name
        Path of the module in the whole.
    ancestors
        The modules that it stands in, with their paths.
    stay
        Paths of modules that keep their parameters.
    """
    parameters = {own for own, _ in module.named_parameters(recurse=False)}
    for path, ancestor in ancestors:
        inside = name.removeprefix(path).lstrip(".")
        for read in _reads_of(cast(Any, type(ancestor))):
            where = f"`{read.method}` of {type(ancestor).__name__}"
            if read.path == inside and read.name in parameters:
                return f"{where} computes with its `{read.name}` itself"
            asked = f"{path}.{read.path}.".lstrip(".").replace("..", ".")
            if read.name.endswith("()") and f"{name}.".startswith(asked) and not (read.first and _any_in(stay, asked)):
                return f"{where} asks for `{read.name}`, which would be gone"
    return None


def _any_in(names: Sequence[str], prefix: str) -> bool:
    return any(f"{name}.".startswith(prefix) for name in names)


@lru_cache(maxsize=4096)
def _reads_of(cls: Any) -> tuple[Read, ...]:
    """Return what the methods of a class read, of its own code and that of the classes it inherits but torch's."""
    found: list[Read] = []
    hidden: set[str] = set()  # replaced by a class further down, which does not call them
    run = _run_by_forward(cls)
    for own in cls.__mro__:
        if not own.__module__.startswith(("torch.", "builtins", "nni.")):
            found += [read for read in _reads_in(own, run) if read.method not in hidden]
            hidden |= {name for name, method in vars(own).items() if callable(method) and not _calls_super(method)}
    return tuple(found)


def _calls_super(method: Any) -> bool:
    return "super" in getattr(getattr(inspect.unwrap(method), "__code__", None), "co_names", ())


def _run_by_forward(cls: Any) -> set[str]:
    """Return the methods and properties that a forward may come by, by what their code names."""
    found, names = set(), ["forward"]
    while names:
        name = names.pop()
        if name not in found and hasattr(cls, name) and (name == "forward" or not hasattr(nn.Module, name)):
            found.add(name)
            names += getattr(getattr(_function_of(inspect.getattr_static(cls, name)), "__code__", None), "co_names", ())
    return found


def _function_of(method: Any) -> Any:
    return method.fget if isinstance(method, property) else inspect.unwrap(method) if callable(method) else None


def _reads_in(cls: type, run: set[str]) -> Iterator[Read]:
    for name, method in vars(cls).items():
        function = _function_of(method)
        if name in BEFORE or not inspect.isfunction(function):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except (OSError, TypeError, SyntaxError):
            continue
        me = next(iter(inspect.signature(function).parameters), "self")
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in TOLD}
        told |= {id(node.left) for node in ast.walk(tree) if isinstance(node, ast.Compare) and _is_none(node)}
        firsts = {id(one) for node in ast.walk(tree) if _is_next(node) for one in ast.walk(node)}
        for node in ast.walk(tree):
            path = _path_of(node, me)
            if path and isinstance(node.ctx, ast.Load) and id(node) not in told:  # type: ignore[attr-defined]
                yield Read(".".join(path[:-1]), path[-1], name)
            asked = _path_of(node.func, me, least=1) if isinstance(node, ast.Call) and name in run else None
            if asked and asked[-1] in ALL:
                yield Read(".".join(asked[:-1]), f"{asked[-1]}()", name, id(node) in firsts)


def _is_next(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "next"


def _is_none(node: ast.Compare) -> bool:
    return isinstance(node.comparators[0], ast.Constant) and node.comparators[0].value is None


def _path_of(node: ast.AST, me: str, least: int = 2) -> list[str] | None:
    """Return ``[a, b, c]`` of ``self.a.b.c`` or ``self.a[0].c``, where it has that many parts."""
    parts: list[str] = []
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
        elif isinstance(node.slice, ast.Constant):
            parts.append(str(node.slice.value))
        else:
            return None
        node = node.value
    return parts[::-1] if isinstance(node, ast.Name) and node.id == me and len(parts) >= least else None
