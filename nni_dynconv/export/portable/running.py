"""A network read from a file: its layers and tensors, and the steps of its forward, one after another.

It needs no class of the network that was saved; what a file may name is told in ``allowed.py``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import DynConvError, ExportError, ForwardError, ShapeError
from ...ops import ORIGINAL, DynamicOp
from ..allowed import SIZES, is_allowed, operator_named
from ..modules import make_module
from ..values import decode, identifier, is_record, items_of

__all__ = ["Portable"]

FOREIGN = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)
"""What torch's operators and layers raise of what does not fit."""
KINDS = ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "VAR_POSITIONAL", "KEYWORD_ONLY", "VAR_KEYWORD")
_PATH = re.compile(r"\w+(\.\w+)*")


MODES = ("eval", "train", "eval of one", "train of one")
"""Of what there are programs: where there is none for training, or for one sample, the other serves."""


class _Value(NamedTuple):
    number: int


_OWN = _Value(-1)
"""Where the inputs are."""


class _Input(NamedTuple):
    number: int


def _is_input(value: Any) -> bool:
    return isinstance(value, _Input)


class _Step(NamedTuple):
    """What is done with what.

    Parameters
    ----------
    run, args, kwargs
        What is called; behind ``of``, where that is the network, or what was switched.
    sizes
        Of each tensor that it gives, as far as they are known.
    where
        Its name in errors.
    check
        Checks that a network has what it names.
    past
        Values that no later step uses.
    """

    run: Callable[..., Any]
    args: Any
    kwargs: Any
    of: str | None = None
    sizes: Any = ()
    where: str = ""
    check: Callable[[nn.Module], Any] | None = None
    past: tuple[int, ...] = ()


class _Unset:
    """Stands for a default that is no data."""

    def __repr__(self) -> str:
        return "..."


UNSET = _Unset()


