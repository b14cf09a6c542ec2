"""Write and read ``supernet.json`` and ``supernet.safetensors``: the shared checkpoint of multi-trial mode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch

from ..errors import ExportError
from ..generation import NAME, ChunkedController, dim_of, upgraded
from ..sites import Site
from .earlier import tensors_of_today
from .files import describe_controller, tensors_as_bytes
from .folder import FIRST_CHECKED, FORMAT, pack, read_folder, write_folder
from .renames import renamed

if TYPE_CHECKING:
    from ..supernet import DynamicWeightMutator

__all__ = ["load_supernet", "save_supernet"]

MAIN, TENSORS = "supernet.json", "supernet.safetensors"
FORMAT_1 = {"signs": False, "scale_rule": "hyperfan_in", "encoding": "layer_norm", "nonlinearity": "linear"}
"""The chunked controller of files that do not tell; their deltas are full, and no architecture is encoded."""
UNTIL_3 = {"nonlinearity": "linear"}
"""What any controller of files until format 3 is, which do not tell."""
FANS = ("fan_in", "fan_out")


def save_supernet(mutator: DynamicWeightMutator, folder: str | Path) -> None:
    """Write a mutator's supernet, controller included, as ``supernet.safetensors``, and what it is beside it.

    Parameters
    ----------
    mutator
        It stays as it is; the sampler is not part of the supernet.
    folder
        Made where it is missing.

    Raises
    ------
    ExportError
        The controller does not keep an argument of its constructor.
    """
    folder = Path(folder)
    description = _describe(mutator)
    choices = {label: list(choice.candidates) for label, choice in mutator.choices.items()}
    tensors = tensors_as_bytes(mutator.space.state_dict())
    scaled = {"scaled_as": _fans_of_earlier(mutator)}
    files = pack(MAIN, {"format": FORMAT, "choices": choices, **description, **scaled}, {TENSORS: tensors})
    write_folder(folder, MAIN, files)


def load_supernet(mutator: DynamicWeightMutator, folder: str | Path) -> None:
    """Read what :func:`save_supernet` wrote into a mutator of the same space, controller, bases and deltas.

    Parameters
    ----------
    mutator
        Its space gets the tensors, in place.
    folder
        With ``supernet.json`` and ``supernet.safetensors``.

    Raises
    ------
    ExportError
        There is no supernet, or one of another space or of other settings; the mutator is as before then.
    """
    ours = _describe(mutator)
    try:
        folder = Path(folder)
        written, files = read_folder(folder, MAIN)
        if written["format"] < FIRST_CHECKED:
            files = {TENSORS: (folder / TENSORS).read_bytes()}
        tensors: Any = safetensors.torch.load(files[TENSORS])
        if written["format"] == 1:
            ours, theirs = _in_format_1(mutator, ours)
        else:
            theirs = {key: written[key] for key in ours}
        then = written.get("scaled_as", {})
        if written["format"] in (2, 3):
            then, theirs = theirs["sites"], _of_today(theirs, ours)
        sites = [_as_then(site, then) for site in mutator.source.own_sites.values()]
        tensors = tensors_of_today(tensors, mutator.source, f"{NAME}.", written["format"])
        tensors = upgraded(mutator.space, tensors)
        if theirs["controller"] is not None:
            theirs["controller"] = {**theirs["controller"], "class": renamed(theirs["controller"]["class"])}
    except Exception as error:  # whatever is raised of what is damaged
        raise ExportError(
            f"There is no supernet that can be read in `{folder}`: {type(error).__name__}: {error}\nA one-shot search "
            f"writes one, and so does `nni_dynconv.export.save_supernet(mutator, folder)`."
        ) from error
    shapes = {name: list(one.shape) for name, one in mutator.space.state_dict().items()}
    _check_same(folder, ours, theirs)
    _check_same(folder, shapes, {name: list(one.shape) for name, one in tensors.items()})
    mutator.space.load_state_dict(tensors)
    mutator.source.rescale(sites)


def _describe(mutator: DynamicWeightMutator) -> dict[str, Any]:
    """Return what its tensors do not tell: their meaning depends on it, and their shapes do not."""
    source = mutator.source
    sites = {}
    for row, (name, site) in enumerate(source.own_sites.items()):
        recipe = asdict(source.recipes[name])
        if recipe["delta"] != "low_rank":
            recipe.pop("rank")  # it says nothing
        specs = {spec.name: asdict(spec) for spec in site.specs}
        sites[name] = {"row": row, "recipe": recipe, "op": site.op, "specs": specs}
    own = {
        "controller": describe_controller(source.controller),
        "context_dim": source.context_dim,
        "architecture_dim": dim_of(source.architecture),
        "sites": sites,
    }
    return json.loads(json.dumps(own))


def _fans_of_earlier(mutator: DynamicWeightMutator) -> dict[str, Any]:
    """Return sites whose tensors are scaled by the fans of an earlier version, as a description has sites."""
    source = mutator.source
    return {
        name: {"specs": {spec.name: {fan: getattr(spec, fan) for fan in FANS} for spec in site.specs}}
        for name, site in source.sites.items()
        if site != source.own_sites[name]
    }


def _in_format_1(mutator: DynamicWeightMutator, ours: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a mutator is, and what a supernet of format 1 is, beside what its tensors tell."""
    here, there = ours["controller"], ours["controller"]
    if isinstance(mutator.controller, ChunkedController):
        own = {name: getattr(mutator.controller, name) for name in FORMAT_1}  # a class of one's own may not take them
        here, there = ({**here, "args": {**here["args"], **settings}} for settings in (own, FORMAT_1))
    sites = {name: {**site, "recipe": {**site["recipe"], "delta": "full"}} for name, site in ours["sites"].items()}
    return {**ours, "controller": here}, {**ours, "controller": there, "architecture_dim": None, "sites": sites}


