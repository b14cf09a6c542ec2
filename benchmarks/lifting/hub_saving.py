"""Lift every space of NNI's hub, freeze five random architectures of each, save them, and read them back.

``make sweep-save`` runs it behind ``saving.py``, which says what is compared. The sizes are those of ``docs/hub.md``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "docs")]
import torch  # noqa: E402
from make_hub_table import CASES, Case, draw  # noqa: E402

from benchmarks.lifting.saving import save_and_compare  # noqa: E402
from nni_dynconv import RandomSampler  # noqa: E402
from nni_dynconv.errors import SpaceError  # noqa: E402
from nni_dynconv.generation import DynamicNetwork  # noqa: E402
from nni_dynconv.lifting import lift  # noqa: E402

ARCHITECTURES = 5


def frozen_of(case: Case) -> Iterator[DynamicNetwork]:
    """Yield random architectures of a space: of a supernet, where there can be one."""
    torch.manual_seed(0)
    lifted = lift(case.make(**case.arguments), case.where)
    try:
        mutator = lifted.mutator(sampler=RandomSampler(seed=0))
    except SpaceError:
        again = lift(case.make(**case.arguments), case.where)
        for seed in range(ARCHITECTURES):
            yield draw(again, seed=seed).mutator().eval().freeze()
        return
    for _ in range(ARCHITECTURES):
        yield mutator.eval().freeze(mutator.reset())


def try_space(name: str) -> dict[str, Any]:
    """Return how many of a space's architectures came back the same, and what stopped the others."""
    case, result = CASES[name], {"space": name, "tried": 0, "same": 0, "different": 0, "refused": [], "seconds": 0.0}
    for frozen in frozen_of(case):
        found: dict[str, Any] = {}
        result["tried"] += 1
        try:
            save_and_compare(frozen, found, torch.randn(2, 3, case.size, case.size))
            result["same"] += 1
        except Exception as error:
            kind = "different" if found.get("stage", "").startswith("different") else "refused"
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            result[kind] = [*result["refused"], reason] if kind == "refused" else result["different"] + 1
        result["seconds"] = max(result["seconds"], found.get("save", 0.0))
    return result


def report(results: list[dict[str, Any]]) -> str:
    """Return a table."""
    lines = ["| space | architectures | saved and the same | otherwise | refused |", "| --- | --- | --- | --- | --- |"]
    for one in results:
        refused = "; ".join(dict.fromkeys(one["refused"])).replace("|", "\\|")
        lines.append(f"| {one['space']} | {one['tried']} | {one['same']} | {one['different']} | {refused} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE / "hub_saving.json")
    parser.add_argument("--only", nargs="*", choices=list(CASES))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    done = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else []
    for name in options.only or CASES:
        if name not in {one["space"] for one in done}:
            done.append(try_space(name))
            print(done[-1], flush=True)
            options.output.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    print(report(done))


if __name__ == "__main__":
    main()
