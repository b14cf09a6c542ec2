"""A network is run once on tensors without values, of sizes that stay open, and what it does is written down.

It sees real tensors' types and shapes, so it goes the way that it goes when it is used; where it decides by a size, the
decision is written down and checked later, and where it decides by a value there is no graph. Which modules stay
layers is told in ``leaves.py``, how a graph becomes data in ``nodes.py``.
"""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import torch
from torch import SymBool, SymFloat, SymInt, Tensor, fx, nn
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.fx.node import has_side_effect

from ...errors import ExportError
from ...sites import Scope, scope

if TYPE_CHECKING:
    from .leaves import Leaf

__all__ = ["Graph", "Place", "Tracer", "check", "layer", "read", "tensors_of"]

Sym = (SymInt, SymFloat, SymBool)
SILENT = ("torch.__trace", "torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")
"""Loggers of torch that tell of what is tried here, and expected to fail at times."""
FACTOR = 3
"""Sizes are told to be open where they are others on inputs so many times as large."""


def layer(path: str, *args: Any, **kwargs: Any) -> Any:
    """Stand in a graph for a call of a layer."""
    raise NotImplementedError


def read(path: str, name: str) -> Tensor:
    """Stand in a graph for a weight of a dynamic op that the network reads."""
    raise NotImplementedError


@has_side_effect
def check(value: Any, expected: Any) -> None:
    """Stand in a graph for a decision by a size."""
    raise NotImplementedError


class Place(NamedTuple):
    """Where a size is seen: an input, or a tensor that the call of a layer gives, and its axis."""

    kind: str
    number: int
    output: int
    axis: int


class Graph(NamedTuple):
    """What one run of a network was.

    Parameters
    ----------
    graph
        Its nodes: operators, sizes, :func:`layer`, :func:`read` and :func:`check`.
    tensors
        What its placeholders stand for, by name, before the inputs.
    constants
        Tensors made in the forward, by the name of their attribute.
    sizes
        Of each place: a number; ``"same"``, where it is that of the layer's first input along the axis; or a name that
        all places of the same size have.
    asked
        Whether it asked for the mode, training or evaluation, that it runs in.
    """

    graph: fx.Graph
    tensors: list[str]
    constants: dict[str, Tensor]
    sizes: dict[Place, int | str]
    asked: bool


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, each once."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


class _Fakes(FakeTensorMode):
    """Tensors without values.

    torch 2.13 lets ``_grouped_mm``, by which mixtures of experts run, take float32 on a CPU, but refuses it here
    ("Expected inputs of BF16 type"): its result is told in its place.
    """

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._grouped_mm.default and args[0].dim() == 2 and args[1].dim() == 3:
            return args[0].new_empty(args[0].shape[0], args[1].shape[-1])
        return super().dispatch(func, types, args, kwargs)


