"""Samplers, controllers and contexts by name: where their classes are, and what a YAML says of them.

One table of dotted names each, so that naming is not loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import ConfigError, did_you_mean
from . import parts
from .checking import as_mapping, check, inside
from .fields import Settings
from .references import check_reference, load_object

__all__ = ["CONTEXTS", "CONTROLLERS", "SAMPLERS", "TABLES", "Named", "Part", "parse_named"]


class Part(NamedTuple):
    """A class that a YAML may name: where it is, and the dataclass of its settings."""

    dotted: str
    settings: type[Settings]


SAMPLERS = {
    "random": Part("nni_dynconv.samplers:RandomSampler", parts.RandomSettings),
    "fair": Part("nni_dynconv.samplers:FairSampler", parts.FairSettings),
    "enas": Part("nni_dynconv.samplers:EnasSampler", parts.EnasSettings),
    "darts": Part("nni_dynconv.samplers:DartsSampler", parts.DartsSettings),
    "gdas": Part("nni_dynconv.samplers:GdasSampler", parts.GdasSettings),
}
CONTROLLERS = {
    "chunked": Part("nni_dynconv.controllers:ChunkedController", parts.ChunkedSettings),
    "low_rank": Part("nni_dynconv.controllers:LowRankController", parts.LowRankSettings),
    "coordinate": Part("nni_dynconv.controllers:CoordinateController", parts.CoordinateSettings),
    "experts": Part("nni_dynconv.controllers:ExpertsController", parts.ExpertsSettings),
    "basis": Part("nni_dynconv.controllers:BasisController", parts.BasisSettings),
    "flat": Part("nni_dynconv.controllers:FlatController", parts.FlatSettings),
}
CONTEXTS = {
    "vector": Part("nni_dynconv.context:VectorContext", parts.VectorContextSettings),
    "feature_map": Part("nni_dynconv.context:FeatureMapContext", parts.FeatureMapContextSettings),
    "patch": Part("nni_dynconv.context:PatchContext", parts.PatchContextSettings),
    "sequence": Part("nni_dynconv.context:SequenceContext", parts.SequenceContextSettings),
    "own_input": Part("nni_dynconv.context:OwnInputContext", parts.OwnInputContextSettings),
}
TABLES = {"sampler": SAMPLERS, "controller": CONTROLLERS, "context": CONTEXTS}


@dataclass(frozen=True)
class Named:
    """A part by name, with its settings: ``gdas`` or ``{name: gdas, learning_rate: 0.01}`` in the YAML.

    Parameters
    ----------
    name
        A name of the table, or ``module:Class``.
    args
        Keyword arguments of the class.
    kind
        ``sampler``, ``controller`` or ``context``: which table the name stands in.
    """

    name: str
    args: dict[str, Any]
    kind: str

    @property
    def dotted(self) -> str:
        """``module:Class`` of the class."""
        part = TABLES[self.kind].get(self.name)
        return part.dotted if part else self.name

    def build(self, **extra: Any) -> Any:
        """Import the class and make the object; ``extra`` fills in arguments that the settings leave open."""
        return load_object(self.dotted)(**{**extra, **self.args})

    def to_dict(self) -> dict[str, Any]:
        """The section as the YAML's long form has it."""
        return {"name": self.name, **self.args}


def parse_named(kind: str, section: Any, where: str) -> Named:
    """Read ``gdas`` or ``{name: gdas, ...}``; ``kind`` says which table the name stands in."""
    place = inside(where, kind)
    if isinstance(section, str):
        section = {"name": section}
    section = dict(as_mapping(section, place))
    name = section.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"Missing `name` in {place}.{did_you_mean('', TABLES[kind])}")
    if ":" in name:
        check_reference(name, place)
        return Named(name, section, kind)
    if name not in TABLES[kind]:
        hint = did_you_mean(name, TABLES[kind])
        raise ConfigError(f"Unknown {kind} `{name}` in {place}.{hint} (Your own class: `module:Class`.)")
    check(TABLES[kind][name].settings, section, place)
    return Named(name, section, kind)
