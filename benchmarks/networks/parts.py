"""Whether a weight that is given as a scaled base, or as a mixture, is better applied or formed: time of both.

    python -m benchmarks.networks.parts

Forward and backward, on one thread of a CPU, in float32. The rules of ``nni_dynconv/functional/planning/composed.py``
come from these. Of products, ``benchmarks/low_rank.py``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.timing import interleave, keep_freed_memory, ratio
from nni_dynconv.functional import Composed, Mixed, Scaled
from nni_dynconv.functional.calling import make_plan, run
from nni_dynconv.functional.planning.measuring import measure


class Case(NamedTuple):
    """Samples, channels in and out, height and width, kernel."""

    B: int
    Cin: int
    Cout: int
    HW: int
    K: int = 3
    depthwise: bool = False


CASES = (
    Case(32, 3, 32, 32),
    Case(32, 16, 16, 32),
    Case(32, 32, 32, 32),
    Case(32, 64, 64, 16),
    Case(32, 128, 128, 8),
    Case(32, 256, 256, 4),
    Case(8, 256, 256, 4),
    Case(32, 512, 512, 2),
    Case(32, 256, 256, 1),
    Case(32, 64, 128, 8, 1),
    Case(32, 96, 96, 16, 3, True),
    Case(32, 240, 240, 8, 5, True),
)


def weights_of(case: Case, experts: int) -> dict[str, Composed]:
    """Return the weight of a case by its parts: scaled, and mixed of 4 and of more."""
    shape = (case.Cout, 1 if case.depthwise else case.Cin, case.K, case.K)
    made: dict[str, Composed] = {"scaled": Scaled(_leaf(*shape), _leaf(case.B, case.Cout))}
    if not case.depthwise:
        made |= {f"mixed of {E}": Mixed(_leaf(case.B, E), _leaf(E, *shape)) for E in (4, experts)}
    return made


def _leaf(*shape: int) -> Tensor:
    return torch.randn(shape).requires_grad_()


def step_of(case: Case, weight: Composed, path: str) -> Callable[[], None]:
    """Return what computes a case by one path, with all gradients."""
    groups = case.Cin if case.depthwise else 1
    x = _leaf(case.B, case.Cin, case.HW, case.HW)
    plan = make_plan(2, measure(2, x.shape, weight.shape, None, 1, case.K // 2, 1, groups, None), path)
    leaves = [x, *(part for part in weight if isinstance(part, Tensor))]

    def step() -> None:
        torch.autograd.grad(run(plan, x, weight, None).sum(), leaves)

    return step


def main() -> None:
    """Measure case by case, and print how many times as long forming takes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each weight of each case")
    parser.add_argument("--experts", type=int, default=8, help="of the second mixture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for case in CASES:
        told = []
        for name, weight in weights_of(case, options.experts).items():
            steps = {path: step_of(case, weight, path) for path in ("applied", "formed")}
            times = interleave(steps, options.seconds, patience=float("inf"), clock=time.process_time)
            told.append(f"{name} {ratio(times, 'formed', 'applied').median:.2f}")
        print(f"{tuple(case)}: formed over applied: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
