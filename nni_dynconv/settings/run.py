"""The settings of a run: ``tuner.classArgs`` of an experiment's YAML, which the tuner and each trial are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, get_args

from .fields import NAME, REFERENCE, Count, CountOrNone, Settings, about
from .named import CONTEXTS, CONTROLLERS, SAMPLERS, TABLES, Named, Part
from .recipe import MAKING_BUDGET, Base, Budget, Delta, Rank

__all__ = [
    "FREE_SECTIONS",
    "MODES",
    "MULTI_TRIAL_SAMPLERS",
    "TUNER_NAME",
    "WARM_UP_OPTIONS",
    "BaselineSettings",
    "HyperTunerSettings",
    "RunSettings",
]

TUNER_NAME = "DynamicWeightMutator"
Mode = Literal["one_shot", "multi_trial"]
OptimizeMode = Literal["maximize", "minimize"]
MODES = get_args(Mode)
MULTI_TRIAL_SAMPLERS = ("random", "enas")
WARM_UP_OPTIONS = (
    "gradient_clip_val",
    "log_every",
    "sandwich",
    "norm_affine",
    "on_not_finite",
    "on_error",
    "skip_limit",
    "diagnose_every",
)
"""Options of the strategy that the shared checkpoint of multi-trial mode is trained with: nothing is compared there."""
FREE_SECTIONS = ("space_args", "evaluator_args", "report_args")
"""Sections whose keys belong to the user's own functions, so that any key goes."""
Section = dict[str, Any]


def _part(table: Mapping[str, Part], *more: str) -> Any:
    return about(", ".join(f"`{name}`" for name in (*more, *table)) + ", or `module:Class`")


@dataclass(frozen=True)
class RunSettings(Settings):
    """The checked ``tuner.classArgs``; :meth:`to_dict` is what each trial receives as ``settings``."""

    mode: Annotated[
        Mode,
        about(
            "`one_shot`: each trial is a whole search. `multi_trial`: each trial evaluates one architecture",
            json_schema_extra=NAME,
        ),
    ]
    space: Annotated[str, about("`module:Class` of the model space", json_schema_extra=REFERENCE)]
    evaluator: Annotated[
        str, about("`module:function` that gives an NNI Lightning evaluator", json_schema_extra=REFERENCE)
    ]
    space_args: Annotated[Section, about("arguments of the space")] = field(default_factory=dict)
    evaluator_args: Annotated[Section, about("arguments of the evaluator")] = field(default_factory=dict)
    sampler: Annotated[Named, _part(SAMPLERS)] = field(default_factory=lambda: Named("gdas", {}, "sampler"))
    controller: Annotated[Named, _part(CONTROLLERS)] = field(default_factory=lambda: Named("chunked", {}, "controller"))
    context: Annotated[Named | None, _part(CONTEXTS, "null")] = None
    architecture: Annotated[
        Section | None, about("`{dim: 16}`: weights are made for the architecture they stand in")
    ] = None
    base: Base = "none"
    delta: Delta = "full"
    rank: Rank = 8
    making_budget: Budget = MAKING_BUDGET
    per_site: Annotated[
        dict[Any, Section],
        about('base, delta and rank by pattern of sites: `{"body/*": {delta: scale}}`; the first that matches counts'),
    ] = field(default_factory=dict)
    strategy: Annotated[
        Section,
        about(
            "options of the one-shot training, below; in multi-trial mode those of the shared checkpoint's: "
            + ", ".join(f"`{name}`" for name in WARM_UP_OPTIONS)
        ),
    ] = field(default_factory=dict)
    seed: Annotated[int, about("a trial adds the number of its proposal", ge=0)] = 0  # NNI's tuners take no negative
    metric: Annotated[
        str | None,
        about(
            "validation metric, as the evaluator logs it, that NNI is told: after each epoch, and in the end of the "
            "network that is saved; `null`: what the evaluator reports by itself"
        ),
    ] = None
    report: Annotated[
        str | None,
        about(
            "`module:function`, called as `report(mutator, sample, folder)` when a search has ended; one-shot only",
            json_schema_extra=REFERENCE,
        ),
    ] = None
    report_args: Annotated[Section, about("further arguments of the report")] = field(default_factory=dict)
    baselines: Annotated[
        Section | None,
        about(
            "`{random: 3}`, or `{}`: what was found is [compared](runs.md#is-it-worth-it) in the end, options below; "
            "`null`: with nothing; one-shot only"
        ),
    ] = None
    checkpoint: Annotated[
        str | None,
        about("folder of the shared supernet, relative to `trialCodeDirectory`; multi-trial only, and required there"),
    ] = None
    hyper_tuner: Annotated[
        Section | None, about("NNI tuner for `searchSpace`, such as `{name: TPE}`; `null`: `Random`; one-shot only")
    ] = None
    optimize_mode: Annotated[
        OptimizeMode, about("`maximize` or `minimize` the trials' result", json_schema_extra=NAME)
    ] = "maximize"

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, JSON-able, in the long form of the YAML (``sampler: {name: gdas}``)."""
        settings = {one.name: getattr(self, one.name) for one in fields(self)}
        for key in TABLES:
            settings[key] = settings[key].to_dict() if settings[key] is not None else None
        return settings


@dataclass(frozen=True)
class BaselineSettings(Settings):
    """``baselines``: what a found network is compared with, each trained from scratch for the same steps."""

    random: Annotated[CountOrNone, about("how many random architectures of the space")] = 3
    epochs: Annotated[
        Count | None, about("of each training; `null`: as many as the found network was trained for in the end")
    ] = None
    static: Annotated[bool, about("whether the same structure with learned weights is compared")] = True
    shuffled: Annotated[
        bool, about("whether what was found is also trained with each sample shown another's context")
    ] = True
    seed: Annotated[int, about("decides the random architectures, and the order of batches", ge=0)] = 0


@dataclass(frozen=True)
class HyperTunerSettings(Settings):
    """``hyper_tuner``: the NNI tuner that proposes what ``searchSpace`` holds in one-shot mode."""

    name: Annotated[str, about("of NNI, such as `TPE`")]
    classArgs: Annotated[Section, about("its arguments")] = field(default_factory=dict)  # noqa: N815 (NNI's own spelling)
