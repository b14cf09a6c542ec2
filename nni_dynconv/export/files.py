"""Write and read the files of a network: ``architecture.json``, ``network.json`` and ``network.safetensors``."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import DynConvError, ExportError
from ..generation import (
    Call,
    ChunkedController,
    Controller,
    DynamicNetwork,
    Example,
    FixedArchitecture,
    OwnInputContext,
    WeightSource,
    dim_of,
)
from ..ops import DynamicOp
from ..settings import Recipe
from ..sites import Site, WeightSpec
from . import earlier_graph, modules
from .allowed import OURS, name_of
from .card import card_of, write_card
from .earlier import tensors_of_today
from .examples import EXAMPLE, Shown, describe_example, read_example
from .folder import FIRST_CHECKED, FORMAT, pack, read_folder, unpack, write_folder
from .modest import Modest
from .portable import Portable, describe_network
from .rebuilding import describe_rebuilt, make_rebuilt
from .verifying import fitting, verify

__all__ = ["example_in", "load", "save"]

MAIN, TENSORS, ARCHITECTURE = "network.json", "network.safetensors", "architecture.json"


def save(
    network: DynamicNetwork,
    folder: str | Path,
    architecture: Mapping[str, Any] | None = None,
    example: Any = None,
    results: Mapping[str, float] | None = None,
) -> None:
    """Write a frozen network into a folder, once it has been read back and found to be the same.

    Parameters
    ----------
    network
        What :meth:`DynamicWeightMutator.freeze` gave.
    folder
        Made where it is missing.
    architecture
        The sample to note; the network's own by default.
    example
        What it is called with: ``x``, ``(x, context)``, or a dict of arguments by name. By default inputs like those of
        its last call, or of its mutator's, whose shapes are remembered.
    results
        What was measured of it, by name: for its card, ``README.md``, which is not written over one of your own.

    Warns
    -----
    UserWarning
        No graph can hold its forward, such as one that decides by values of tensors: it is saved by its class.

    Raises
    ------
    ExportError
        There is nothing to try it on; neither a graph nor its class can hold its forward; a layer or controller cannot
        be written; what is read back is not the same; the files cannot be written. The folder holds what it held then.
    """
    known = _example_of(network, example)
    tried = copy.deepcopy(network).cpu()
    call = fitting(tried, known)
    sample = dict(network.architecture if architecture is None else architecture)
    description, tensors = _describe(tried, sample, call)
    shown, arrays = describe_example(tried.eval(), known)
    trust = sorted({reference.partition(":")[0] for reference in modules.foreign_in(description)})
    files = _packed({**description, "trust": trust, "example": shown}, tensors, sample, arrays)
    verify(tried, partial(_read, *_unpacked(files), trust), call)
    write_folder(Path(folder), MAIN, files)
    parameters = sum(one.numel() for one in tried.parameters())
    write_card(Path(folder), card_of(description, read_example(shown, arrays), parameters, results or {}))


def load(folder: str | Path, trust: Collection[str] = ()) -> DynamicNetwork:
    """Read a network: a plain module ``network(x, context)``, in evaluation mode.

    Neither NNI nor the class that defined the network is imported, and no code is run that the files bring.

    Parameters
    ----------
    folder
        What :func:`save` wrote, or a search.
    trust
        Names of modules or packages whose classes may be imported: for a network with a controller, an op or a layer
        of your own that can only be read by its class. The error of a load without it says which.

    Returns
    -------
    The network, on the CPU; ``network.architecture`` is the sample that it comes from.

    Raises
    ------
    ExportError
        The folder holds no network, one that is damaged or of a format that this version does not read, or one with a
        class that is not to be found here, or not trusted.

    Examples
    --------
    >>> network = load("runs/quickstart")  # doctest: +SKIP
    >>> y = network(x, context)  # doctest: +SKIP
    """
    try:
        folder = Path(folder)
        description, files = read_folder(folder, MAIN)
        if description["format"] < FIRST_CHECKED:
            files = {name: (folder / name).read_bytes() for name in (ARCHITECTURE, TENSORS)}
        return _read(description, files, (trust,) if isinstance(trust, str) else trust)
    except Exception as error:  # whatever the constructors of torch's layers raise of what is damaged
        raise ExportError(
            f"There is no network that can be read in `{folder}`: {_told(error)}\nA search writes one, and so does "
            f"`nni_dynconv.export.save(mutator.freeze(sample), folder)`."
        ) from error


def example_in(folder: str | Path) -> Shown | None:
    """Read the example of a saved network: what it is called with, and what it made of that where it was saved.

    Parameters
    ----------
    folder
        As of :func:`load`.

    Returns
    -------
    ``None`` where an earlier version wrote the network, without an example.

    Raises
    ------
    ExportError
        There is no network, or one that is damaged.
    """
    try:
        description, files = read_folder(Path(folder), MAIN)
        return read_example(description["example"], files[EXAMPLE]) if "example" in description else None
    except Exception as error:
        raise ExportError(f"There is no example that can be read in `{folder}`: {_told(error)}") from error


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error}\nA search writes one, and so does `nni_dynconv.export.save(mutator.freeze(sample), folder)`."
    return str(error) if isinstance(error, DynConvError) else f"{type(error).__name__}: {error}"


# Writing


def _example_of(network: DynamicNetwork, example: Any) -> Example:
    """Return what the network is tried on."""
    if example is None:
        if network.source.seen is None:
            raise ExportError(
                "A network is saved once it has been tried, and there is nothing to try this one on: it has not been "
                "called yet. Call it once, or say what it is called with: "
                "`export.save(network, folder, example=(x, context))`."
            )
        return network.source.seen
    if isinstance(example, Call):
        return Example.of(example)
    args = () if isinstance(example, Mapping) else example if isinstance(example, tuple) else (example,)
    options = dict(example) if isinstance(example, Mapping) else {}
    return Example.of(network.takes.call(args, options, network.source.of_context is not None))


def _describe(network: DynamicNetwork, sample: Any, call: Call) -> tuple[dict[str, Any], dict[str, Tensor]]:
    source = network.source
    described, own = _describe_inside(network, sample, call)
    encoder, written = _write_encoder(source, call)
    description = {
        "format": FORMAT,
        "architecture": sample,
        "network": described,
        "encoder": encoder,
        "architecture_dim": dim_of(source.architecture),
        "controller": describe_controller(source.controller),
        "ops": {path: str(one.site) for path, one in _ops_of(network.network) if _is_inside(path, described)},
        "sites": [{**asdict(site), "recipe": asdict(source.recipes[name])} for name, site in source.sites.items()],
    }
    fixed = [name for name, one in network.named_parameters() if not one.requires_grad]
    description |= {"fixed": fixed} if fixed else {}
    state = network.network.state_dict() if "rebuilt" in described else _state_of(network.network)
    kept = [name for name in state if _is_inside(name, described)]
    tensors = {f"network.{name}": one for name, one in state.items() if name in kept}
    tensors |= {f"network.{name}": one for name, one in own.items()}
    tensors |= {f"encoder.{name}": one for name, one in written.items()}
    tensors |= {f"source.{name}": one for name, one in _own_tensors(source).items()}
    for name in described.get("ties", {}):
        tensors.pop(f"network.{name}", None)
    return description, tensors


def _describe_inside(network: DynamicNetwork, sample: Any, call: Call) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Describe a network without what makes its weights: as a graph, or else by its class."""
    try:
        return describe_network(network.network, call.args, call.kwargs, Example.of(call).drawn(1))
    except ExportError as error:
        try:
            rebuilt = describe_rebuilt(network.network, network.architecture)
        except (ExportError, TypeError, ValueError, AttributeError, LookupError) as other:
            raise ExportError(f"{error} Nor can it be kept by its class: {other}") from error
        module = type(network.network).__module__
        warnings.warn(
            f"It is saved by its class, and is read by who has and trusts that: `nni_dynconv.load(folder, "
            f'trust=["{module}"])`. {error}',
            stacklevel=4,
        )
        return {"rebuilt": rebuilt}, {}