class Tracer:
    """Runs a network once.

    Parameters
    ----------
    network
        It is as before in the end.
    leaves
        What stays a layer, by module.
    """

    def __init__(self, network: nn.Module, leaves: Mapping[nn.Module, Leaf]):
        self.network, self.leaves, self.own = network, leaves, set(network.modules())
        self.env = ShapeEnv(
            duck_shape=False,
            specialize_zero_one=False,
            allow_scalar_outputs=True,
            allow_dynamic_output_shape_ops=True,
        )
        self.mode = _Fakes(shape_env=self.env, allow_non_fake_inputs=True)
        self.hints: dict[Any, int] = {}
        self.places: dict[Place, Any] = {}
        self.calls = 0
        self.inside = self.asked = False
        self.checked: set[tuple[str, Any]] = set()

    def trace(self, run: Callable[[list[Tensor]], list[Any]], inputs: Sequence[Tensor]) -> Graph:
        """Run the network on tensors like some inputs.

        Parameters
        ----------
        run
            Calls the network with its inputs, and returns what comes out, flat.

        Raises
        ------
        ExportError
            It decides by values, or does what a graph cannot.
        """
        tensors = tensors_of(self.network)
        names = list(tensors)
        with self.mode, self._watching():
            fakes = [self._like(one) for one in tensors.values()]
            opened = [self._open(k, one) for k, one in enumerate(inputs)]
            try:
                made = proxy_tensor.make_fx(
                    lambda own, given: self._run(run, dict(zip(names, own, strict=True)), given),
                    pre_dispatch=True,
                    _allow_non_fake_inputs=True,
                )(fakes, opened)
            except ExportError:
                raise
            except Exception as error:  # whatever a network raises on tensors that have no values
                raise ExportError(_told(self.network, error)) from error
        constants = {
            str(node.target): getattr(made, str(node.target)) for node in made.graph.nodes if node.op == "get_attr"
        }
        return Graph(made.graph, names, constants, self._sizes(), self.asked)

    def _run(self, run: Any, tensors: dict[str, Tensor], given: list[Tensor]) -> list[Any]:
        taken = {id(one): tensors[name] for name, one in tensors_of(self.network).items()}
        with ExitStack() as stack:
            for module in self.own:
                for held in (module._parameters, module._buffers):
                    now = {name: taken[id(one)] for name, one in held.items() if one is not None}
                    stack.enter_context(patch.dict(held, now))
            return run(given)

    def _like(self, tensor: Tensor) -> Tensor:
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made

    # Sizes

    def _open(self, number: int, like: Tensor) -> Tensor:
        """Return an input whose whole sizes are open."""
        sizes = [self.symbol(size) for size in like.shape]
        self._place("input", number, [[one.node.expr for one in sizes]])
        return torch.empty(sizes, dtype=like.dtype)

    def _place(self, kind: str, number: int, outputs: Sequence[Sequence[Any]]) -> None:
        for output, sizes in enumerate(outputs):
            self.places |= {Place(kind, number, output, axis): size for axis, size in enumerate(sizes)}

    def symbol(self, hint: int) -> SymInt:
        """Return a size that is open, and now has a value."""
        source = ConstantSource(f"size_{len(self.hints)}")
        symbol = self.env.create_symbol(hint, source=source, dynamic_dim=DimDynamic.DYNAMIC)
        self.hints[symbol] = hint
        return self.env.create_symintnode(symbol, hint=hint, source=source)  # type: ignore[return-value]

    def pin(self, tensors: Sequence[Tensor]) -> None:
        """Take the sizes that some tensors have now as the only ones, but for their samples."""
        shapes: list[list[Any]] = [list(x.shape) for x in tensors]
        free = [[set() if type(one) is int else one.node.expr.free_symbols for one in shape] for shape in shapes]
        samples = set().union(*(sizes[0] for sizes in free if sizes))
        for symbol in sorted(set().union(*(one for sizes in free for one in sizes)) - samples, key=str):
            int(self.env.create_symintnode(symbol, hint=self.hints[symbol], source=None))

    def concrete(self, value: Any, factor: int) -> Any:
        """Return a size, or a tensor, with its sizes as numbers; those of the inputs a number of times as large."""
        if isinstance(value, Tensor):
            return torch.empty([self.concrete(one, factor) for one in value.shape], dtype=value.dtype)
        if not isinstance(value, SymInt):
            return value
        expr = self.env.replace(value.node.expr)
        return int(expr.xreplace({symbol: hint * factor for symbol, hint in self.hints.items()}))

    def _sizes(self) -> dict[Place, int | str]:
        """Return what is known of each place by what happened; one tied to others stays what it is in the example."""
        sizes: dict[Place, int | str] = {}
        for place, expr in self.places.items():
            now = expr if isinstance(expr, (int, str)) else self.env.simplify(self.env.replace(expr))
            if not isinstance(now, (int, str)) and not (now.is_number or now.is_Symbol):
                if not place.axis:
                    raise ExportError(
                        f"{type(self.network).__name__} ties the number of samples to other sizes, {now}, and so takes "
                        f"no batch of any size."
                    )
                now = int(now.xreplace(self.hints))
            sizes[place] = now if isinstance(now, int) else int(now) if str(now).isdigit() else str(now)
        return sizes

    # Watching

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Write down what is asked for: layers, sizes, modes."""
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            for name in SILENT:
                stack.enter_context(patch.object(logging.getLogger(name), "disabled", True))
            for one, leaf in self.leaves.items():
                stack.enter_context(patch.dict(vars(one), forward=self._recording(leaf)))
            stack.enter_context(scope.enter(Scope(self, self._weights_read)))
            for name in ("guard_bool", "guard_int", "guard_float"):
                stack.enter_context(patch.object(SymNode, name, _telling(getattr(SymNode, name), self._decided)))
            stack.enter_context(patch.object(proxy_tensor, "_extract_tensor_metadata", _no_metadata))
            stack.enter_context(patch.object(nn.Module, "training", property(self._mode_of, _set_mode), create=True))
            yield

    def _mode_of(self, module: nn.Module) -> bool:
        self.asked = self.asked or (module in self.own and module not in self.leaves and not self.inside)
        return vars(module)["training"]

    def _recording(self, leaf: Leaf) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            active = proxy_tensor.get_proxy_mode()
            if active is None or self.inside:
                return leaf.forward(*args, **kwargs)
            kwargs = leaf.told(kwargs)
            tracer: Any = active.tracer
            given: Any = fx.node.map_aggregate((args, kwargs), tracer.unwrap_proxy)
            with proxy_tensor.disable_proxy_modes_tracing(), self._within():
                made, sizes = leaf.run(self, args, kwargs)
            return self._written(active.tracer, made, sizes, layer, (leaf.path, *given[0]), given[1])

        forward.__signature__ = inspect.signature(leaf.forward)  # type: ignore[attr-defined]
        return forward

    def _weights_read(self, site: str, alone: bool) -> dict[str, Any]:
        """Return the weights of a dynamic op to a network that reads them."""
        active = proxy_tensor.get_proxy_mode()
        leaf = next(one for one in self.leaves.values() if getattr(one.module, "site", None) == site)
        made = {}
        for spec in leaf.module.weight_specs():  # type: ignore[operator]
            with proxy_tensor.disable_proxy_modes_tracing():
                tensor = torch.empty(spec.shape)
            name = {"scale": "weight", "shift": "bias"}.get(spec.kind, spec.name)
            told = self._written(active.tracer, tensor, [list(spec.shape)], read, (leaf.path, name), {})  # type: ignore[union-attr]
            made[spec.name] = told - 1 if spec.kind == "scale" else told  # the op adds it again
        return {site: made}

    def _written(self, tracer: Any, made: Any, sizes: Any, target: Any, args: Any, kwargs: Any) -> Any:
        written = tracer.create_proxy("call_function", target, args, kwargs)
        written.node.meta["call"] = self.calls
        self._place("call", self.calls, sizes)
        self.calls += 1
        proxy_tensor.track_tensor_tree(made, written, constant=None, tracer=tracer)
        return made

    @contextmanager
    def _within(self) -> Iterator[None]:
        before, self.inside = self.inside, True
        try:
            yield
        finally:
            self.inside = before

    def _decided(self, node: SymNode, result: Any) -> None:
        """Write down what the network's own code found out of sizes."""
        active = proxy_tensor.get_proxy_mode()
        if active is None or self.inside or not node.expr.free_symbols or _is_torchs_own(node.pytype):
            return
        asked = {bool: SymBool, int: SymInt, float: SymFloat}[node.pytype](node)
        tracer: Any = active.tracer
        proxy = tracer.unwrap_proxy(asked)
        key = (str(node.expr), result)
        if isinstance(proxy, fx.Proxy) and key not in self.checked:
            self.checked.add(key)
            tracer.create_proxy("call_function", check, (proxy, result), {})


def _telling(original: Callable[..., Any], tell: Callable[[SymNode, Any], None]) -> Callable[..., Any]:
    def guarded(node: SymNode, *args: Any) -> Any:
        result = original(node, *args)
        tell(node, result)
        return result

    return guarded


def _no_metadata(tensor: Tensor) -> None:
    """Take the place of what nobody reads here, and what takes a third of the time."""


def _set_mode(module: nn.Module, value: bool) -> None:
    vars(module)["training"] = value


def _is_torchs_own(kind: type) -> bool:
    """Whether torch itself asks, inside of an operator; or before one, how a tensor lies."""
    frame: FrameType | None = sys._getframe(3)
    if kind is bool and frame is not None and frame.f_code is not SymNode.bool_.__code__:
        return True
    while frame is not None:
        if frame.f_code.co_name == "__torch_dispatch__":
            return True
        if frame.f_code is Tracer._run.__code__:
            return False
        frame = frame.f_back
    return False


def _told(network: nn.Module, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return (
        f"{type(network).__name__} cannot be written as a graph: {type(error).__name__}: {reason[:300]} Keep decisions "
        f"that depend on values of tensors out of its forward."
    )
