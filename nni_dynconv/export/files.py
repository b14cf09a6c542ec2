"""Write and read the files of a network: ``architecture.json``, ``network.json`` and ``network.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..generation import (
    ChunkedController,
    Controller,
    DynamicNetwork,
    FixedArchitecture,
    OwnInputContext,
    WeightSource,
    dim_of,
)
from ..ops import DynamicOp
from ..settings import Recipe
from ..sites import Site, WeightSpec
from . import graph, modules
from .earlier import tensors_of_today

__all__ = ["load", "save"]

FORMAT = 4
READABLE = (1, 2, 3, FORMAT)
"""Format 1 has one base for all sites, full deltas, and chunked controllers without signs; until 2 bases are flat;
until 3 fans are whole numbers."""


def save(network: DynamicNetwork, folder: str | Path, architecture: Mapping[str, Any] | None = None) -> None:
    """Write a frozen network into a folder.

    Parameters
    ----------
    network
        What :meth:`DynamicWeightMutator.freeze` gave.
    folder
        Made where it is missing.
    architecture
        The sample to note; the network's own by default.

    Raises
    ------
    ExportError
        Its forward cannot be written as a graph of torch's layers and functions, or a layer not as its arguments.
    """
    source = network.source
    traced = graph.trace(network.network)
    encoder, written = _write_encoder(source)
    description = {
        "format": FORMAT,
        "network": graph.describe_network(traced),
        "encoder": written,
        "architecture_dim": dim_of(source.architecture),
        "controller": describe_controller(source.controller),
        "ops": _ops_of(traced),
        "sites": [{**asdict(site), "recipe": asdict(source.recipes[name])} for name, site in source.sites.items()],
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"network.{name}": one for name, one in traced.state_dict().items()}
    tensors |= {f"encoder.{name}": one for name, one in (encoder.state_dict() if encoder is not None else {}).items()}
    tensors |= {f"source.{name}": one for name, one in _own_tensors(source).items()}
    sample = dict(network.architecture if architecture is None else architecture)
    write_json(folder / "architecture.json", {"architecture": sample})
    write_json(folder / "network.json", description)
    write_tensors(folder / "network.safetensors", tensors)


def load(folder: str | Path) -> DynamicNetwork:
    """Read a network: a plain module ``network(x, context)``, in evaluation mode.

    Neither NNI nor the class that defined the network is imported; a controller of your own is, by its name.

    Parameters
    ----------
    folder
        What :func:`save` wrote, or a search.

    Returns
    -------
    The network, on the CPU; ``network.architecture`` is the sample that it comes from.

    Raises
    ------
    ExportError
        The folder holds no network, one that is damaged or of a format that this version does not read, or one with a
        class that is not to be found here.

    Examples
    --------
    >>> network = load("runs/quickstart")  # doctest: +SKIP
    >>> y = network(x, context)  # doctest: +SKIP
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        sample = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))["architecture"]
        tensors = safetensors.torch.load_file(folder / "network.safetensors")
        if description["format"] not in READABLE:
            raise ExportError(f"it has format {description['format']}, but this version reads {READABLE}")
        network = _make_network(description, sample)
        _fill(network, tensors_of_today(tensors, network.source, "source.", description["format"]))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        safetensors.SafetensorError,
    ) as error:
        raise ExportError(
            f"There is no network that can be read in `{folder}`: {error}\nA search writes one, and so does "
            f"`nni_dynconv.export.save(mutator.freeze(sample), folder)`."
        ) from error
    return network.eval()


def _make_network(description: Mapping[str, Any], sample: Mapping[str, Any]) -> DynamicNetwork:
    encoder = _read_encoder(description["encoder"])
    dim = description.get("architecture_dim")
    architecture = None if dim is None else FixedArchitecture(torch.zeros(dim))
    sites = [_read_site(site) for site in description["sites"]]
    recipes = [Recipe(**site.get("recipe", {"base": description.get("base")})) for site in description["sites"]]
    controller = _make_controller(description["controller"], description["format"])
    source = WeightSource(controller, encoder, sites, recipes, architecture)
    network = graph.make_network(description["network"])
    for path, site in description["ops"].items():
        network.get_submodule(path).site = site
    return DynamicNetwork(network, source, sample)


