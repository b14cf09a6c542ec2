"""A network whose dynamic ops have become torch's layers, with the weights of one context as their parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import ExportError
from ....generation import ORIGINAL, DynamicNetwork, Original
from ....ops import DynamicOp

__all__ = ["make_static"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
TOLD = (bool, int, float, str, tuple, type(None))
"""What code around a lifted layer may read of it."""


def make_static(network: DynamicNetwork, context: Any = None) -> nn.Module:
    """Return a network with ordinary layers of torch in the places of its ops, made once for one context.

    What is returned is of the class that the network is of: a user's own, a model space of NNI, a lifted network's, or,
    of one that was read from a file, this package's. Its layers are torch's, its weights ordinary parameters, which can
    be trained further.

    Parameters
    ----------
    network
        It stays as it is.
    context
        One, with or without a first axis of 1; ``None`` where weights depend on none.

    Raises
    ------
    ContextError
        There are several, weights are made from each layer's own input, or a module stands in for an op.
    ExportError
        An op is no ordinary layer, such as one whose weights vary over the image.

    Examples
    --------
    >>> plain = make_static(nni_dynconv.load("runs/mine"), context)  # doctest: +SKIP
    >>> y = plain(x)  # doctest: +SKIP
    """
    whole = copy.deepcopy(network).cpu().eval()
    with torch.no_grad():
        made = whole.source.make_all(context)
    if isinstance(whole.network, DynamicOp):
        return _layer_of(whole.network, made)
    layers: dict[nn.Module, nn.Module] = {}
    for module in list(whole.network.modules()):
        for name, child in module._modules.items():
            if isinstance(child, DynamicOp):
                if child not in layers:
                    layers[child] = _layer_of(child, made)
                module._modules[name] = layers[child]
    return whole.network


def _layer_of(op: DynamicOp, made: Mapping[str, Mapping[str, Tensor]]) -> nn.Module:
    weights = made[str(op.site)]
    for spec in op.weight_specs():
        if tuple(weights[spec.name].shape) != spec.shape:
            raise ExportError(
                f"Site `{op.site}` is no ordinary layer: its `{spec.name}` {spec.shape} is made for each patch of an "
                f'image, {tuple(weights[spec.name].shape)}. Write the network as a program, `export_program(..., "'
                f'baked")`, or `nni-dynconv export RUN --to pt2 --form baked`.'
            )
    if any(getattr(op, name) for name in HOOKS):
        raise ExportError(f"Site `{op.site}` has hooks, which would be lost. Remove them first.")
    try:
        layer = op.static_layer(weights)
    except (ValueError, TypeError) as error:  # torch's own, of what its layer does not take
        if isinstance(error, ExportError):
            raise
        raise ExportError(
            f"Site `{op.site}` is no ordinary layer: torch's does not take what {type(op).__name__} does ({error})."
        ) from error
    original = vars(op).get(ORIGINAL)
    for name, value in vars(original.module).items() if isinstance(original, Original) else ():
        if isinstance(value, TOLD) and not hasattr(layer, name):
            setattr(layer, name, value)
    return layer.train(op.training)
