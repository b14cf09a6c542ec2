"""``README.md`` beside a saved network: a model card with YAML front matter, for who finds the folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from ..files import write_atomically
from .examples import EXAMPLE, Port, Shown

__all__ = ["CARD", "card_of", "write_card"]

CARD = "README.md"
LIBRARY = "nni_dynconv"
TAGS = ("neural-architecture-search", "dynamic-convolution", "hypernetwork")


def card_of(description: Mapping[str, Any], shown: Shown, parameters: int, results: Mapping[str, float]) -> str:
    """Return a network's card.

    Parameters
    ----------
    description
        As ``network.json`` has it.
    shown
        Its example, of which inputs and outputs are told.
    parameters
        How many numbers are stored.
    results
        What was measured of it, by name.
    """
    head = {"library_name": LIBRARY, "tags": list(TAGS), "architecture": _plain(description)}
    head |= {"parameters": parameters, "results": {name: float(one) for name, one in results.items()}}
    head |= {"torch": torch.__version__.partition("+")[0]}
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return "\n".join([f"---\n{front}---", *_body(description, shown, parameters, results), ""])


def _body(description: Mapping[str, Any], shown: Shown, parameters: int, results: Mapping[str, float]) -> Iterator[str]:
    sites = len(description["sites"])
    made_from = "a context" if description["encoder"] is not None else "what it has learned"
    yield "\n# A searched network with generated weights\n"
    yield f"A controller makes the weights of {sites} layers from {made_from}; {parameters:,} numbers are stored.\n"
    yield "```python\nimport nni_dynconv\n"
    yield 'network = nni_dynconv.load(".")  # this folder'
    yield f"y = network({', '.join(one.name for one in shown.inputs)})\n```\n"
    yield "## Architecture\n"
    yield from _rows(("choice", "what was chosen"), [(f"`{key}`", f"`{one}`") for key, one in _choices(description)])
    yield "\n## Inputs and outputs\n"
    ports = [*(("in", one) for one in shown.inputs), *(("out", one) for one in shown.made)]
    yield from _rows(("", "name", "shape", "type", "values of the example"), [_port(way, one) for way, one in ports])
    kind = "a batch of its data" if shown.real else "drawn values"
    yield f"\n`B` counts samples. `{EXAMPLE}` holds {kind}, and what this network makes of them.\n"
    if results:
        yield "## Results\n"
        yield from _rows(("measured", "value"), [(f"`{name}`", f"{one:.6g}") for name, one in sorted(results.items())])


def _plain(description: Mapping[str, Any]) -> Any:
    """Return the architecture as YAML has it: NNI's labels are strings of a kind of their own."""
    return json.loads(json.dumps(description["architecture"]))


def _choices(description: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    return list(description["architecture"].items()) or [("none", "nothing was to choose")]


def _port(way: str, one: Port) -> Sequence[str]:
    values = "" if one.least is None or one.most is None else f"{one.least:.4g} to {one.most:.4g}"
    return way, f"`{one.name}`", " ".join(map(str, one.shape)) or "a number", one.dtype, values


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def write_card(folder: Path, text: str) -> None:
    """Write a card; a ``README.md`` that is none of ours stays."""
    path = folder / CARD
    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(
        f"---\nlibrary_name: {LIBRARY}"
    ):
        return
    write_atomically(path, text.encode())
