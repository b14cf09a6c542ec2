"""Write and read the files: ``architecture.json``, ``network.json`` and ``network.safetensors``; ``supernet.*``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from ..controllers import Controller
from ..errors import ExportError
from ..network import DynamicNetwork
from ..ops import DynamicOp
from ..source import WeightSource
from ..spec import Site, WeightSpec
from . import graph, modules

if TYPE_CHECKING:
    from ..mutator import DynamicWeightMutator

__all__ = ["load", "load_supernet", "save", "save_supernet"]

FORMAT = 1


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
    encoder = (
        None if source.encoder is None else graph.trace(nn.Sequential(source.encoder).train(source.encoder.training))
    )
    written = None if encoder is None else {**graph.describe_network(encoder), "out_dim": source.code_dim}
    description = {
        "format": FORMAT,
        "network": graph.describe_network(traced),
        "encoder": written,
        "controller": modules.describe_module(source.controller, "controller", complete=False),
        "base": source.base,
        "ops": _ops_of(traced),
        "sites": [_write_site(site) for site in source.sites.values()],
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"network.{name}": one for name, one in traced.state_dict().items()}
    tensors |= {f"encoder.{name}": one for name, one in (encoder.state_dict() if encoder is not None else {}).items()}
    tensors |= {f"source.{name}": one for name, one in _own_tensors(source).items()}
    sample = dict(network.architecture if architecture is None else architecture)
    _write_json(folder / "architecture.json", {"architecture": sample})
    _write_json(folder / "network.json", description)
    _write_tensors(folder / "network.safetensors", tensors)


def load(folder: str | Path) -> DynamicNetwork:
    """Read a network: a plain module ``network(x, context)``, in evaluation mode.

    Neither NNI nor the class that defined the network is imported; a controller of your own is, by its name.

    Raises
    ------
    ExportError
        The folder holds no network, or one that is damaged.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        sample = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))["architecture"]
        tensors = safetensors.torch.load_file(folder / "network.safetensors")
        if description["format"] != FORMAT:
            raise ExportError(f"format {description['format']}, but this version reads {FORMAT}")
        network = _make_network(description, sample)
        _fill(network, tensors)
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
    controller = modules.make_module(description["controller"])
    if not isinstance(controller, Controller):
        raise ExportError(f"`{description['controller']['class']}` is no controller.")
    encoder = None
    if description["encoder"] is not None:
        encoder = graph.make_network(description["encoder"])
        encoder.out_dim = description["encoder"]["out_dim"]
    sites = [_read_site(site) for site in description["sites"]]
    source = WeightSource(controller, encoder, sites, description["base"])
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
        part.load_state_dict(own)


def _ops_of(network: nn.Module) -> dict[str, str]:
    """Sites by the path of their op."""
    return {path: str(one.site) for path, one in network.named_modules() if isinstance(one, DynamicOp)}


def _state(module: nn.Module | None) -> dict[str, Tensor]:
    return {} if module is None else module.state_dict()


def _own_tensors(source: WeightSource) -> dict[str, Tensor]:
    return {name: one for name, one in source.state_dict().items() if not name.startswith("encoder.")}


def _write_site(site: Site) -> dict[str, Any]:
    specs = [{"name": s.name, "shape": list(s.shape), "fan_in": s.fan_in, "kind": s.kind} for s in site.specs]
    return {"name": site.name, "op": site.op, "specs": specs}


def _read_site(data: Mapping[str, Any]) -> Site:
    specs = (WeightSpec(s["name"], tuple(s["shape"]), s["fan_in"], s["kind"]) for s in data["specs"])
    return Site(data["name"], data["op"], tuple(specs))


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors; two names of one tensor are written twice, for safetensors takes no shared memory."""
    safetensors.torch.save_file({name: one.detach().contiguous().clone() for name, one in tensors.items()}, path)


# Supernets: the shared checkpoint of multi-trial mode


def save_supernet(mutator: DynamicWeightMutator, folder: str | Path) -> None:
    """Write a mutator's supernet, controller included, as ``supernet.safetensors``, and its choices beside it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    choices = {label: list(choice.candidates) for label, choice in mutator.choices.items()}
    _write_json(folder / "supernet.json", {"format": FORMAT, "choices": choices})
    _write_tensors(folder / "supernet.safetensors", mutator.space.state_dict())


def load_supernet(mutator: DynamicWeightMutator, folder: str | Path) -> None:
    """Read what :func:`save_supernet` wrote into a mutator of the same space and controller.

    Raises
    ------
    ExportError
        There is no supernet, or one of another space or controller; the mutator is as before then.
    """
    folder = Path(folder)
    try:
        tensors = safetensors.torch.load_file(folder / "supernet.safetensors")
    except (OSError, safetensors.SafetensorError) as error:
        raise ExportError(f"There is no supernet that can be read in `{folder}`: {error}") from error
    ours = {name: tuple(one.shape) for name, one in mutator.space.state_dict().items()}
    theirs = {name: tuple(one.shape) for name, one in tensors.items()}
    if ours != theirs:
        name = next(name for name in [*ours, *theirs] if ours.get(name) != theirs.get(name))
        raise ExportError(
            f"The supernet in `{folder}` is of another space or controller: `{name}` is {ours.get(name, 'missing')} "
            f"here but {theirs.get(name, 'missing')} there. Delete the folder to make it anew, or use the settings "
            f"that it was made with."
        )
    mutator.space.load_state_dict(tensors)
