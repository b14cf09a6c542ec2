"""What a YAML may name: samplers, controllers and contexts, their classes and their typed settings; no torch.

One table of dotted names each, so that naming is not loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ..errors import ConfigError, did_you_mean
from .references import check_reference, load_object
from .typed import Range, as_mapping, check_keys, check_types, inside

__all__ = [
    "CONTEXTS",
    "CONTROLLERS",
    "SAMPLERS",
    "TABLES",
    "ArchitectureSettings",
    "Encoding",
    "Named",
    "Nesting",
    "Part",
    "Routing",
    "ScaleRule",
    "StrategySettings",
    "check_arguments",
    "parse_named",
]

Count = Annotated[int, Range(least=1)]
CountOrNone = Annotated[int, Range(least=0)]
Rate = Annotated[float, Range(least=0)]
Temperature = Annotated[float, Range(above=0)]
PositionDim = Annotated[int, Range(least=2, even=True)]  # as many sines as cosines


@dataclass(frozen=True)
class RandomSettings:
    """Settings of :class:`nni_dynconv.samplers.RandomSampler`."""

    seed: int | None = None


@dataclass(frozen=True)
class FairSettings:
    """Settings of :class:`nni_dynconv.samplers.FairSampler`."""

    seed: int | None = None


@dataclass(frozen=True)
class EnasSettings:
    """Settings of :class:`nni_dynconv.samplers.EnasSampler`."""

    seed: int | None = None
    hidden: Count = 64
    learning_rate: Rate = 0.01
    entropy_weight: Annotated[float, Range()] = 0.01
    entropy_weight_end: Annotated[float | None, Range()] = None
    baseline_decay: Annotated[float, Range(least=0, most=1)] = 0.9
    tanh_constant: Annotated[float, Range(above=0)] = 2.5


@dataclass(frozen=True)
class DartsSettings:
    """Settings of :class:`nni_dynconv.samplers.DartsSampler`."""

    seed: int | None = None
    learning_rate: Rate = 3e-3
    weight_decay: Rate = 0.0


@dataclass(frozen=True)
class GdasSettings:
    """Settings of :class:`nni_dynconv.samplers.GdasSampler`."""

    seed: int | None = None
    learning_rate: Rate = 0.02
    weight_decay: Rate = 0.0
    tau_start: Temperature = 4.0
    tau_end: Temperature = 0.5


ScaleRule = Literal["hyperfan_in", "hyperfan_out", "ghn", "torch"]
Encoding = Literal["layer_norm", "magnitude_invariant"]
Nesting = Literal["centre", "transform", "free"]
Routing = Literal["sigmoid", "softmax", "linear"]
Shares = Literal["site", "row"]


@dataclass(frozen=True)
class ChunkedSettings:
    """Settings of :class:`nni_dynconv.controllers.ChunkedController`."""

    chunk: Count = 64
    site_dim: Count = 16
    position_dim: PositionDim = 16
    hidden: Count = 128
    scale_rule: ScaleRule = "hyperfan_in"
    encoding: Encoding = "layer_norm"
    signs: bool = True


@dataclass(frozen=True)
class LowRankSettings:
    """Settings of :class:`nni_dynconv.controllers.LowRankController`."""

    rank: Count = 8
    chunk: Count = 32
    site_dim: Count = 16
    position_dim: PositionDim = 16
    hidden: Count = 128
    scale_rule: ScaleRule = "hyperfan_in"
    encoding: Encoding = "layer_norm"


@dataclass(frozen=True)
class CoordinateSettings:
    """Settings of :class:`nni_dynconv.controllers.CoordinateController`."""

    waves: Count = 64
    site_dim: Count = 16
    hidden: Count = 128
    nesting: Nesting = "centre"
    scale_rule: ScaleRule = "hyperfan_in"
    encoding: Encoding = "layer_norm"


@dataclass(frozen=True)
class FlatSettings:
    """Settings of :class:`nni_dynconv.controllers.FlatController`."""

    hidden: Count = 32
    scale_rule: ScaleRule = "hyperfan_in"
    encoding: Encoding = "layer_norm"


@dataclass(frozen=True)
class ExpertsSettings:
    """Settings of :class:`nni_dynconv.controllers.ExpertsController`."""

    experts: Count = 4
    routing: Routing = "sigmoid"
    shares: Shares = "site"
    scale_rule: ScaleRule = "hyperfan_in"
    encoding: Encoding = "layer_norm"


@dataclass(frozen=True)
class VectorContextSettings:
    """Settings of :class:`nni_dynconv.context.VectorContext`."""

    in_features: Count
    dim: Count


@dataclass(frozen=True)
class FeatureMapContextSettings:
    """Settings of :class:`nni_dynconv.context.FeatureMapContext`."""

    in_channels: Count
    dim: Count


@dataclass(frozen=True)
class SequenceContextSettings:
    """Settings of :class:`nni_dynconv.context.SequenceContext`."""

    in_features: Count
    dim: Count


@dataclass(frozen=True)
class OwnInputContextSettings:
    """Settings of :class:`nni_dynconv.context.OwnInputContext`."""

    dim: Count


@dataclass(frozen=True)
class Part:
    """A class that a YAML may name: where it is, and the dataclass of its settings."""

    dotted: str
    settings: type


SAMPLERS = {
    "random": Part("nni_dynconv.samplers:RandomSampler", RandomSettings),
    "fair": Part("nni_dynconv.samplers:FairSampler", FairSettings),
    "enas": Part("nni_dynconv.samplers:EnasSampler", EnasSettings),
    "darts": Part("nni_dynconv.samplers:DartsSampler", DartsSettings),
    "gdas": Part("nni_dynconv.samplers:GdasSampler", GdasSettings),
}
CONTROLLERS = {
    "chunked": Part("nni_dynconv.controllers:ChunkedController", ChunkedSettings),
    "low_rank": Part("nni_dynconv.controllers:LowRankController", LowRankSettings),
    "coordinate": Part("nni_dynconv.controllers:CoordinateController", CoordinateSettings),
    "flat": Part("nni_dynconv.controllers:FlatController", FlatSettings),
    "experts": Part("nni_dynconv.controllers:ExpertsController", ExpertsSettings),
}
CONTEXTS = {
    "vector": Part("nni_dynconv.context:VectorContext", VectorContextSettings),
    "feature_map": Part("nni_dynconv.context:FeatureMapContext", FeatureMapContextSettings),
    "sequence": Part("nni_dynconv.context:SequenceContext", SequenceContextSettings),
    "own_input": Part("nni_dynconv.context:OwnInputContext", OwnInputContextSettings),
}
TABLES = {"sampler": SAMPLERS, "controller": CONTROLLERS, "context": CONTEXTS}


@dataclass(frozen=True)
class StrategySettings:
    """Options of :meth:`nni_dynconv.DynamicWeightMutator.strategy`."""

    warmup_epochs: CountOrNone = 0
    gradient_clip_val: Annotated[float | None, Range(above=0, way_out="To clip none, leave it out.")] = None
    log_every: Count = 10
    contenders: CountOrNone = 32
    contender_batches: Annotated[int, Range(least=1, way_out="To compare none in the end, set `contenders` to 0.")] = 8
    rerank: CountOrNone = 5
    rerank_steps: Annotated[int, Range(least=1, way_out="To train none in the end, set `rerank` to 0.")] = 100
    calibration_batches: CountOrNone = 4
    norm_affine: bool = True
    smoothness: Annotated[float, Range(least=0)] = 0.0
    on_not_finite: Literal["stop", "skip"] = "stop"
    on_error: Literal["stop", "skip"] = "stop"
    skip_limit: CountOrNone = 100
    diagnose_every: CountOrNone = 0


@dataclass(frozen=True)
class ArchitectureSettings:
    """Settings of :class:`nni_dynconv.generation.architecture.ArchitectureEncoder`."""

    dim: Annotated[int, Range(least=2)]  # a code of one number, standardised, is zero


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


def check_arguments(part: object, settings: Any) -> None:
    """Check the arguments of a part's constructor, in the words in which its section of a YAML is checked.

    Parameters
    ----------
    part
        The object that is being made; its class is named in the error.
    settings
        The arguments, as the dataclass of the part's settings.

    Raises
    ------
    ConfigError
        One has the wrong type, or lies outside of its range.
    """
    check_types(vars(settings), type(settings), f"`{type(part).__name__}`")


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
