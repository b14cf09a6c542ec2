"""Lift some architectures of ``models.json``, save each, read it back, and run it in ONNX Runtime: ``make sweep-onnx``.

A model passes where the file is written with weights for each sample, loaded as it was written, and ONNX Runtime
computes what the network does for 1, 3 and 17 samples, to 1e-4 of the largest value of each output.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
import nni_dynconv  # noqa: E402
from benchmarks.lifting.saving import TRUSTED, frozen_of  # noqa: E402
from benchmarks.lifting.sweep import sweep  # noqa: E402
from nni_dynconv import export  # noqa: E402

LIMIT = 400
"""Seconds of a processor."""
MODELS = (
    *("chinese_clip_vision_model", "data2vec-vision", "ijepa", "visual_bert", "nystromformer", "roformer", "albert"),
    *("splinter", "xlm-roberta", "esmc", "modernbert", "llama", "gpt_neox", "internvl_vision", "diffllama", "layoutlm"),
    *("cohere", "granite", "resnet20_cifar10", "preresnet20_cifar10", "seresnet20_cifar10", "diapreresnet20_cifar10"),
    *("resnext20_16x4d_cifar10", "squeezenet_v1_0", "shufflenetv2b_wd2"),
)


def try_one(one: dict[str, Any]) -> dict[str, Any]:
    """Return how far a model came, and what stopped it."""
    found: dict[str, Any] = {**one, "stage": "save"}
    try:
        frozen, inputs = frozen_of(one)
        with tempfile.TemporaryDirectory() as folder:
            export.save(frozen, folder, example=inputs)
            loaded, shown = nni_dynconv.load(folder, trust=TRUSTED), export.example_in(folder)
            found["sites"] = len(loaded.source.sites)
            found["stage"] = "export"
            done = export.export_onnx(loaded, Path(folder, "model.onnx"), shown)
            numbers = {"there": done.seconds, "in_torch": done.torch_seconds}
            found |= {"error": done.error, **{name: float(f"{value:.3g}") for name, value in numbers.items()}}
    except Exception as error:
        return {**found, "reason": f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]}
    return {**found, "stage": "passed", "reason": ""}


def report(results: list[dict[str, Any]]) -> str:
    """Return counts, and a table of all models."""
    counts = Counter(one["stage"] for one in results)
    worst = max((one["error"] for one in results if one["stage"] == "passed"), default=0.0)
    lines = [f"{counts['passed']} of {len(results)} run in ONNX Runtime as in torch, to {worst:.1e} at most.", ""]
    lines += ["| model | of | generated layers | difference | 17 samples, there | in torch | |", f"|{' --- |' * 7}"]
    for one in results:
        known = [one.get("sites"), one.get("error"), one.get("there"), one.get("in_torch")]
        cells = ["-" if value is None else f"{value:.2g}" if value < 1e-3 else f"{value:.3g}" for value in known]
        why = "" if one["stage"] == "passed" else f"{one['stage']}: {one['reason']}".replace("|", "\\|")
        lines.append(f"| `{one['model']}` | {one['package']} | {' | '.join(cells)} | {why} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sweep(__doc__ or "", HERE / "elsewhere.json", try_one, report, LIMIT, MODELS)
