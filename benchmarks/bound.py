"""How fast depthwise convolution could be at most: our calls with kernels that copy x to y, and dy to dx, and no more.

What is left of a call then is torch's autograd, the checks of shapes, and moving each tensor once; a convolution reads
x in its backward as well::

    python benchmarks/bound.py                    # about a minute

Prints, and writes into the file of results, the time of one convolution with groups = batch over ours, and over that of
the copies: geometric means over the shapes of ``ops.py``, forward and backward, on one thread.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
from collections.abc import Callable
from statistics import geometric_mean
from typing import Any

import torch
from accelerators import RESULTS, prepare
from ops import GRID, contender, make_inputs
from timing import interleave, merge_results, ratio
from torch import Tensor

from nni_dynconv.functional import library
from nni_dynconv.functional.paths import kernels

OP = "depthwise 3x3"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=0.25, help="time for each shape; large ones take more")
    parser.add_argument("--output", default=RESULTS[True], help="file of results")
    arguments = parser.parse_args()
    if not library.loaded():
        raise SystemExit("The compiled kernels are not built, or turned off: there is nothing to compare copies with.")
    prepare("cpu")
    torch.manual_seed(0)
    found = [measure(*shape, arguments.seconds) for shape in itertools.product(*GRID.values())]
    bound = {name: round(geometric_mean([one[name] for one in found]), 2) for name in ("ours", "copies")}
    print(f"{OP}, forward and backward, against groups = batch: ours {bound['ours']}x, copies {bound['copies']}x")
    merge_results(arguments.output, bound={"op": OP, **bound})


def measure(B: int, C: int, HW: int, seconds: float) -> dict[str, float]:
    """Return the time of ``groups = batch`` over ours, and over that of the copies."""
    inputs = make_inputs(OP, B, C, HW, training=True)
    contenders = {name: contender(OP, C, True, name, inputs) for name in ("ours", "grouped")}
    contenders["copies"] = copying(contenders["ours"])
    times = interleave(contenders, seconds)
    return {name: ratio(times, "grouped", name).median for name in ("ours", "copies")}


def copying(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same with kernels that only copy."""

    def forward(x: Tensor, weight: Tensor, y: Tensor, geometry: Any) -> None:
        ctypes.memmove(y.data_ptr(), x.data_ptr(), x.nbytes)

    def backward(x: Tensor, weight: Tensor, dy: Tensor, dx: Tensor, dw: Tensor, geometry: Any) -> None:
        ctypes.memmove(dx.data_ptr(), dy.data_ptr(), dy.nbytes)

    ours = kernels._convolve, kernels._differentiate

    def copy() -> Any:
        kernels._convolve, kernels._differentiate = forward, backward
        try:
            return run()
        finally:
            kernels._convolve, kernels._differentiate = ours

    return copy


if __name__ == "__main__":
    main()