class Portable(nn.Module):
    """A network as data.

    Parameters
    ----------
    description
        As :func:`~nni_dynconv.export.portable.describe_network` writes it.
    trust
        As of :func:`~nni_dynconv.export.load`.

    Attributes
    ----------
    whole
        Whether it has its tensors; before that it may become of any type.

    Raises
    ------
    ExportError
        The description is broken, or names what no network needs.
    """

    def __init__(self, description: Mapping[str, Any], trust: Collection[str] = ()):
        super().__init__()
        for path, one in description["layers"].items():
            _place(self, path, _layer(one, trust))
        for path, one in description["tensors"].items():
            _place(self, path, _empty(one))
        self._forward = Forward(description)
        self._forward.check(self)
        self.whole = False

    @property
    def call_signature(self) -> inspect.Signature:
        """What it is called with."""
        return self._forward.signature

    def _get_name(self) -> str:
        return self._forward.name

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Portable:
        """Go to another device or type, as a network whose steps name none.

        Raises
        ------
        ExportError
            They name a type that would be another one.
        """
        for dtype, steps in self._forward.types.items() if self.whole else ():
            other = fn(torch.empty(0, dtype=dtype)).dtype
            if other != dtype:
                raise ExportError(
                    f"This {self._forward.name} was saved in {dtype}, and its forward makes tensors of that type "
                    f"({', '.join(steps)}), so that it cannot become {other}. Take it there before it is saved: "
                    f"`network.to({other})`, then `export.save(network, folder)`."
                )
        return super()._apply(fn, recurse)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run it as the network that was saved.

        Raises
        ------
        ShapeError
            Of inputs of these sizes it is not known what the network does.
        ExportError
            It was saved for calls of another form.
        ForwardError
            An operator or a layer cannot do what it is told to.
        """
        return self._forward(self, args, kwargs)


class Forward:
    """What a network does with its layers: a program, or one for each mode, and what it is called with."""

    def __init__(self, description: Mapping[str, Any]):
        self.description = {key: one for key, one in description.items() if key not in ("layers", "tensors")}
        self.name = identifier(description["name"])
        self.signature = inspect.Signature([_parameter(*one) for one in description["signature"]])
        self.inputs = {identifier(name): decode(one, _TREES) for name, one in description["inputs"].items()}
        modes = description["modes"]
        self.programs = {mode: Program(modes[mode]) for mode in MODES if mode in modes}
        self.number = self.programs["eval"].inputs
        self.types = _types_in(step for program in self.programs.values() for step in program.steps)
        named = sorted(one.number for one in pytree.tree_leaves(self.inputs, _is_input) if _is_input(one))
        if named != list(range(self.number)) or any(one.inputs != self.number for one in self.programs.values()):
            raise ExportError(f"The saved network has {self.number} inputs, but is called with {named}.")

    def __reduce__(self) -> Any:
        return Forward, (self.description,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Forward:
        return self  # nothing in it belongs to one network

    def check(self, network: nn.Module) -> None:
        """Check that a network has what the steps name."""
        for program in self.programs.values():
            for step in program.steps:
                if step.check is not None:
                    step.check(network)

    def __call__(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            given = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise ForwardError(f"This {self.name} is called as `{self.name}{self.signature}`: {error}.") from None
        found: list[Any] = [None] * self.number
        for name in {**self.inputs, **given}:
            if name not in self.inputs:
                if given[name] is not self.signature.parameters[name].default:
                    raise ExportError(f"This {self.name} was saved without `{name}`, and cannot be given one.")
            elif name not in given:
                raise ExportError(f"This {self.name} was saved with `{name}`, and cannot do without.")
            else:
                _take(self.inputs[name], given[name], found, name, self.name)
        program = self._program(network.training, found)
        if torch.compiler.is_compiling():
            _check_inputs(self.name, found, program.sizes)
            return program(network, found)
        try:
            _check_inputs(self.name, found, program.sizes)
            return program(network, found)
        except (DynConvError, torch.OutOfMemoryError):
            raise
        except FOREIGN as error:
            shapes = ", ".join(f"{tuple(one.shape)} {str(one.dtype).removeprefix('torch.')}" for one in found)
            raise ForwardError(
                f"This {self.name}, which was read from a file, cannot be run on {shapes}: {type(error).__name__}: "
                f"{error}"
            ) from error

    def _program(self, training: bool, inputs: Sequence[Tensor]) -> Program:
        mode = "train" if training and "train" in self.programs else "eval"
        alone = self.programs.get(f"{mode} of one")  # unless there is one, sizes are not asked: to ask is to decide
        if alone is not None and inputs and inputs[0].dim() > 0 and inputs[0].shape[0] == 1:
            return alone
        return self.programs[mode]


class Program:
    """Steps, and what comes out in the end."""

    def __init__(self, data: Mapping[str, Any]):
        self.sizes = [[one if one is None else _size(one) for one in sizes] for sizes in data["sizes"]]
        self.inputs = inputs = len(self.sizes)
        self.output = decode(data["output"], _VALUES)
        read = [_read_step(one, inputs + k) for k, one in enumerate(data["steps"])]
        kept = _numbers(self.output)
        kept |= {size[0] for step in read for sizes in step.sizes for size in sizes if isinstance(size, list)}
        if kept and max(kept) >= inputs + len(read):
            raise ExportError(f"The saved network uses value {max(kept)}, which is never made.")
        last = {number: k for k, step in enumerate(read) for number in _numbers((step.args, step.kwargs))}
        past: dict[int, list[int]] = {}
        for number, k in last.items():
            if number not in kept:
                past.setdefault(k, []).append(number)
        self.steps = [step._replace(past=tuple(past.get(k, ()))) for k, step in enumerate(read)]
        self.switches = any(step.of == "setting" for step in read)

    def __call__(self, network: nn.Module, inputs: list[Tensor]) -> Any:
        if not self.switches:
            return self._run(network, inputs, None)
        setting = _Setting()
        try:
            return self._run(network, inputs, setting)
        finally:
            setting.close()

    def _run(self, network: nn.Module, inputs: list[Tensor], setting: _Setting | None) -> Any:
        values: list[Any] = [*inputs, *([None] * len(self.steps))]
        for k, step in enumerate(self.steps, self.inputs):
            args, kwargs = _filled(step.args, values, inputs), _filled(step.kwargs, values, inputs)
            if step.of is None:
                made = step.run(*args, **kwargs)
            else:
                made = step.run(network if step.of == "network" else setting, *args, **kwargs)
            values[k] = made
            if step.sizes:
                _check_sizes(step, made, values, (args, kwargs))
            for one in step.past:
                values[one] = None
        return _filled(self.output, values, inputs)


class _Setting:
    """What was switched around a forward that is open, so that it is put back in the end."""

    def __init__(self) -> None:
        self.with_gradient = torch.is_grad_enabled()
        self.entered: list[Any] = []

    def close(self) -> None:
        while self.entered:
            self.entered.pop().__exit__(None, None, None)
        torch._C._set_grad_enabled(self.with_gradient)


# Steps


def _at(network: nn.Module, path: tuple[str, ...]) -> nn.Module:
    for one in path:
        network = network._modules[one]  # type: ignore[assignment]
    return network


def _get(network: nn.Module, owner: tuple[str, ...], name: str) -> Any:
    return getattr(_at(network, owner), name)


def _call(network: nn.Module, path: tuple[str, ...], *args: Any, **kwargs: Any) -> Any:
    return _at(network, path)(*args, **kwargs)


def _check(found: Any, expected: Any) -> None:
    if found != expected:
        raise ShapeError(
            f"This network decides by the sizes of its inputs, and with these it goes a way that was not saved: what "
            f"was {expected} of those that it was saved with is {found} now. Save it with an example of these sizes: "
            f"`export.save(network, folder, example=...)`."
        )


def _grad(setting: _Setting, enabled: bool) -> None:
    torch._C._set_grad_enabled(enabled and setting.with_gradient)


def _autocast(setting: _Setting, device: str, dtype: Any, enabled: bool, cache: bool) -> Any:
    entered = torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=cache)
    entered.__enter__()
    setting.entered.append(entered)
    return entered


def _leave(setting: _Setting, entered: Any) -> None:
    setting.entered.remove(entered)
    entered.__exit__(None, None, None)


def _read_step(data: Mapping[str, Any], number: int) -> _Step:
    kind = next(iter(data))
    if kind not in _STEPS:
        raise ExportError(f"The saved network has a step of the unknown kind `{kind}`.")
    step = _STEPS[kind](data)
    if any(one >= number for one in _numbers((step.args, step.kwargs))):
        raise ExportError(f"Step {number} of the saved network uses a value before it is made.")
    return step


def _arguments(data: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    kwargs = {identifier(key): decode(one, _VALUES) for key, one in data.get("kwargs", {}).items()}
    return tuple(decode(one, _VALUES) for one in data["args"]), kwargs


def _read_call(data: Mapping[str, Any]) -> _Step:
    op = operator_named(data["call"])
    args, kwargs = _arguments(data)
    known = [one.name for one in op._schema.arguments]
    if len(args) > len(known) or not set(kwargs) <= set(known):
        raise ExportError(f"The saved network calls `{data['call']}` with arguments that it does not take.")
    return _Step(op, args, kwargs)


def _read_size(data: Mapping[str, Any]) -> _Step:
    if data["size"] not in SIZES:
        raise ExportError(f"The saved network calls `{data['size']}`, which is nothing that is done to sizes.")
    return _Step(SIZES[data["size"]], *_arguments(data))


def _read_layer(data: Mapping[str, Any]) -> _Step:
    args, kwargs = _arguments(data)
    sizes = [[one if one == "same" or one is None else _size(one) for one in sizes] for sizes in data["sizes"]]
    path = data["layer"]
    return _Step(
        _call, (_path(path), *args), kwargs, "network", sizes, path, lambda network: network.get_submodule(path)
    )


def _read_get(data: Mapping[str, Any]) -> _Step:
    *owner, name = _path(data["get"])

    def check(network: nn.Module) -> None:
        if not isinstance(getattr(network.get_submodule(".".join(owner)), name, None), Tensor):
            raise ExportError(f"The saved network has no tensor `{data['get']}`.")

    return _Step(_get, (tuple(owner), name), {}, "network", check=check)


def _read_read(data: Mapping[str, Any]) -> _Step:
    path, name = data["read"]

    def check(network: nn.Module) -> None:
        op = network.get_submodule(path)
        if not isinstance(op, DynamicOp) or name not in ("weight", "bias"):
            raise ExportError(f"The saved network reads `{name}` of `{path}`, which is nothing that can be read.")
        vars(op)[ORIGINAL] = path

    return _Step(_get, (_path(path), name), {}, "network", check=check)


def _types_in(steps: Iterable[_Step]) -> dict[torch.dtype, list[str]]:
    """Return the types of numbers with a fraction that steps name, and which operators name them."""
    found: dict[torch.dtype, list[str]] = {}
    for step in steps:
        for one in pytree.tree_leaves((step.args, step.kwargs)) if step.of is None else ():
            if isinstance(one, torch.dtype) and (one.is_floating_point or one.is_complex):
                found.setdefault(one, []).append(str(step.run))
    return {dtype: sorted(set(names)) for dtype, names in found.items()}


def _decoded(values: Any) -> tuple[Any, ...]:
    return tuple(decode(one, _VALUES) for one in values)


_STEPS: dict[str, Callable[[Mapping[str, Any]], _Step]] = {
    "get": _read_get,
    "call": _read_call,
    "size": _read_size,
    "layer": _read_layer,
    "read": _read_read,
    "check": lambda data: _Step(_check, _decoded(data["check"]), {}),
    "grad": lambda data: _Step(_grad, (bool(data["grad"]),), {}, "setting"),
    "autocast": lambda data: _Step(_autocast, _decoded(data["autocast"]), {}, "setting"),
    "leave": lambda data: _Step(_leave, _decoded([data["leave"]]), {}, "setting"),
}
_VALUES: dict[str, Callable[[Any], Any]] = {"value": lambda one: _Value(_number(one)), "device": lambda one: _OWN}
_TREES: dict[str, Callable[[Any], Any]] = {"input": lambda one: _Input(_number(one))}


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ExportError(f"{value!r} is no number of a value.")
    return value


def _size(value: Any) -> Any:
    """Return a size, or where it is to be found: of which value, of which of its tensors, along which axis."""
    if isinstance(value, list) and len(value) != 3:
        raise ExportError(f"{value!r} is no size.")
    return [_number(one) for one in value] if isinstance(value, list) else _number(value)


def _path(path: Any) -> tuple[str, ...]:
    if not (isinstance(path, str) and _PATH.fullmatch(path)):
        raise ExportError(f"{path!r} is no path in a network.")
    return tuple(path.split("."))


def _numbers(tree: Any) -> set[int]:
    """Return the numbers of the values in arguments."""
    if isinstance(tree, _Value):
        return {tree.number} if tree.number >= 0 else set()
    if isinstance(tree, (tuple, list)):
        return set().union(*map(_numbers, tree))
    if isinstance(tree, Mapping):
        return set().union(*map(_numbers, tree.values()))
    return _numbers((tree.start, tree.stop, tree.step)) if isinstance(tree, slice) else set()


def _filled(tree: Any, values: list[Any], inputs: list[Tensor]) -> Any:
    """Put values in the places of their numbers."""
    kind = type(tree)
    if kind is _Value:
        return values[tree.number] if tree.number >= 0 else inputs[0].device
    if kind is tuple or kind is list:
        return kind([_filled(one, values, inputs) for one in tree])
    if isinstance(tree, tuple):  # a named one
        return kind(*[_filled(one, values, inputs) for one in tree])
    if isinstance(tree, dict):
        return kind({key: _filled(one, values, inputs) for key, one in tree.items()})
    if kind is slice:
        return slice(*(_filled(one, values, inputs) for one in (tree.start, tree.stop, tree.step)))
    return tree


# What is made


def _place(network: nn.Module, path: str, one: Any) -> None:
    """Put a layer or a tensor where it stood."""
    *owners, name = _path(path)
    for part in owners:
        if part not in network._modules:
            network.add_module(part, nn.Module())
        network = network._modules[part]  # type: ignore[assignment]
    if isinstance(one, nn.Module):
        network.add_module(name, one)
    elif isinstance(one, nn.Parameter):
        network.register_parameter(name, one)
    else:
        network.register_buffer(name, one)


def _layer(description: Mapping[str, Any], trust: Collection[str]) -> nn.Module:
    """Make a layer; one of torch's without values, for they come from the file."""
    if description["class"].startswith("torch.") and is_allowed(description["class"]):
        with torch.device("meta"):
            return make_module(description, trust)
    return make_module(description, trust)


