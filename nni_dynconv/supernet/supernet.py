"""The supernet: NNI's path-sampling super-modules, told by the open scope what runs, and how outputs are weighted.

NNI's modules keep the sampled path in themselves; ours read it from the scope, so that threads do not meet and a
mixture (DARTS) or a factor with gradient (GDAS) is one more reading of the same path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.mutable import Categorical, Constraint, Mutable, MutableAnnotation
from nni.nas.nn.pytorch import Cell, InputChoice, LayerChoice, ModelSpace, Repeat
from nni.nas.nn.pytorch.base import recursive_freeze
from nni.nas.nn.pytorch.cell import preprocess_cell_inputs
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy, no_default_hook
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.operation import NATIVE_MIXED_OPERATIONS, MixedOperation
from nni.nas.oneshot.pytorch.supermodule.sampling import (
    MixedOpPathSamplingPolicy,
    PathSamplingCell,
    PathSamplingInput,
    PathSamplingLayer,
    PathSamplingRepeat,
)
from torch import Tensor, nn

from ..errors import SpaceError
from ..generation.source import NAME
from ..nni_host import compat
from ..ops import DynamicOp
from ..ops.choices import ChoiceOp
from ..sites import scope
from ..sites.scope import Gate
from .mixture import mix, run_mixture

__all__ = ["Around", "alive_ops", "check_supported", "freeze", "is_supernet", "mutate", "name_sites"]

compat.mend_proxyless(scope.keeping)  # its candidates run in a backward, where no scope is open


def gate(module: nn.Module, label: str) -> Gate | None:
    """Return what the module's scope lets run of a label, or ``None`` where it does not decide."""
    opened = scope.seen_by(module)
    return None if opened is None else opened.gate_of(label)


class _Scoped(BaseSuperNetModule):
    """Gives NNI's path-sampling modules their path: the scope's, or what ``resample(memo)`` told them."""

    label: str
    _own: Any = None

    @property
    def _sampled(self) -> Any:
        opened = gate(self, self.label)
        return self._own if opened is None else list(opened.values)

    @_sampled.setter
    def _sampled(self, value: Any) -> None:
        self._own = value

    def _weights(self) -> Tensor | None:
        opened = gate(self, self.label)
        return None if opened is None else opened.weights


class ScopedLayer(_Scoped, PathSamplingLayer):
    """``LayerChoice`` in the supernet."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        weights = self._weights()
        if weights is not None and len(weights) > 1 and len(args) == 1 and not kwargs:
            return run_mixture([self[name] for name in self._sampled], weights, args[0])
        return super().forward(*args, **kwargs)

    def _reduction(self, items: list[Any], sampled: list[Any]) -> Any:
        return mix(items, self._weights())


class ScopedInput(_Scoped, PathSamplingInput):
    """``InputChoice`` in the supernet."""

    def _reduction(self, items: list[Any], sampled: list[Any]) -> Any:
        weights = self._weights()
        if weights is None:
            return super()._reduction(items, sampled)
        if self.reduction == "concat":  # one path (GDAS): the same factor for all
            return super()._reduction(items, sampled) * weights[0]
        return mix(items, weights / self.n_chosen if self.reduction == "mean" else weights)


class ScopedRepeat(_Scoped, PathSamplingRepeat):
    """``Repeat`` in the supernet; unlike NNI's it may be of depth 0."""

    def _depths(self) -> tuple[list[int], Tensor | None]:
        opened = scope.seen_by(self)
        if opened is None or opened.gate is None:
            return [self._own], None
        if isinstance(self.depth_choice, Categorical):
            found = opened.gate(self.depth_choice.label)
            return list(found.values), found.weights
        values = {label: opened.gate(label).values[0] for label in self.depth_choice.simplify()}
        return [self.depth_choice.freeze(values)], None

    def forward(self, x: Any) -> Any:
        depths, weights = self._depths()
        outputs = [x]
        for block in self.blocks[: max(depths)]:
            outputs.append(block(outputs[-1]))
        return mix([outputs[depth] for depth in depths], weights)