def _fill(network: DynamicNetwork, tensors: Mapping[str, Tensor]) -> None:
    parts = {"network": network.network, "encoder": network.source.encoder, "source": network.source}
    for prefix, part in parts.items():
        if part is None:
            continue
        own = {name.removeprefix(f"{prefix}."): one for name, one in tensors.items() if name.startswith(f"{prefix}.")}
        if prefix == "source":
            own |= {f"encoder.{name}": one for name, one in _state(network.source.encoder).items()}
        _take_types(part, own)
        part.load_state_dict(own)


def _take_types(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Bring a module to the types of the tensors that it is filled with, and with them what it makes by itself."""
    first = next((one.dtype for one in tensors.values() if one.is_floating_point()), None)
    if first is not None:
        module.to(first)
    for name, one in module.state_dict(keep_vars=True).items():
        if name in tensors and one.dtype != tensors[name].dtype:
            one.data = one.data.to(tensors[name].dtype)


def _ops_of(network: nn.Module) -> dict[str, str]:
    """Sites by the path of their op."""
    return {path: str(one.site) for path, one in network.named_modules() if isinstance(one, DynamicOp)}


def _state(module: nn.Module | None) -> dict[str, Tensor]:
    return {} if module is None else module.state_dict()


def _own_tensors(source: WeightSource) -> dict[str, Tensor]:
    return {name: one for name, one in source.state_dict().items() if not name.startswith("encoder.")}


def _write_encoder(source: WeightSource) -> tuple[nn.Module | None, dict[str, Any] | None]:
    """Return what holds the encoder's tensors, and its description."""
    if source.encoder is None:
        return None, None
    if source.own_input is not None:
        if type(source.own_input) is not OwnInputContext:
            raise ExportError(
                f"The context encoder {type(source.own_input).__name__} cannot be written: it would be read back as "
                f"the OwnInputContext that it inherits. Take `OwnInputContext` itself."
            )
        return source.own_input, {"own_input": source.own_input.inputs, "out_dim": source.context_dim}
    traced = graph.trace(nn.Sequential(source.encoder).train(source.encoder.training))
    return traced, {**graph.describe_network(traced), "out_dim": source.context_dim}


def _read_encoder(description: dict[str, Any] | None) -> nn.Module | None:
    if description is None:
        return None
    if "own_input" in description:
        own = OwnInputContext(description["out_dim"])
        own.bind(description["own_input"])
        return own
    encoder: Any = graph.make_network(description)
    encoder.out_dim = description["out_dim"]
    return encoder


def describe_controller(controller: Controller | None) -> dict[str, Any] | None:
    """Return a controller's class and settings, as data."""
    return None if controller is None else modules.describe_module(controller, "controller", complete=False)


def _make_controller(description: dict[str, Any] | None, written_as: int) -> Controller | None:
    if description is None:
        return None
    controller = modules.make_module(description)
    if not isinstance(controller, Controller):
        raise ExportError(f"`{description['class']}` is no controller.")
    if written_as == 1 and isinstance(controller, ChunkedController):  # it had none, a class of one's own neither
        controller.signs = False
    return controller


def _read_site(data: Mapping[str, Any]) -> Site:
    specs = (WeightSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in data["specs"])
    return Site(data["name"], data["op"], tuple(specs))


def write_json(path: Path, data: Any) -> None:
    """Write data as JSON."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors; two names of one tensor are written twice, for safetensors takes no shared memory."""
    safetensors.torch.save_file({name: one.detach().contiguous().clone() for name, one in tensors.items()}, path)
