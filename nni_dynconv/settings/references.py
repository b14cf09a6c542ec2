"""``module:Class`` in a YAML: importing it, and looking it up in the source without running anything."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean

__all__ = ["call_object", "check_reference", "check_source", "load_object", "short"]


def load_object(reference: str) -> Any:
    """Import ``module:Class``.

    >>> load_object("fractions:Fraction")(1, 2)
    Fraction(1, 2)
    """
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ConfigError(_no_module(module_name, reference)) from None
        raise
    if not hasattr(module, name):
        known = [one for one in vars(module) if not one.startswith("_")]
        raise ConfigError(f"Module `{module_name}` has no `{name}`, which `{reference}` names.{_near(name, known)}")
    return getattr(module, name)


def call_object(reference: str, key: str, arguments: Mapping[str, Any]) -> Any:
    """Import ``module:Class`` and call it with arguments of a YAML.

    Parameters
    ----------
    key
        The setting that names it; its arguments are those of ``key_args``.

    Raises
    ------
    ConfigError
        It takes other arguments.

    Examples
    --------
    >>> call_object("fractions:Fraction", "space", {"numerator": 1, "denominator": 2})
    Fraction(1, 2)
    """
    found = load_object(reference)
    try:
        signature = _signature(found)
    except (TypeError, ValueError):  # some builtin ones have none
        return found(**arguments)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        known = [one for one in signature.parameters if one not in arguments]
        unknown = next((one for one in arguments if one not in signature.parameters), None)
        hint = _near(unknown, known) if unknown is not None else ""
        raise ConfigError(
            f"`{key}_args` are {dict(arguments)}, but `{reference}` takes `{signature}`: {error}.{hint}"
        ) from None
    return found(**arguments)


def _signature(found: Any) -> inspect.Signature:
    """Return what a function or a class takes; NNI puts an ``__init__`` that takes anything around that of a space."""
    if not inspect.isclass(found) or found.__init__ is object.__init__:
        return inspect.signature(found)
    wrapped = (vars(one).get("_init_wrapped") for one in found.__mro__)
    own = (one for one in wrapped if one is not None and not one.__qualname__.endswith(".new_init"))
    whole = inspect.signature(next(own, found.__init__))
    return whole.replace(parameters=list(whole.parameters.values())[1:])


def _no_module(module_name: str, reference: str) -> str:
    return (
        f"There is no module `{module_name}`, which `{reference}` names. It must lie in the experiment's "
        f"`trialCodeDirectory`, or be installed."
    )


def _near(name: str, known: Iterable[str]) -> str:
    hint = did_you_mean(name, known)
    return hint if hint.startswith(" Did") else ""


def check_reference(reference: str, where: str, key: str = "name") -> None:
    module_name, separator, name = reference.partition(":")
    parts = [*module_name.split("."), name]
    if not separator or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"`{key}` in {where} is `{reference}`, but must be `module:Class` (or `module:function`).")


def check_source(reference: str, key: str, where: str, code_directory: Path) -> None:
    """Look the name up in the module's source, without running it."""
    module_name, _, name = reference.partition(":")
    source = _find_source(module_name, code_directory)
    if source is None:
        raise ConfigError(f"`{key}` in {where}: {_no_module(module_name, reference)}")
    if source.suffix != ".py":
        return
    names = _names_in(source, key, where)
    if name not in names and "*" not in names and "__getattr__" not in names:
        raise ConfigError(f"`{key}` in {where}: {short(source)} has no `{name}`.{_near(name, names)}")


def _find_source(module_name: str, code_directory: Path) -> Path | None:
    here = _source_at(code_directory.joinpath(*module_name.split(".")))
    if here is not None:
        return here
    top = module_name.split(".")[0]
    found = importlib.util.find_spec(top)
    if found is None or top == module_name:
        return Path(found.origin) if found and found.origin else None
    tail = module_name.split(".")[1:]
    sources = (_source_at(Path(root, *tail)) for root in found.submodule_search_locations or ())
    return next((source for source in sources if source is not None), None)


def _source_at(base: Path) -> Path | None:
    """Return the file of a package or a module; a folder that an older version left behind is neither."""
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _names_in(source: Path, key: str, where: str) -> set[str]:
    """Names that a module's source binds at its top level; ``*`` stands for a star import that cannot be followed."""
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ConfigError(f"`{key}` in {where}: {short(source)} line {error.lineno}: {error.msg}.") from None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.level and node.names[0].name == "*":
            starred = _source_at(source.parents[node.level - 1].joinpath(*(node.module or "").split(".")))
            names |= {"*"} if starred is None else _names_in(starred, key, where)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {one.asname or one.name.split(".")[0] for one in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def short(path: Path) -> str:
    """The path relative to the working directory where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
