"""Weights that vary over the image, by patches and by pixels, against ``unfold`` and ``einsum``; on one thread.

Prints a line per shape and mode, and writes all of them to the file of results::

    python benchmarks/patches.py                  # about two minutes
    python benchmarks/patches.py --quick          # two shapes of each

A line has the CPU time of the peer over ours, and ours over the roofline: what sgemm and copies of the same run allow
for reading inputs and weights and writing outputs once. Both of these are the least of several turns, which other work
on the machine disturbs the least; the first is a median over rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from accelerators import RESULTS, prepare
from contenders import Limits, measure_limits
from report import WORTH_A_ROOFLINE
from timing import interleave, machine, merge_results, ratio
from torch import Tensor

from nni_dynconv.functional import conv2d, conv2d_pixels


class Case(NamedTuple):
    """C channels in and out, a kernel K; ``cells``: patches along an axis, or groups of channels with own pixels."""

    op: str
    B: int
    C: int
    HW: int
    K: int
    cells: int

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of all weights."""
        if self.op == "patches":
            return self.B, self.cells, self.cells, self.C, self.C, self.K, self.K
        return self.B, self.cells * self.K**2, self.HW, self.HW

    @property
    def multiply_adds(self) -> int:
        """Of the forward."""
        places = self.B * self.C * self.HW**2 * self.K**2
        return places * self.C if self.op == "patches" else places


CASES = [
    Case("patches", 8, 16, 32, 3, 4),
    Case("patches", 8, 16, 64, 3, 4),
    Case("patches", 8, 32, 64, 3, 4),
    Case("patches", 8, 32, 64, 3, 8),
    Case("patches", 8, 16, 64, 5, 8),
    Case("patches", 2, 16, 128, 3, 8),
    Case("patches", 8, 64, 32, 3, 4),
    Case("pixels", 8, 16, 32, 3, 1),
    Case("pixels", 8, 32, 32, 3, 4),
    Case("pixels", 8, 32, 64, 3, 1),
    Case("pixels", 8, 64, 32, 7, 4),
    Case("pixels", 2, 64, 64, 5, 4),
    Case("pixels", 8, 3, 64, 5, 1),
    Case("pixels", 8, 16, 32, 3, 16),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="two shapes of each")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each shape and mode")
    parser.add_argument("--output", default=RESULTS[True], help="file of results")
    arguments = parser.parse_args()
    prepare("cpu")
    torch.manual_seed(0)
    limits, rows = measure_limits(clock=time.process_time), []
    for case in [*CASES[:2], *CASES[7:9]] if arguments.quick else CASES:
        for training in (False, True):
            rows.append(_measure(case, training, limits, arguments.seconds))
            print(_line(rows[-1]), flush=True)
    merge_results(arguments.output, patches=rows, machines={"patches": machine()})


def _measure(case: Case, training: bool, limits: Limits, seconds: float) -> dict[str, Any]:
    x, weight = torch.randn(case.B, case.C, case.HW, case.HW), torch.randn(case.weight)
    ours, peer = WAYS[case.op]
    torch.testing.assert_close(ours(case, x, weight), peer(case, x, weight), rtol=1e-3, atol=1e-3)
    contenders = {
        name: _step(partial(way, case), x, weight, training) for name, way in (("ours", ours), ("peer", peer))
    }
    times = interleave(contenders, seconds, patience=1.0, clock=time.process_time)
    best = _roofline(case, x.numel(), weight.numel(), training, limits)
    spread = ratio(times, "peer", "ours")
    return case._asdict() | {
        "mode": "fwd+bwd" if training else "fwd",
        "unfold_over_ours": round(spread.median, 2),
        "spread": [round(spread.low, 2), round(spread.high, 2)],
        "over_roofline": round(min(times["ours"]) / best, 2),
        "roofline microseconds": round(1e6 * best, 1),
    }


def _step(way: Callable[..., Tensor], x: Tensor, weight: Tensor, training: bool) -> Callable[[], Any]:
    if not training:
        return partial(way, x, weight)
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    pull = torch.randn_like(way(x, weight))
    return lambda: torch.autograd.grad(way(x, weight), (x, weight), pull)


def _roofline(case: Case, x: int, weights: int, training: bool, limits: Limits) -> float:
    """Seconds: x and weights are read, y written; backward, x, weights and dy are read, both gradients written."""

    def least(flops: int, values: int) -> float:
        moved = 4 * values
        size = next((one for one in sorted(limits.copies) if one >= moved), max(limits.copies))
        return max(flops / limits.flops, moved / limits.copies[size])

    forward = least(2 * case.multiply_adds, 2 * x + weights)
    return forward + (least(4 * case.multiply_adds, 3 * x + 2 * weights) if training else 0.0)


def _our_patches(case: Case, x: Tensor, weight: Tensor) -> Tensor:
    return conv2d(x, weight, padding=case.K // 2)


def _unfolded_patches(case: Case, x: Tensor, weight: Tensor) -> Tensor:
    patch = case.HW // case.cells
    columns = F.unfold(x, case.K, padding=case.K // 2).view(case.B, -1, case.cells, patch, case.cells, patch)
    y = torch.einsum("bijok,bkipjq->boipjq", weight.flatten(4), columns)
    return y.reshape(case.B, case.C, case.HW, case.HW)


def _our_pixels(case: Case, x: Tensor, weight: Tensor) -> Tensor:
    return conv2d_pixels(x, weight, case.K, padding=case.K // 2)


def _unfolded_pixels(case: Case, x: Tensor, weight: Tensor) -> Tensor:
    columns = F.unfold(x, case.K, padding=case.K // 2)
    columns = columns.view(case.B, case.cells, case.C // case.cells, case.K**2, case.HW, case.HW)
    y = torch.einsum("bgckhw,bgkhw->bgchw", columns, weight.unflatten(1, (case.cells, -1)))
    return y.reshape(case.B, case.C, case.HW, case.HW)


WAYS = {"patches": (_our_patches, _unfolded_patches), "pixels": (_our_pixels, _unfolded_pixels)}


def _line(row: dict[str, Any]) -> str:
    of = "patches along an axis" if row["op"] == "patches" else "groups"
    small = "" if row["roofline microseconds"] >= WORTH_A_ROOFLINE else " (small)"
    return (
        f"{row['op']:7} {row['mode']:7} B {row['B']} C {row['C']:2} {row['HW']:3}x{row['HW']:<3} K {row['K']} "
        f"{row['cells']:2} {of}: {row['unfold_over_ours']:5.2f}x as fast as unfold and einsum "
        f"({row['spread'][0]:.2f} to {row['spread'][1]:.2f}), {row['over_roofline']:.2f} of the roofline{small}"
    )


if __name__ == "__main__":
    main()
