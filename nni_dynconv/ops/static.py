"""Ordinary layers of torch with given weights, for what ops stand for once their weights are made for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["filled"]


def filled(layer: Any, weights: Mapping[str, Tensor], *args: Any, **options: Any) -> nn.Module:
    """Return a layer whose parameters are these weights; no random number is drawn for it.

    Parameters
    ----------
    layer
        Its class.
    weights
        By the layer's own names; they are copied.
    *args, **options
        Of its constructor.
    """
    made = nn.utils.skip_init(layer, *args, **options)
    for name, one in weights.items():
        made.register_parameter(name, nn.Parameter(one.detach().clone()))
    return made
