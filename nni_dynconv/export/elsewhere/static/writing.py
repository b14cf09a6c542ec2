"""A folder with a network as Python and its weights: ``network.py``, ``network.pt``."""

from __future__ import annotations

import importlib.util
import io
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import ExportError
from ....files import write_atomically
from ....generation import Call, DynamicNetwork, Example
from ...examples import Shown
from ...portable import describe_network
from ...verifying import verify
from ..checked import Checked, Flat, check_same, context_of, fastest, flat, largest_difference
from .layers import make_static
from .source import source_of

__all__ = ["export_static"]

SOURCE, WEIGHTS = "network.py", "network.pt"


def export_static(network: DynamicNetwork, folder: str | Path, shown: Shown, context: Any = None) -> Checked:
    """Write a network of ordinary layers of torch, with the weights of one context, as Python that needs torch alone.

    ``folder/network.py`` has its layers and its forward, and ``load()``, which fills them from ``network.pt``; beside
    it, in ``network.py.json``, stands how far it differs. Neither this package nor NNI nor the network's own class is
    imported.

    Parameters
    ----------
    network
        In evaluation mode.
    folder
        Made where it is missing.
    shown
        Its example, as :func:`nni_dynconv.export.example_in` reads it.
    context
        The one that counts; the example's first by default.

    Raises
    ------
    ContextError, ExportError
        As of :func:`make_static`; the network decides by values of tensors; what is written computes something else.
        There are no files then.
    """
    folder = Path(folder)
    given = flat(network, shown, "baked", 1, context)
    call = shown.call._replace(context=None, index=None)
    static = make_static(network, context_of(shown, context))
    files = _files(static, call, network.network._get_name())
    with tempfile.TemporaryDirectory() as place:
        for name, content in files.items():
            Path(place, name).write_bytes(content)
        again = _read(Path(place, SOURCE))
        verify(static, partial(_read, Path(place, SOURCE)), Example.of(call).drawn(2))  # in training too
    checked = _compared(given, Flat(again.eval(), call))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, content)
    checked.write(folder / SOURCE)
    return checked


def _files(static: nn.Module, call: Call, name: str) -> dict[str, bytes]:
    try:
        description, constants = describe_network(static, call.args, call.kwargs, Example.of(call).drawn(1))
        text = source_of({**description, "name": name}, _fixed(static))
    except ExportError as error:
        raise ExportError(
            f"{name} cannot be written as Python: {error} In Python there is still `export.make_static(network, "
            f"context)`, of the network's own class."
        ) from error
    held = io.BytesIO()
    torch.save(_state(static, description, constants), held)
    return {SOURCE: text.encode(), WEIGHTS: held.getvalue()}


def _fixed(static: nn.Module) -> list[str]:
    return [name for name, one in static.named_parameters() if not one.requires_grad]


def _state(static: nn.Module, description: Mapping[str, Any], constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all tensors that the file needs, by name."""
    every = {
        **dict(static.named_parameters(remove_duplicate=False)),
        **dict(static.named_buffers(remove_duplicate=False)),
    }
    inside = tuple(f"{path}." for path in description["layers"])
    kept = {name: one for name, one in every.items() if name in description["tensors"] or name.startswith(inside)}
    return {name: one.detach() for name, one in {**kept, **constants}.items()}


def _read(path: Path) -> nn.Module:
    """Run what was written, and have it read its weights."""
    spec = importlib.util.spec_from_file_location("network_as_written", path)
    module: Any = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    try:
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        return module.load()
    except Exception as error:  # whatever it raises that is no Python, or does not fit
        raise ExportError(f"What was written is no network: {type(error).__name__}: {error}") from error


@torch.no_grad()
def _compared(given: Any, again: Flat) -> Checked:
    error = 0.0
    for tensors in given.calls.values():
        error = max(error, largest_difference(again(*tensors), given.reference(*tensors)))
    check_same(error, f"`{SOURCE}`")
    seconds = [fastest(partial(run, *tensors)) for run in (again, given.reference)]
    return Checked(SOURCE, "static", given.inputs, given.outputs, tuple(given.calls), error, None, *seconds)