class ScopedCell(PathSamplingCell):
    """``Cell`` with operators made by a factory: one operator for each (node, input, name). NNI's cannot freeze."""

    @property
    def label(self) -> str:  # NNI's makes an object of a class of its own, which `torch.compile` cannot trace
        return "/".join(self.label_scope.path)

    def forward(self, *inputs: Any) -> Any:
        processed = preprocess_cell_inputs(self.num_predecessors, *inputs)
        states = self.preprocessor(processed)
        for node, ops in enumerate(self.ops, start=self.num_predecessors):
            states.append(sum(self._branch(node, slot, ops, states) for slot in range(self.num_ops_per_node)))
        return self.postprocessor(torch.cat(states[self.num_predecessors :], self.concat_dim), processed)

    def _branch(self, node: int, slot: int, ops: Any, states: list[Tensor]) -> Any:
        op, source = (self._gate(f"{self.label}/{kind}_{node}_{slot}") for kind in ("op", "input"))
        outputs = [run_mixture([ops[j][name] for name in op.values], op.weights, states[j]) for j in source.values]
        return mix(outputs, source.weights)

    def _gate(self, label: str) -> Gate:
        found = gate(self, label)
        if found is not None:
            return found
        own = self._sampled[label]
        return Gate(own if isinstance(own, list) else [own])

    def chosen(self, sample: Mapping[str, Any]) -> Iterator[tuple[int, int, nn.Module]]:
        """Yield ``(node, input, op)`` of each slot under a sample."""
        for node in range(self.num_predecessors, self.num_predecessors + self.num_nodes):
            for slot in range(self.num_ops_per_node):
                (source,) = sample[f"{self.label}/input_{node}_{slot}"]
                name = sample[f"{self.label}/op_{node}_{slot}"]
                yield node, source, self.ops[node - self.num_predecessors][source][name]

    def freeze(self, sample: Mapping[str, Any]) -> nn.Module:
        return FrozenCell(self, sample)


class FrozenCell(nn.Module):
    """A cell of one architecture, with the operators of the supernet's cell."""

    def __init__(self, cell: ScopedCell, sample: Mapping[str, Any]):
        super().__init__()
        self.preprocessor, self.postprocessor = (
            _frozen(one, sample) for one in (cell.preprocessor, cell.postprocessor)
        )
        self.num_predecessors, self.concat_dim = cell.num_predecessors, cell.concat_dim
        chosen = list(cell.chosen(sample))
        self.edges = [(node, source) for node, source, _ in chosen]
        self.ops = nn.ModuleList(_frozen(op, sample) for _, _, op in chosen)

    def forward(self, *inputs: Any) -> Any:
        processed = preprocess_cell_inputs(self.num_predecessors, *inputs)
        states = list(self.preprocessor(processed))
        first = len(states)
        for (node, source), op in zip(self.edges, self.ops, strict=True):
            output = op(states[source])
            if node == len(states):
                states.append(output)
            else:
                states[node] = states[node] + output
        return self.postprocessor(torch.cat(states[first:], self.concat_dim), processed)


def _frozen(part: Any, sample: Mapping[str, Any]) -> Any:
    """Freeze what NNI or we have made of a part of a cell; a processor may be a plain function."""
    return recursive_freeze(part, dict(sample))[0] if isinstance(part, nn.Module) else part


class ScopedPolicy(MixedOpPathSamplingPolicy):
    """Arguments of NNI's parametrised modules, such as ``MutableConv2d``, from the scope's sample."""

    def forward_argument(self, operation: MixedOperation, name: str) -> Any:
        opened = scope.seen_by(operation)
        if opened is None or opened.sample is None:
            return super().forward_argument(operation, name)
        argument = operation.mutable_arguments.get(name, operation.init_arguments[name])
        return argument.freeze(dict(opened.sample)) if isinstance(argument, Mutable) else argument


class _Builder(OneShotStrategy):
    """NNI's own machinery for replacing modules in place."""

    def default_mutation_hooks(self) -> list[Any]:
        ours = [ScopedLayer.mutate, ScopedInput.mutate, ScopedRepeat.mutate, ScopedCell.mutate]
        return [_keep, *ours, *(operation.mutate for operation in NATIVE_MIXED_OPERATIONS), no_default_hook]

    def run_hook(self, hook: Any, name: str, module: nn.Module, memo: dict[str, Any]) -> Any:
        return hook(module, name, memo, {"mixed_op_sampling": ScopedPolicy})


