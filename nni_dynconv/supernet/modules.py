"""NNI's path-sampling super-modules, told by the open scope what runs, and how outputs are weighted.

NNI's modules keep the sampled path in themselves; ours read it from the scope, so that threads do not meet and a
mixture (DARTS) or a factor with gradient (GDAS) is one more reading of the same path. Cells are in ``cells.py``.
"""

from __future__ import annotations

from typing import Any, cast

from ..nni_host import compat, nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.mutable import Categorical
from nni.nas.oneshot.pytorch.supermodule._expression_utils import traverse_all_options
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from nni.nas.oneshot.pytorch.supermodule.sampling import (
    MixedOpPathSamplingPolicy,
    PathSamplingInput,
    PathSamplingLayer,
    PathSamplingRepeat,
)
from torch import Tensor, nn

from ..errors import ScopeError
from ..sites import Gate, scope
from .mixture import mix, run_mixture

__all__ = ["ScopedInput", "ScopedLayer", "ScopedPolicy", "ScopedRepeat", "gate", "told"]

compat.mend_proxyless(scope.keeping)  # its candidates run in a backward, where no scope is open


def gate(module: nn.Module, label: str) -> Gate | None:
    """Return what the module's scope lets run of a label, or ``None`` where it does not decide."""
    opened = scope.seen_by(module)
    return None if opened is None else opened.gate_of(label)


def told(own: Any, label: str) -> Any:
    """Return what ``resample(memo)`` told a module, where no scope tells it.

    Raises
    ------
    ScopeError
        Nobody did.
    """
    if own is None:
        raise ScopeError(
            f"Nothing chooses a candidate of `{label}`: this supernet is a copy, which no mutator runs. Copy its "
            f"mutator instead, `copy.deepcopy(mutator)`, and call that one."
        )
    return own


class _Scoped(BaseSuperNetModule):
    """Gives NNI's path-sampling modules their path: the scope's, or what ``resample(memo)`` told them."""

    label: str
    _own: Any = None

    @property
    def _sampled(self) -> Any:
        opened = gate(self, self.label)
        return told(self._own, self.label) if opened is None else list(opened.values)

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
            return [told(self._own, self.label)], None
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


class ScopedPolicy(MixedOpPathSamplingPolicy):
    """Arguments of NNI's parametrised modules, such as ``MutableConv2d``, as the scope chooses or weighs them.

    Where all candidates run (DARTS), NNI's module gets each value with its share, and mixes slices of its weights.
    Where one runs with a factor (GDAS), its output is multiplied by it.
    """

    def __init__(self, operation: MixedOperation, memo: dict[str, Any], mutate_kwargs: dict[str, Any]):
        super().__init__(operation, memo, mutate_kwargs)
        if operation.mutable_arguments:
            operation.register_forward_hook(_weighed)

    def forward_argument(self, operation: MixedOperation, name: str) -> Any:
        if name not in operation.mutable_arguments:
            return operation.init_arguments[name]
        argument, gates = operation.mutable_arguments[name], _gates_of(operation)
        if gates is None:
            return super().forward_argument(operation, name)
        own = {label: gates[label] for label in argument.simplify()}
        if all(len(gate.values) == 1 for gate in own.values()):
            return argument.freeze({label: gate.values[0] for label, gate in own.items()})
        return dict(traverse_all_options(argument, weights={label: gate.weights for label, gate in own.items()}))


def _gates_of(operation: MixedOperation) -> dict[str, Gate] | None:
    opened = scope.seen_by(operation)
    if opened is None or opened.gate is None:
        return None
    return {label: cast(Gate, opened.gate_of(label)) for label in operation.simplify()}


def _weighed(operation: nn.Module, args: Any, output: Any) -> Any:
    """Multiply an output, or the first of several, by the factors of what was drawn."""
    for gate in (_gates_of(operation) or {}).values():
        if gate.weights is not None and len(gate.values) == 1:
            first, *rest = output if isinstance(output, tuple) else (output,)
            output = (first * gate.weights[0], *rest) if rest else first * gate.weights[0]
    return output
