"""What a YAML may name: samplers, controllers and contexts, their classes and their typed settings; no torch.

One table of dotted names each, so that naming is not loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import ConfigError, did_you_mean
from .references import check_reference, load_object
from .typed import as_mapping, check_keys, check_types, inside

__all__ = ["CONTEXTS", "CONTROLLERS", "SAMPLERS", "TABLES", "Named", "Part", "StrategySettings", "parse_named"]


@dataclass(frozen=True)
class RandomSettings:
    """Settings of :class:`nni_dynconv.samplers.RandomSampler`."""

    seed: int | None = None


@dataclass(frozen=True)
class EnasSettings:
    """Settings of :class:`nni_dynconv.samplers.EnasSampler`."""

    seed: int | None = None
    hidden: int = 64
    learning_rate: float = 0.01
    entropy_weight: float = 0.01
    baseline_decay: float = 0.9
    tanh_constant: float = 2.5


@dataclass(frozen=True)
class DartsSettings:
    """Settings of :class:`nni_dynconv.samplers.DartsSampler`."""

    seed: int | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 0.0


@dataclass(frozen=True)
class GdasSettings:
    """Settings of :class:`nni_dynconv.samplers.GdasSampler`."""

    seed: int | None = None
    learning_rate: float = 0.02
    weight_decay: float = 0.0
    tau_start: float = 4.0
    tau_end: float = 0.5


@dataclass(frozen=True)
class ChunkedSettings:
    """Settings of :class:`nni_dynconv.controllers.ChunkedController`."""

    chunk: int = 32
    site_dim: int = 16
    position_dim: int = 16
    hidden: int = 128


@dataclass(frozen=True)
class VectorContextSettings:
    """Settings of :class:`nni_dynconv.context.VectorContext`."""

    in_features: int
    dim: int


@dataclass(frozen=True)
class FeatureMapContextSettings:
    """Settings of :class:`nni_dynconv.context.FeatureMapContext`."""

    in_channels: int
    dim: int


@dataclass(frozen=True)
class SequenceContextSettings:
    """Settings of :class:`nni_dynconv.context.SequenceContext`."""

    in_features: int
    dim: int


@dataclass(frozen=True)
class Part:
    """A class that a YAML may name: where it is, and the dataclass of its settings."""

    dotted: str
    settings: type


SAMPLERS = {
    "random": Part("nni_dynconv.samplers:RandomSampler", RandomSettings),
    "enas": Part("nni_dynconv.samplers:EnasSampler", EnasSettings),
    "darts": Part("nni_dynconv.samplers:DartsSampler", DartsSettings),
    "gdas": Part("nni_dynconv.samplers:GdasSampler", GdasSettings),
}
CONTROLLERS = {"chunked": Part("nni_dynconv.controllers:ChunkedController", ChunkedSettings)}
CONTEXTS = {
    "vector": Part("nni_dynconv.context:VectorContext", VectorContextSettings),
    "feature_map": Part("nni_dynconv.context:FeatureMapContext", FeatureMapContextSettings),
    "sequence": Part("nni_dynconv.context:SequenceContext", SequenceContextSettings),
}
TABLES = {"sampler": SAMPLERS, "controller": CONTROLLERS, "context": CONTEXTS}


@dataclass(frozen=True)
class StrategySettings:
    """Options of :meth:`nni_dynconv.DynamicWeightMutator.strategy`."""

    warmup_epochs: int = 0
    gradient_clip_val: float | None = None
    log_every: int = 10
    contenders: int = 32
    contender_batches: int = 8


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
    table = TABLES[kind][name].settings
    check_keys(section, table, place)
    check_types(section, table, place)
    return Named(name, section, kind)
