"""Choose the architectures that ``sweep.py`` lifts: the first of each family, in its smallest size, by a rule.

- pytorchcv: of each file of models in ``pytorchcv/models``, the first that it builds, where that takes one batch of
  images of 224 pixels or less and has at most 12 million values in its convolutions and 40 million in all.
- transformers: of each type of model, its bare ``AutoModel`` of two layers and a width of 32, where its configuration
  knows these words and its forward needs the main input alone. Every fifth type in alphabetical order
  is looked at.

``python benchmarks/lifting/choose.py`` writes ``models.json``. The list was made once, before anything was mended.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from benchmarks.lifting.models import LARGEST, SMALL, make_model  # noqa: E402

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def from_pytorchcv() -> list[dict[str, Any]]:
    """Return the first model of each file that is small enough."""
    import pytorchcv

    chosen = []
    for path in sorted((Path(pytorchcv.__file__).parent / "models").glob("*.py")):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "__all__":
                names = [name for name in ast.literal_eval(statement.value) if name[0].islower()]
                chosen += [{"package": "pytorchcv", "family": path.stem, "model": name} for name in names[:1]]
    return [one for one in chosen if _fits(one)]


def from_transformers() -> list[dict[str, Any]]:
    """Return those of every fifth type of model that can be made small and run."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    fit = []
    for family in sorted(CONFIG_MAPPING)[::5]:
        one = {"package": "transformers", "family": family, "model": family}
        if _knows(CONFIG_MAPPING[family]) and _fits(one):
            fit.append(one)
    return fit


def _knows(make: Any) -> bool:
    try:
        return all(hasattr(make(), word) for word in SMALL)
    except Exception:  # a configuration of parts, or of a package that is not here
        return False


def _fits(one: dict[str, Any]) -> bool:
    try:
        model, inputs = make_model(one)
        convolved = sum(p.numel() for m in model.modules() if isinstance(m, CONVOLUTIONS) for p in m.parameters())
        if convolved > LARGEST or sum(p.numel() for p in model.parameters()) > 40_000_000:
            return False
        with torch.no_grad():
            model(inputs)
    except Exception as error:
        print(f"  {one['model']} does not fit: {type(error).__name__}", flush=True)
        return False
    print(one["model"], flush=True)
    return True


if __name__ == "__main__":
    models = [*from_pytorchcv(), *from_transformers()]
    (HERE / "models.json").write_text(json.dumps(models, indent=1) + "\n", encoding="utf-8")
    print(f"{len(models)} models")