def _empty(description: Mapping[str, Any]) -> Tensor:
    shape, dtype = [_number(one) for one in description["shape"]], decode({"dtype": description["dtype"]})
    empty = torch.empty(shape, dtype=dtype, device="meta")
    return nn.Parameter(empty, bool(description["trainable"])) if description["parameter"] else empty


def _parameter(name: str, kind: str, default: Any) -> inspect.Parameter:
    value = inspect.Parameter.empty if default is None else UNSET if default == "unset" else decode(default["is"])
    return inspect.Parameter(identifier(name), getattr(inspect.Parameter, KINDS[KINDS.index(kind)]), default=value)


# What it is called with


def _take(expected: Any, given: Any, found: list[Any], where: str, name: str) -> None:
    """Find the inputs in an argument."""
    if isinstance(expected, _Input):
        if not isinstance(given, Tensor):
            raise ExportError(f"`{where}` of this {name} is a tensor, but a {type(given).__name__} was given.")
        found[expected.number] = given
        return
    parts, own = _parts(expected), _parts(given)
    if parts is None or own is None:
        same = type(expected) is type(given) and expected == given
        if not same:
            raise ExportError(f"This {name} was saved with `{where}` {expected!r}, and cannot be given {given!r}.")
    elif list(parts) != list(own):
        raise ExportError(f"`{where}` of this {name} has {list(parts)}, but {list(own)} were given.")
    else:
        for key, one in parts.items():
            _take(one, own[key], found, f"{where}[{key!r}]", name)


