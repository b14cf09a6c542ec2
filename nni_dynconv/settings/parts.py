"""What samplers, controllers, contexts and the strategy are told, in a YAML or by their constructors; no torch.

The tables of docs/yaml.md and the JSON Schema are made of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from .checking import check
from .fields import Count, CountOrNone, Positive, Rate, Settings, about

__all__ = [
    "COSTS",
    "ArchitectureSettings",
    "BasisSettings",
    "ChunkedSettings",
    "CoordinateSettings",
    "DartsSettings",
    "EnasSettings",
    "Encoding",
    "ExpertsSettings",
    "FairSettings",
    "FeatureMapContextSettings",
    "FlatSettings",
    "GdasSettings",
    "LowRankSettings",
    "Nesting",
    "Nonlinearity",
    "OwnInputContextSettings",
    "PatchContextSettings",
    "RandomSettings",
    "Routing",
    "ScaleRule",
    "SequenceContextSettings",
    "Shares",
    "StrategySettings",
    "VectorContextSettings",
    "check_arguments",
]

Mixture = Literal["dirichlet", "softmax"]
Seed = Annotated[int | None, about("decides what is drawn, and what a policy starts with")]


@dataclass(frozen=True)
class RandomSettings(Settings):
    """Settings of :class:`nni_dynconv.samplers.RandomSampler`."""

    seed: Seed = None


@dataclass(frozen=True)
class FairSettings(Settings):
    """Settings of :class:`nni_dynconv.samplers.FairSampler`."""

    seed: Seed = None


@dataclass(frozen=True)
class EnasSettings(Settings):
    """Settings of :class:`nni_dynconv.samplers.EnasSampler`."""

    seed: Seed = None
    hidden: Annotated[Count, about("width of the LSTM")] = 64
    learning_rate: Annotated[Rate, about("of Adam, one step a reward")] = 0.01
    entropy_weight: Annotated[float, about("keeps the policy from settling early")] = 0.01
    entropy_weight_end: Annotated[
        float | None, about("that weight at the end, to which it goes in a line; `null`: the same throughout")
    ] = None
    baseline_decay: Annotated[float, about("of the moving averages of rewards", ge=0, le=1)] = 0.9
    tanh_constant: Annotated[Positive, about("bound of the logits")] = 2.5


@dataclass(frozen=True)
class DartsSettings(Settings):
    """Settings of :class:`nni_dynconv.samplers.DartsSampler`."""

    seed: Seed = None
    learning_rate: Annotated[Rate, about("of the architecture's Adam")] = 3e-3
    weight_decay: Annotated[Rate, about("of the same; of `dirichlet`, DrNAS's anchor at the start")] = 0.0
    mixture: Annotated[
        Mixture,
        about(
            "`dirichlet`: the shares of candidates are drawn anew in each step, from a distribution that learns; "
            "`softmax`: they are those of DARTS"
        ),
    ] = "dirichlet"
    beta_decay: Annotated[
        Rate, about("of `softmax`: weight of a penalty on large logits (beta-DARTS), to which it goes up in a line")
    ] = 0.0
    unroll: Annotated[
        Rate,
        about("step of the weights that the held-out loss is looked at after (DARTS of second order); 0: first order"),
    ] = 0.0


@dataclass(frozen=True)
class GdasSettings(Settings):
    """Settings of :class:`nni_dynconv.samplers.GdasSampler`."""

    seed: Seed = None
    learning_rate: Annotated[Rate, about("of the architecture's Adam")] = 0.02
    weight_decay: Annotated[Rate, about("of the same")] = 0.0
    tau_start: Annotated[Positive, about("temperature of the factor's gradient when learning begins")] = 4.0
    tau_end: Annotated[Positive, about("that temperature when it ends, to which it falls in a line")] = 0.5
    paths: Annotated[
        Count,
        about(
            "architectures whose losses are compared on one held-out batch; 1: none, the gradient goes through the "
            "factor, and a norm behind a choice cancels it"
        ),
    ] = 2


ScaleRule = Literal["hyperfan_in", "hyperfan_out", "ghn", "torch"]
Nonlinearity = Literal["linear", "relu", "leaky_relu", "tanh", "selu", "sigmoid"]
Encoding = Literal["layer_norm", "magnitude_invariant"]
Nesting = Literal["centre", "transform", "free"]
Routing = Literal["sigmoid", "softmax", "linear"]
Shares = Literal["site", "row"]

SiteDim = Annotated[Count, about("length of a site's embedding")]
# as many sines as cosines
PositionDim = Annotated[int, about("length of a chunk's encoded position", ge=2, multiple_of=2)]
Width = Annotated[Count, about("width of the MLP")]
Size = Annotated[
    ScaleRule,
    about("`hyperfan_in`, `hyperfan_out`, `ghn` or `torch`: [size at the start](weights.md#which-controller)"),
]
Nonlinear = Annotated[
    Nonlinearity,
    about(
        "what stands between layers, as torch's `calculate_gain` names it: under `hyperfan_in` and `hyperfan_out` its "
        "gain makes up for what it takes away"
    ),
]
Encoded = Annotated[Encoding, about("`layer_norm` or `magnitude_invariant`: how the context is brought to one size")]


@dataclass(frozen=True)
class ChunkedSettings(Settings):
    """Settings of :class:`nni_dynconv.controllers.ChunkedController`."""

    chunk: Annotated[Count, about("values made at a time")] = 64
    site_dim: SiteDim = 16
    position_dim: PositionDim = 16
    hidden: Width = 128
    scale_rule: Size = "hyperfan_in"
    encoding: Encoded = "layer_norm"
    signs: Annotated[
        bool, about("whether chunks are made uncorrelated, by signs of each site's and position's own")
    ] = True
    nonlinearity: Nonlinear = "linear"


@dataclass(frozen=True)
class BasisSettings(Settings):
    """Settings of :class:`nni_dynconv.controllers.BasisController`."""

    basis: Annotated[Count, about("sets of weights for each site, made once a step")] = 8
    shares: Annotated[
        Shares, about("`site`: one mixture for each site; `row`: one for each row of a weight, say each output channel")
    ] = "site"
    chunk: Annotated[Count, about("values of the basis made at a time")] = 64
    site_dim: SiteDim = 16
    position_dim: PositionDim = 16
    hidden: Annotated[Count, about("width of the two MLPs")] = 128
    scale_rule: Size = "hyperfan_in"
    encoding: Encoded = "layer_norm"
    nonlinearity: Nonlinear = "linear"


@dataclass(frozen=True)
class LowRankSettings(Settings):
    """Settings of :class:`nni_dynconv.controllers.LowRankController`."""

    rank: Annotated[Count, about("of each weight, at most")] = 8
    chunk: Annotated[Count, about("values of the two factors made at a time")] = 32
    site_dim: SiteDim = 16
    position_dim: PositionDim = 16
    hidden: Width = 128
    scale_rule: Size = "hyperfan_in"
    encoding: Encoded = "layer_norm"
    nonlinearity: Nonlinear = "linear"


@dataclass(frozen=True)
class CoordinateSettings(Settings):
    """Settings of :class:`nni_dynconv.controllers.CoordinateController`."""

    waves: Annotated[Count, about("how many waves a weight is the sum of; its rank is twice that at most")] = 64
    site_dim: SiteDim = 16
    hidden: Width = 128
    nesting: Annotated[Nesting, about("`centre`, `transform` or `free`: how a small kernel lies in a large one")] = (
        "centre"
    )
    scale_rule: Size = "hyperfan_in"
    encoding: Encoded = "layer_norm"
    nonlinearity: Nonlinear = "linear"


@dataclass(frozen=True)
class FlatSettings(Settings):
    """Settings of :class:`nni_dynconv.controllers.FlatController`."""

    hidden: Annotated[Count, about("width of the trunk")] = 32
    scale_rule: Size = "hyperfan_in"
    encoding: Encoded = "layer_norm"
    nonlinearity: Nonlinear = "linear"


@dataclass(frozen=True)
class ExpertsSettings(Settings):
    """Settings of :class:`nni_dynconv.controllers.ExpertsController`."""

    experts: Annotated[Count, about("sets of weights for each site")] = 4
    routing: Annotated[
        Routing, about("`sigmoid`: experts add up; `softmax`: they compete; `linear`: shares have a sign")
    ] = "sigmoid"
    shares: Annotated[
        Shares, about("`site`: one mixture for each site; `row`: one for each row of a weight, say each output channel")
    ] = "site"
    scale_rule: Size = "hyperfan_in"
    encoding: Encoded = "layer_norm"
    nonlinearity: Nonlinear = "linear"


CodeDim = Annotated[Count, about("length of the code that the controller sees")]


@dataclass(frozen=True)
class VectorContextSettings(Settings):
    """Settings of :class:`nni_dynconv.context.VectorContext`."""

    in_features: Annotated[Count, about("length of the vector")]
    dim: CodeDim


@dataclass(frozen=True)
class FeatureMapContextSettings(Settings):
    """Settings of :class:`nni_dynconv.context.FeatureMapContext`."""

    in_channels: Annotated[Count, about("channels of the map")]
    dim: CodeDim


@dataclass(frozen=True)
class PatchContextSettings(Settings):
    """Settings of :class:`nni_dynconv.context.PatchContext`."""

    in_channels: Annotated[Count, about("channels of the map")]
    dim: CodeDim
    grid: Annotated[Count, about("codes along its height, and along its width")]


@dataclass(frozen=True)
class SequenceContextSettings(Settings):
    """Settings of :class:`nni_dynconv.context.SequenceContext`."""

    in_features: Annotated[Count, about("length of one element")]
    dim: CodeDim


@dataclass(frozen=True)
class OwnInputContextSettings(Settings):
    """Settings of :class:`nni_dynconv.context.OwnInputContext`."""

    dim: CodeDim


@dataclass(frozen=True)
class ArchitectureSettings(Settings):
    """Settings of :class:`nni_dynconv.generation.architecture.ArchitectureEncoder`."""

    # one number would be a few steps of one scale
    dim: Annotated[int, about("length of the architecture's code", ge=2)]


OnFault = Literal["stop", "skip"]
FinalSearch = Literal["draws", "evolution"]
Pick = Literal["loss", "knee"]
Proxy = Literal["synflow", "jacob_cov"]
COSTS = ("multiply_adds", "parameters", "generated", "seconds")
"""What an architecture costs, by the names in which a YAML has them."""
FinalStart = Literal["generated", "scratch"]


@dataclass(frozen=True)
class StrategySettings(Settings):
    """Options of :meth:`nni_dynconv.DynamicWeightMutator.strategy`."""

    warmup_epochs: Annotated[CountOrNone, about("epochs before the sampler starts to learn")] = 0
    gradient_clip_val: Annotated[
        Positive | None,
        about(
            "norm that the evaluator's gradients are clipped to; `null`: none", way_out="To clip none, leave it out."
        ),
    ] = None
    log_every: Annotated[Count, about("steps between two logs of entropy and probabilities")] = 10
    contenders: Annotated[
        CountOrNone,
        about(
            "how many architectures are compared in the end; of a sampler that has learned, the most probable `rerank`"
        ),
    ] = 32
    contender_batches: Annotated[
        Count,
        about(
            "validation batches that measure each, the same ones for all",
            way_out="To compare none in the end, set `contenders` to 0.",
        ),
    ] = 8
    final_search: Annotated[
        FinalSearch,
        about(
            "`draws` of the sampler, or [`evolution`](last_step.md#evolution-over-the-trained-supernet): where the "
            "architectures come from that are compared in the end"
        ),
    ] = "draws"
    population: Annotated[int, about("of evolution: how many architectures are parents", ge=2)] = 20
    evaluations: Annotated[Count, about("of evolution: how many architectures it measures, at most")] = 400
    mutation: Annotated[float, about("of evolution: probability that a choice is made anew", ge=0, le=1)] = 0.1
    crossover: Annotated[float, about("of evolution: share of children that have two parents", ge=0, le=1)] = 0.5
    objectives: Annotated[
        list[str] | None,
        about(
            "what counts [besides the held-out loss](last_step.md#several-objectives): "
            + ", ".join(f"`{name}`" for name in COSTS),
            json_schema_extra={"items": {"enum": [*COSTS]}},
        ),
    ] = None
    budget: Annotated[
        dict[str, Positive] | None,
        about("the most that an architecture may cost that is compared or exported: `{multiply_adds: 2e6}`"),
    ] = None
    pick: Annotated[
        Pick, about("which architecture of the front wins: the one with the lowest `loss`, or the `knee`")
    ] = "loss"
    importance: Annotated[
        dict[str, Rate] | None, about("how much an objective weighs in `knee`, where the loss has 1: `{seconds: 0.5}`")
    ] = None
    proxy: Annotated[
        Proxy | None,
        about(
            "`synflow` or `jacob_cov`: [which of the draws](last_step.md#zero-cost-proxies) are measured; `null`: all"
        ),
    ] = None
    proxy_draws: Annotated[Count, about("how many draws the proxy looks at for each that is measured")] = 4
    rerank: Annotated[CountOrNone, about("how many of the best are trained in the end; 0: none")] = 5
    rerank_steps: Annotated[
        Count, about("for how many steps each", way_out="To train none in the end, set `rerank` to 0.")
    ] = 100
    calibration_batches: Annotated[
        CountOrNone,
        about("training batches that gather BatchNorm's statistics anew before an architecture is measured in the end"),
    ] = 4
    sandwich: Annotated[
        CountOrNone,
        about(
            "drawn architectures that each step of the weights takes [beside the largest and the smallest]"
            "(last_step.md#the-sandwich-rule); 0: one drawn architecture alone"
        ),
    ] = 0
    final_epochs: Annotated[
        CountOrNone | None,
        about(
            "for how many epochs the evaluator then [trains what was found](runs.md#the-end-of-a-search); `null`: its "
            "own number; 0: the network is not trained"
        ),
    ] = None
    final_start: Annotated[
        FinalStart,
        about(
            "`generated`: that training starts from the weights that re-ranking ended with; `scratch`: from new ones"
        ),
    ] = "generated"
    norm_affine: Annotated[bool, about("`false`: the affine maps of BatchNorms do not learn during the search")] = True
    smoothness: Annotated[
        Rate,
        about(
            "weight of the [penalty](trust.md#how-far-to-trust-a-ranking) on weights that jump between the "
            "moments of a batch; 0: none"
        ),
    ] = 0.0
    on_not_finite: Annotated[
        OnFault,
        about(
            "`stop` or `skip`: what becomes of a step whose loss or gradient is "
            "[no finite number](trust.md#steps-that-bring-no-numbers)"
        ),
    ] = "stop"
    on_error: Annotated[OnFault, about("`stop` or `skip`: what becomes of an architecture that raises an error")] = (
        "stop"
    )
    skip_limit: Annotated[CountOrNone, about("how many steps may be left out before the search stops all the same")] = (
        100
    )
    diagnose_every: Annotated[CountOrNone, about("epochs between two [diagnoses](trust.md#is-it-healthy); 0: none")] = 0
    checkpoint_minutes: Annotated[
        Rate, about("minutes between two [checkpoints](runs.md#a-run-that-was-killed) inside an epoch")
    ] = 10.0


def check_arguments(part: object, settings: Settings) -> None:
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
    check(type(settings), vars(settings), f"`{type(part).__name__}`")
