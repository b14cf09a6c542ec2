"""Any module whose parameters are made elsewhere, called by ``torch.func.functional_call``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from ..errors import ShapeError
from ..functional import is_exporting
from ..sites import WeightSpec
from .base import DynamicOp

__all__ = ["DynamicCall"]


class DynamicCall(DynamicOp):
    """A module of one input whose own parameters are made elsewhere, for what has no op of its own.

    It is made for weights that a batch shares: with one set a sample, samples run one after another, so that the module
    sees batches of one; in what is exported, by ``torch.vmap``, for any number of them.

    Parameters
    ----------
    module
        Copied; the copy keeps its buffers and loses its parameters.

    Examples
    --------
    >>> op = DynamicCall(nn.PReLU(2))
    >>> op(torch.tensor([[-1.0, -1.0]]), torch.tensor([0.5, 2.0]))
    tensor([[-0.5000, -2.0000]])
    >>> list(op.parameters())
    []
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.shapes = {name: tuple(one.shape) for name, one in module.named_parameters(recurse=False)}
        self.module = copy.deepcopy(module)
        self.input_name = next(iter(inspect.signature(module.forward).parameters))
        for name in self.shapes:
            self.module._parameters[name] = None

    def weight_specs(self) -> tuple[WeightSpec, ...]:
        return tuple(_spec(name, shape) for name, shape in self.shapes.items())

    def compute(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        if all(weights[name].dim() == len(shape) for name, shape in self.shapes.items()):
            return functional_call(self.module, dict(weights), (x,))
        if is_exporting():
            return self._mapped(x, weights)
        samples = [
            functional_call(
                self.module, {name: _of(one, k, self.shapes[name]) for name, one in weights.items()}, (row,)
            )
            for k, row in enumerate(x.split(1))
        ]
        return pytree.tree_map(lambda *parts: self._joined(parts), *samples)

    def _mapped(self, x: Tensor, weights: Mapping[str, Tensor]) -> Any:
        """Do the same without a number of samples, which a loop would bind."""
        axes = {name: 0 if one.dim() > len(self.shapes[name]) else None for name, one in weights.items()}

        def run(row: Tensor, own: dict[str, Tensor]) -> Any:
            return functional_call(self.module, own, (row[None],))

        made = torch.vmap(run, (0, axes), randomness="different")(x, dict(weights))
        return pytree.tree_map(lambda one: one.flatten(0, 1), made)

    def static_layer(self, weights: Mapping[str, Tensor]) -> nn.Module:
        whole = copy.deepcopy(self.module)
        for name in self.shapes:
            whole.register_parameter(name, nn.Parameter(weights[name].detach().clone()))
        return whole

    def _joined(self, parts: tuple[Any, ...]) -> Any:
        """Put samples together again, in each of the outputs."""
        first = parts[0]
        if isinstance(first, Tensor) and all(one.dim() and one.shape[0] == 1 for one in parts):
            return torch.cat(parts)
        if not isinstance(first, Tensor) and all(one == first for one in parts):
            return first
        raise ShapeError(
            f"{self._where()}: samples run one after another, each with its own weights, but "
            f"{type(self.module).__name__} gives {_shown(first)} for one sample, which has no first axis to put them "
            f"together along. Do not lift it (`where`)."
        )


def _of(weight: Tensor, k: int, shape: tuple[int, ...]) -> Tensor:
    return weight if weight.dim() == len(shape) else weight[k]


def _shown(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _spec(name: str, shape: tuple[int, ...]) -> WeightSpec:
    """Tell a matrix by its axes, which sums over all but the first, and let other values be changed a little."""
    if len(shape) > 1:
        fan_in, fan_out = (max(1, torch.Size(axes).numel()) for axes in (shape[1:], (shape[0], *shape[2:])))
        return WeightSpec(name, shape, fan_in, fan_out=fan_out)
    return WeightSpec(name, shape, 1, "shift")