def _as_then(site: Site, sites: Mapping[str, Any]) -> Site:
    """Return a site with the fans that a file says: a kernel that no stride divides met more then."""
    specs = sites.get(site.name, {}).get("specs", {})
    fans = [{fan: specs.get(spec.name, vars(spec))[fan] for fan in FANS} for spec in site.specs]
    return replace(site, specs=tuple(replace(spec, **own) for spec, own in zip(site.specs, fans, strict=True)))


def _of_today(theirs: dict[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a supernet of format 2 or 3 is, without differences that its tensors or its fans make up for."""
    controller, sites = theirs["controller"], json.loads(json.dumps(theirs["sites"]))
    if controller is not None and ours["controller"] is not None:
        known = {name: value for name, value in UNTIL_3.items() if name in ours["controller"]["args"]}
        controller = {**controller, "args": {**known, **controller["args"]}}
    for name, site in ours["sites"].items():
        for spec, own in site["specs"].items():
            there = sites.get(name, {}).get("specs", {}).get(spec, {})
            there |= {fan: own[fan] for fan in FANS if fan in there}
    return {**theirs, "controller": controller, "sites": sites}


def _check_same(folder: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    found = next(_differences(ours, theirs), None)
    if found is not None:
        path, here, there = found
        raise ExportError(
            f"The supernet in `{folder}` is of another space or controller: `{path}` is {here} "
            f"here but {there} there. Delete the folder to make it anew, or use the settings that it was made with."
        )


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield where two descriptions differ, and what stands there in each."""
    for key in dict.fromkeys([*ours, *theirs]):
        here, there, place = ours.get(key), theirs.get(key), f"{path}.{key}".lstrip(".")
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            yield from _differences(here, there, place)
        elif here != there:
            yield place, _shown(here, key in ours), _shown(there, key in theirs)


def _shown(value: Any, known: bool) -> str:
    if not known:
        return "missing"
    return "given" if isinstance(value, Mapping) else str(value)