def _is_inside(name: str, described: Mapping[str, Any]) -> bool:
    """Whether a tensor, or an op, is one of those that a description has."""
    if "rebuilt" in described:
        return True
    layers = described["layers"]
    return name in described["tensors"] or any(name.startswith(f"{path}.") or name == path for path in layers)


def _state_of(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, also those that are in no ``state_dict``, and those by several names."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    return {**network.state_dict(), **dict(network.named_buffers(remove_duplicate=False)), **parameters}


def _packed(
    description: dict[str, Any], tensors: Mapping[str, Tensor], sample: Any, example: bytes
) -> dict[str, bytes]:
    others = {
        EXAMPLE: example,
        TENSORS: tensors_as_bytes(tensors),
        ARCHITECTURE: (json.dumps({"architecture": sample}, indent=2) + "\n").encode(),
    }
    return pack(MAIN, description, others)


def _unpacked(files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    return unpack(MAIN, lambda name, known: files[name])


def tensors_as_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as safetensors; two names of one tensor are written twice, for it takes no shared memory."""
    return safetensors.torch.save({name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()})


def _ops_of(network: nn.Module) -> list[tuple[str, DynamicOp]]:
    return [(path, one) for path, one in network.named_modules() if isinstance(one, DynamicOp)]


def _own_tensors(source: WeightSource) -> dict[str, Tensor]:
    return {name: one for name, one in source.state_dict().items() if not name.startswith("encoder.")}


def _write_encoder(source: WeightSource, call: Call) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Return the description of an encoder, and its tensors."""
    encoder = source.encoder
    if encoder is None:
        return None, {}
    if source.own_input is not None:
        if type(encoder) is not OwnInputContext:
            raise ExportError(
                f"The context encoder {type(encoder).__name__} cannot be written: it would be read back as "
                f"the OwnInputContext that it inherits. Take `OwnInputContext` itself."
            )
        return {"own_input": source.own_input.inputs, "out_dim": source.context_dim}, encoder.state_dict()
    if name_of(type(encoder)) in OURS:
        return {**modules.describe_module(encoder, "the context encoder"), "out_dim": source.context_dim}, (
            encoder.state_dict()
        )
    alone = Call((Example.of(call).drawn(1).context,), {})
    described, own = describe_network(encoder, (call.context,), None, alone)
    tensors = {name: one for name, one in _state_of(encoder).items() if _is_inside(name, described)}
    return {"portable": described, "out_dim": source.context_dim}, {**tensors, **own}


def describe_controller(controller: Controller | None) -> dict[str, Any] | None:
    """Return a controller's class and settings, as data."""
    return None if controller is None else modules.describe_module(controller, "controller", complete=False)


# Reading


def _read(description: Mapping[str, Any], files: Mapping[str, bytes], trust: Collection[str]) -> DynamicNetwork:
    sample = json.loads(files[ARCHITECTURE].decode())["architecture"]
    shown = read_example(description["example"], files[EXAMPLE]) if "example" in description else None
    if description.get("architecture", sample) != sample:
        raise ExportError(f"`{ARCHITECTURE}` is of another architecture than `{MAIN}`.")
    tensors = safetensors.torch.load(files[TENSORS])
    with torch.random.fork_rng(devices=[]), Modest(sum(one.numel() for one in tensors.values()), len(tensors)):
        network = _make_network(description, sample, trust)
    ties = description["network"].get("ties", {})
    tensors |= {f"network.{name}": tensors[f"network.{other}"] for name, other in ties.items()}
    _fill(network, tensors_of_today(tensors, network.source, "source.", description["format"]))
    _tie(network.network, ties)
    if network.source.of_context is not None:
        _tie(network.source.of_context, description["encoder"].get("portable", {}).get("ties", {}))
    for name, one in network.named_parameters():
        one.requires_grad_(one.requires_grad and name not in description.get("fixed", ()))
    network.source.seen = None if shown is None else Example.of(shown.call)
    return network.eval()


def _make_network(description: Mapping[str, Any], sample: Any, trust: Collection[str]) -> DynamicNetwork:
    encoder = _read_encoder(description["encoder"], trust)
    dim = description.get("architecture_dim")
    architecture = None if dim is None else FixedArchitecture(torch.zeros(dim))
    sites = [_read_site(site) for site in description["sites"]]
    recipes = [Recipe(**site.get("recipe", {"base": description.get("base")})) for site in description["sites"]]
    controller = _make_controller(description["controller"], description["format"], trust)
    source = WeightSource(controller, encoder, sites, recipes, architecture)
    if description["format"] < FIRST_CHECKED:
        network: nn.Module = earlier_graph.make_network(description["network"], trust)
    elif "rebuilt" in description["network"]:
        network = make_rebuilt(description["network"]["rebuilt"], trust)
    else:
        network = Portable(description["network"], trust)
    for path, name in description["ops"].items():
        _stand_at(network, path, source.sites[name], told_whole=description["format"] >= FIRST_CHECKED)
    return DynamicNetwork(network, source, sample)


def _stand_at(network: nn.Module, path: str, site: Site, told_whole: bool) -> None:
    """Tell an op where it stands, once it is sure that it needs what is made there; format 1 tells less of that."""
    op = network.get_submodule(path)
    if not isinstance(op, DynamicOp) or _needs(op.weight_specs(), told_whole) != _needs(site.specs, told_whole):
        found = [f"{one.name} {one.shape}" for one in op.weight_specs()] if isinstance(op, DynamicOp) else type(op)
        told = [f"{one.name} {one.shape}" for one in site.specs]
        raise ExportError(f"`{path}` needs {found}, but at its site `{site.name}` {told} is made.")
    op.site = site.name


def _needs(specs: Sequence[WeightSpec], whole: bool) -> list[WeightSpec]:
    """Return specs without their fans: by those a file scales what is made, as the version that wrote it did."""
    plain = [replace(spec, fan_in=1, fan_out=None) for spec in specs]
    return plain if whole else [replace(spec, transposed=0, groups=1) for spec in plain]


def _fill(network: DynamicNetwork, tensors: Mapping[str, Tensor]) -> None:
    parts = {"network": network.network, "encoder": network.source.encoder, "source": network.source}
    known = tuple(f"{prefix}." for prefix, part in parts.items() if part is not None)
    for name in tensors:
        if not name.startswith(known):
            raise ExportError(f"There is a tensor `{name}`, which is nothing's.")
    for prefix, part in parts.items():
        if part is None:
            continue
        own = {name.removeprefix(f"{prefix}."): one for name, one in tensors.items() if name.startswith(f"{prefix}.")}
        if prefix == "source":
            own |= {f"encoder.{name}": one for name, one in _state(network.source.encoder).items()}
        _take_types(part, own)
        part.load_state_dict(own, assign=True)
        for one in part.modules():
            if isinstance(one, Portable):
                one.whole = True


def _take_types(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Bring a module to the types of the tensors that it is filled with, and with them what it makes by itself."""
    first = next((one.dtype for one in tensors.values() if one.is_floating_point()), None)
    if first is not None:
        module.to(first)
    for name, one in module.state_dict(keep_vars=True).items():
        if name not in tensors:
            continue
        if one.is_floating_point() != tensors[name].is_floating_point():
            raise ExportError(f"`{name}` is {tensors[name].dtype} in the file, but {one.dtype} in the network.")
        if one.dtype != tensors[name].dtype:
            one.data = one.data.to(tensors[name].dtype)


def _state(module: nn.Module | None) -> dict[str, Tensor]:
    return {} if module is None else module.state_dict(keep_vars=True)


def _tie(network: nn.Module, ties: Mapping[str, str]) -> None:
    """Let tensors that were one be one again."""
    for name, other in ties.items():
        owner, _, last = name.rpartition(".")
        there, _, kept = other.rpartition(".")
        one = getattr(network.get_submodule(there), kept)
        module = network.get_submodule(owner)
        (module._parameters if last in module._parameters else module._buffers)[last] = one


def _read_encoder(description: dict[str, Any] | None, trust: Collection[str]) -> nn.Module | None:
    if description is None:
        return None
    if "own_input" in description:
        own = OwnInputContext(description["out_dim"])
        own.bind(description["own_input"])
        return own
    encoder: Any
    if "nodes" in description:
        encoder = earlier_graph.make_network(description, trust)
    else:
        encoder = modules.make_module(description, trust)
    if getattr(encoder, "out_dim", None) != description["out_dim"]:
        encoder.out_dim = description["out_dim"]
    return encoder


def _make_controller(description: dict[str, Any] | None, written_as: int, trust: Collection[str]) -> Controller | None:
    if description is None:
        return None
    controller = modules.make_module(description, trust)
    if not isinstance(controller, Controller):
        raise ExportError(f"`{description['class']}` is no controller.")
    if written_as == 1 and isinstance(controller, ChunkedController):  # it had none, a class of one's own neither
        controller.signs = False
    return controller


def _read_site(data: Mapping[str, Any]) -> Site:
    specs = (WeightSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in data["specs"])
    grid = data.get("patch_grid")
    return Site(data["name"], data["op"], tuple(specs), None if grid is None else (int(grid[0]), int(grid[1])))
