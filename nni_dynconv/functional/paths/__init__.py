"""The ways to compute a call: by torch's operators, in blocks, from parts, and by the compiled kernels.

Nothing here chooses: each way is told the sizes that ``planning/`` has checked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from . import blocks, columns, composed, convolutions, depthwise, linear, tiles
from .blocks import Call
from .compiled import compiled

__all__ = ["Path", "table"]

Path = Callable[[Tensor, Any, Tensor | None, Any], Tensor]  # x, weight, bias, geometry


def table(call: Call) -> dict[str, dict[str, Path]]:
    """Return what computes each path, by its name: of convolutions, and of linear maps.

    Parameters
    ----------
    call
        Computes the calls that some are made of: ``call(axes, x, weight, bias, (*options, counts))``.
    """
    apart = {
        "bias_apart": partial(blocks.bias_apart, call),
        "applied": partial(composed.applied, call),
        "formed": partial(composed.formed, call),
    }
    return {
        "convolution": {
            "plain": convolutions.plain,
            "single": convolutions.single,
            "grouped": convolutions.grouped,
            "looped": convolutions.looped,
            "matmul": columns.matmul,
            "unfold": columns.unfold,
            "patches": columns.patches,
            "folded": columns.folded,
            "depthwise": depthwise.depthwise,
            "depthwise_in_chunks": depthwise.depthwise_in_chunks,
            "compiled": compiled,
            "split": partial(blocks.split, call),
            "regrouped": partial(blocks.regrouped, call),
            "stacked": partial(blocks.stacked, call),
            "tiled": partial(tiles.tiled, call),
            "tiled_by_torch": partial(tiles.tiled_by_torch, call),
            **apart,
        },
        "linear": {
            "plain": linear.plain,
            "matmul": linear.matmul,
            "stacked": linear.stacked,
            "split": linear.split,
            **apart,
        },
    }