def _parts(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if isinstance(value, dict) or is_record(value):
        return items_of(value)
    return None


def _check_inputs(name: str, inputs: list[Tensor], expected: list[list[Any]]) -> None:
    for number, (x, sizes) in enumerate(zip(inputs, expected, strict=True)):
        if x.dim() != len(sizes):
            raise ShapeError(f"Input {number} of this {name} has {len(sizes)} axes, but {tuple(x.shape)} was given.")
        for axis, size in enumerate(sizes):
            wanted = inputs[size[0]].shape[size[2]] if isinstance(size, list) else size
            if wanted is not None and x.shape[axis] != wanted:
                raise ShapeError(
                    f"Input {number} of this {name} has the size {wanted} along axis {axis}, but {tuple(x.shape)} was "
                    f"given."
                )


def _check_sizes(step: _Step, made: Any, values: list[Any], args: Any) -> None:
    first = next((one for one in pytree.tree_leaves(args) if isinstance(one, Tensor)), None)
    tensors = [made] if isinstance(made, Tensor) else pytree.tree_leaves(made)
    for one, sizes in zip(tensors, step.sizes, strict=True):
        for axis, size in enumerate(sizes):
            if size is None:
                continue
            wanted = _wanted(size, axis, first, values)
            if one.shape[axis] != wanted:
                raise ShapeError(
                    f"`{step.where}` gives {tuple(one.shape)}, but of inputs like those that the network was saved "
                    f"with it has {wanted} along axis {axis}: of other sizes it is not known what the network does."
                )


def _wanted(size: Any, axis: int, first: Tensor | None, values: list[Any]) -> Any:
    if size == "same":
        return first.shape[axis]  # type: ignore[union-attr]
    if isinstance(size, list):
        number, output, other = size
        tensors = pytree.tree_leaves(values[number])
        return tensors[output].shape[other]
    return size
