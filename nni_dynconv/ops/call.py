"""Any module whose parameters are made elsewhere, called by ``torch.func.functional_call``."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..sites import WeightSpec
from .base import DynamicOp

__all__ = ["DynamicCall"]


class DynamicCall(DynamicOp):
    """A module of one input whose own parameters are made elsewhere, for what has no op of its own.

    It is made for weights that a batch shares: with one set a sample, samples run one after another, so that the module
    sees batches of one.

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
        for name in self.shapes:
            self.module._parameters[name] = None

    def weight_specs(self) -> tuple[WeightSpec, ...]:
        return tuple(_spec(name, shape) for name, shape in self.shapes.items())

    def compute(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        if all(weights[name].shape == shape for name, shape in self.shapes.items()):
            return functional_call(self.module, dict(weights), (x,))
        return self._by_blocks(x, weights, [1] * len(x))


def _spec(name: str, shape: tuple[int, ...]) -> WeightSpec:
    """Tell a matrix by its axes, which sums over all but the first, and let other values be changed a little."""
    if len(shape) > 1:
        fan_in, fan_out = (max(1, torch.Size(axes).numel()) for axes in (shape[1:], (shape[0], *shape[2:])))
        return WeightSpec(name, shape, fan_in, fan_out=fan_out)
    return WeightSpec(name, shape, 1, "shift")