def _keep(module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> bool:
    """Tell NNI to leave alone what reads the scope itself, and what only puts constraints on the choices of others."""
    return isinstance(module, ChoiceOp) or (bool(getattr(module, "mutables", [])) and not _own_choices(module))


def _own_choices(module: nn.Module) -> list[Mutable]:
    """Return what a module itself chooses by; constraints choose nothing."""
    return [one for one in getattr(module, "mutables", []) if not isinstance(one, MutableAnnotation)]


def mutate(space: ModelSpace) -> None:
    """Turn a model space into a supernet, in place.

    Raises
    ------
    SpaceError
        A module has mutables that neither NNI nor we can sample.
    """
    try:
        _Builder().mutate_model(space)
    except (TypeError, ValueError) as error:
        raise SpaceError(f"{type(space).__name__} cannot be made a supernet: {error}") from error


def freeze(space: ModelSpace, sample: Mapping[str, Any]) -> nn.Module:
    """Return one architecture of a space, of a supernet with its modules, also where the space's class builds anew."""
    if any(isinstance(module, (BaseSuperNetModule, ChoiceOp)) for module in space.modules()):
        return recursive_freeze(space, dict(sample), include_root=False)[0]
    return space.freeze(sample)


def is_supernet(space: nn.Module) -> bool:
    """Tell whether some module of the space has been replaced already."""
    return any(isinstance(module, BaseSuperNetModule) for module in space.modules())


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
        primitive = isinstance(module, (LayerChoice, InputChoice, Repeat, Cell, PathSamplingCell))
        if _own_choices(module) and not primitive:
            _refuse(name, f"`{type(module).__name__}` with `nni.choice` arguments", "samplers that learn by gradient")


def _check_whole(space: ModelSpace, mixes: bool) -> None:
    """Refuse constraints that a mixture cannot keep, and choices that the space itself makes where it is built."""
    constraints = [label for label, one in space.simplify().items() if isinstance(one, Constraint)]
    if mixes and constraints:
        raise SpaceError(
            f"Constraint `{constraints[0]}` is not supported by a sampler that mixes all candidates (DARTS): the "
            f"mixture has what the constraint forbids. Take another sampler."
        )
    inside = [one for module in space.modules() if module is not space for one in _own_choices(module)]
    known = {label for one in inside for label in one.simplify()}
    alone = [label for one in _own_choices(space) for label in one.simplify() if label not in known]
    if alone:
        raise SpaceError(
            f"Label `{alone[0]}` is chosen by {type(space).__name__} itself (`add_mutable`), where it builds its "
            f"modules, and a supernet is built once. Let a module inside choose by it, or lift each architecture by "
            f"itself: `lift(space).freeze(sample).mutator()`."
        )


def _refuse(name: str, what: str, whom: str) -> None:
    raise SpaceError(f"Module `{name}`: {what} is not supported by {whom}. See the support matrix in docs/support.md.")


# Sites


class Around(ModelSpace):
    """A space without choices, around a plain module; sites are named as in that module."""

    network: nn.Module

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.network(*inputs, **options)


def name_sites(network: nn.Module) -> list[DynamicOp]:
    """Give every dynamic op of a network its site's name, and return the ops in order.

    The name is the owning label, the candidate and the path inside it: module names move when a space freezes.
    """
    ops: dict[DynamicOp, str] = {}
    taken: dict[str, int] = {}

    def visit(module: nn.Module, path: str) -> None:
        if isinstance(module, DynamicOp):
            if module not in ops:
                taken[path] = taken.get(path, 0) + 1  # two choices of one label have their own ops
                ops[module] = path if taken[path] == 1 else f"{path}#{taken[path]}"
            return
        for name, child in _children(module):
            visit(child, name if name.startswith("/") else f"{path}.{name}".lstrip("."))

    inside = network.network if isinstance(network, Around) else network
    visit(network if isinstance(inside, (DynamicOp, ChoiceOp)) else inside, "")
    for op, name in ops.items():
        op.site = name.removeprefix("/")
    return list(ops)


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield children by name; a name with a leading slash starts anew."""
    if isinstance(module, LayerChoice):
        yield from ((f"/{module.label}/{name}", module[name]) for name in module.names)
    elif isinstance(module, ChoiceOp):
        yield from module.variants.items()
    elif isinstance(module, PathSamplingCell):
        for node, inputs in enumerate(module.ops, start=module.num_predecessors):
            for source, ops in enumerate(inputs):
                yield from ((f"/{module.label}/{node}_{source}/{name}", op) for name, op in ops.items())
        yield from ((name, child) for name, child in module.named_children() if name != "ops")
    else:
        yield from ((name, child) for name, child in module.named_children() if name != NAME)


def alive_ops(module: nn.Module, sample: Mapping[str, Any]) -> Iterator[DynamicOp]:
    """Yield the dynamic ops that run under a sample."""
    if isinstance(module, DynamicOp):
        yield module
        return
    if isinstance(module, LayerChoice):
        children = [module[sample[module.label]]]
    elif isinstance(module, ChoiceOp):
        children = [module.at(sample)]
    elif isinstance(module, Repeat):
        depth = module.depth_choice
        children = list(module.blocks[: depth if isinstance(depth, int) else depth.freeze(dict(sample))])
    elif isinstance(module, ScopedCell):
        children = [op for _, _, op in module.chosen(sample)]
        children += [child for name, child in module.named_children() if name != "ops"]
    else:
        children = [child for _, child in _children(module)]
    for child in children:
        yield from alive_ops(child, sample)
