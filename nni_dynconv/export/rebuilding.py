"""The third way to keep a network: by class, constructor's arguments and sample, where no graph can hold it.

To read it is to import the class, so it is read where that is trusted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from ..errors import ExportError
from ..ops import DynamicOp
from .modules import describe_module, foreign_in, make_module, shapes_of

__all__ = ["describe_rebuilt", "make_rebuilt"]


def describe_rebuilt(network: nn.Module, sample: Mapping[str, Any]) -> dict[str, Any]:
    """Write a network by its class; its dynamic ops as modules of their own, for they may have been lifted.

    Raises
    ------
    ExportError
        It does not keep its constructor's arguments, or is another network when it is made again.
    """
    layers = {path: describe_module(one, path) for path, one in network.named_modules() if isinstance(one, DynamicOp)}
    whole = describe_module(network, complete=False)
    description = {**whole, "sample": dict(sample), "layers": layers}
    trust = {reference.partition(":")[0] for reference in foreign_in(description)}
    with torch.random.fork_rng(devices=[]):
        again = make_rebuilt(description, trust)
    ours, theirs = shapes_of(network.state_dict()), shapes_of(again.state_dict())
    if ours != theirs:
        name = next(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
        raise ExportError(
            f"{type(network).__name__} cannot be made again from its constructor's arguments: `{name}` is "
            f"{theirs.get(name, 'missing')} then, but {ours.get(name, 'missing')} here."
        )
    return description


def make_rebuilt(description: Mapping[str, Any], trust: Collection[str]) -> nn.Module:
    """Make a network that was written by its class.

    Parameters
    ----------
    description
        As :func:`describe_rebuilt` wrote it.
    trust
        As of :func:`~nni_dynconv.export.load`.

    Raises
    ------
    ExportError
        Its class is not trusted.
    """
    made: Any = make_module(description, trust)
    if description["sample"] and hasattr(made, "freeze"):
        made = made.freeze(dict(description["sample"]))
    for path, one in description["layers"].items():
        made.set_submodule(path, make_module(one, trust))
    return made
