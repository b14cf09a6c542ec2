"""The settings of a run: ``tuner.classArgs`` of an experiment's YAML, which the tuner and each trial are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from ..errors import ConfigError, did_you_mean
from .checking import as_mapping, check, inside
from .fields import NAME, REFERENCE, Settings, about
from .named import SAMPLERS, TABLES, Named, parse_named
from .parts import ArchitectureSettings, StrategySettings
from .recipe import Base, Delta, Rank, check_settings
from .references import check_reference, check_source, short

__all__ = [
    "FREE_SECTIONS",
    "TUNER_NAME",
    "HyperTunerSettings",
    "RunSettings",
    "check_class_args",
    "check_end",
    "check_files",
]

TUNER_NAME = "DynamicWeightMutator"
Mode = Literal["one_shot", "multi_trial"]
MODES = get_args(Mode)
MULTI_TRIAL_SAMPLERS = ("random", "enas")
WARM_UP_OPTIONS = ("gradient_clip_val", "log_every", "norm_affine", "diagnose_every")
"""Options of the strategy that the shared checkpoint of multi-trial mode is trained with: nothing is compared there."""
FREE_SECTIONS = ("space_args", "evaluator_args", "report_args")
"""Sections whose keys belong to the user's own functions, so that any key goes."""
Free = dict[str, Any]


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
    space_args: Annotated[Free, about("arguments of the space")] = field(default_factory=dict)
    evaluator_args: Annotated[Free, about("arguments of the evaluator")] = field(default_factory=dict)
    sampler: Annotated[Named, about("`random`, `fair`, `enas`, `darts`, `gdas`, or `module:Class`")] = field(
        default_factory=lambda: Named("gdas", {}, "sampler")
    )
    controller: Annotated[Named, about("`chunked`, `low_rank`, `coordinate`, `experts`, `flat`, or `module:Class`")] = (
        field(default_factory=lambda: Named("chunked", {}, "controller"))
    )
    context: Annotated[
        Named | None, about("`null`, `vector`, `feature_map`, `sequence`, `own_input`, or `module:Class`")
    ] = None
    architecture: Annotated[Free | None, about("`{dim: 16}`: weights are made for the architecture they stand in")] = (
        None
    )
    base: Base = "none"
    delta: Delta = "full"
    rank: Rank = 8
    per_site: Annotated[
        dict[Any, Free],
        about(
            'these three by pattern of site names: `{"body/*": {delta: scale}}`; the first that matches counts',
        ),
    ] = field(default_factory=dict)
    strategy: Annotated[
        Free,
        about(
            "options of the one-shot training, below; in multi-trial mode those of the shared checkpoint's: "
            "`gradient_clip_val`, `log_every`, `norm_affine`, `diagnose_every`"
        ),
    ] = field(default_factory=dict)
    seed: Annotated[int, about("a trial adds the number of its proposal", ge=0)] = 0  # NNI's tuners take no negative
    metric: Annotated[
        str | None,
        about(
            "validation metric, as the evaluator logs it, that NNI is told: after each epoch, and in the end of the "
            "exported architecture; `null`: the evaluator reports by itself"
        ),
    ] = None
    report: Annotated[
        str | None,
        about(
            "`module:function`, called as `report(mutator, sample, folder)` when a search has ended; one-shot only",
            json_schema_extra=REFERENCE,
        ),
    ] = None
    report_args: Annotated[Free, about("further arguments of the report")] = field(default_factory=dict)
    checkpoint: Annotated[
        str | None,
        about("folder of the shared supernet, relative to `trialCodeDirectory`; multi-trial only, and required there"),
    ] = None
    hyper_tuner: Annotated[
        Free | None, about("NNI tuner for `searchSpace`, such as `{name: TPE}`; `null`: `Random`; one-shot only")
    ] = None
    optimize_mode: Annotated[
        Literal["maximize", "minimize"],
        about("`maximize` or `minimize` the trials' result", json_schema_extra=NAME),
    ] = "maximize"

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, JSON-able, in the long form of the YAML (``sampler: {name: gdas}``)."""
        settings = {one.name: getattr(self, one.name) for one in fields(self)}
        for key in TABLES:
            settings[key] = settings[key].to_dict() if settings[key] is not None else None
        return settings


@dataclass(frozen=True)
class HyperTunerSettings(Settings):
    """``hyper_tuner``: the NNI tuner that proposes what ``searchSpace`` holds in one-shot mode."""

    name: Annotated[str, about("of NNI, such as `TPE`")]
    classArgs: Annotated[Free, about("its arguments")] = field(default_factory=dict)  # noqa: N815 (NNI's own spelling)


def check_class_args(
    class_args: Mapping[str, Any], where: str = "section `tuner.classArgs`", code_directory: str | Path | None = None
) -> RunSettings:
    """Check the settings of a run; ``nni-dynconv check`` and the tuner's constructor both call this.

    Parameters
    ----------
    class_args
        What the YAML's ``tuner.classArgs`` holds.
    where
        Place of the section, for the error's words.
    code_directory
        The experiment's ``trialCodeDirectory``: ``module:Class`` is looked for there, and ``checkpoint`` is relative
        to it (the tuner and the trials know this directory, not the YAML's). ``None`` leaves both unchecked.

    Returns
    -------
    The settings, with every default filled in.

    Raises
    ------
    ConfigError
        A key is unknown or missing, a name is unknown, a value has the wrong type or lies outside of its range, or
        settings contradict each other.
    """
    given = as_mapping(class_args, where)
    settings = check(RunSettings, {key: value for key, value in given.items() if key not in TABLES}, where)
    named = [kind for kind in TABLES if given.get(kind) is not None]
    parts: dict[str, Any] = {kind: parse_named(kind, given[kind], where) for kind in named}
    recipe = {key: getattr(settings, key) for key in ("base", "delta", "rank", "per_site")}
    settings = replace(settings, **parts, per_site=check_settings(recipe, where)[1])
    _check_mode(settings, where)
    _check_sections(settings, where)
    if code_directory is not None:
        check_files(settings, where, Path(code_directory))
    return settings


def _check_mode(settings: RunSettings, where: str) -> None:
    if settings.mode == "multi_trial":
        _check_multi_trial(settings, where)
    elif settings.checkpoint is not None:
        raise ConfigError(
            f"`checkpoint` in {where} is for `mode: multi_trial`, but `mode` is `one_shot`. Leave it out."
        )


def _check_multi_trial(settings: RunSettings, where: str) -> None:
    name = settings.sampler.name
    if name in SAMPLERS and name not in MULTI_TRIAL_SAMPLERS:
        why = "trains all candidates of a supernet equally often" if name == "fair" else "learns from gradients"
        raise ConfigError(
            f"Sampler `{name}` in {inside(where, 'sampler')} {why}, and `mode: multi_trial` has only the trials' "
            f"results. Use {' or '.join(f'`{one}`' for one in MULTI_TRIAL_SAMPLERS)}, or `mode: one_shot`."
        )
    if settings.checkpoint is None:
        raise ConfigError(f"Missing `checkpoint` in {where}: `mode: multi_trial` starts each trial from a shared one.")
    for key in ("hyper_tuner", "report"):
        if getattr(settings, key) is not None:
            raise ConfigError(f"`{key}` in {where} is for `mode: one_shot`, but `mode` is `multi_trial`. Leave it out.")
    for key in settings.strategy:
        if key in {one.name for one in fields(StrategySettings)} - set(WARM_UP_OPTIONS):
            raise ConfigError(
                f"`{key}` in {inside(where, 'strategy')} is for `mode: one_shot`, but `mode` is `multi_trial`: there "
                f"trials compare architectures, and the supernet is only what they start from. Leave it out."
            )


def check_end(settings: RunSettings, trials: int | None, where: str) -> None:
    """Refuse a schedule over the trials of an experiment that does not say how many there are.

    Parameters
    ----------
    trials
        The experiment's ``maxTrialNumber``.
    where
        Place of the settings, for the error's words.

    Raises
    ------
    ConfigError
        A setting is to be reached when the last trial has ended, and there is no last one.
    """
    sampler = settings.sampler
    scheduled = sampler.name in SAMPLERS and sampler.args.get("entropy_weight_end") is not None
    if settings.mode == "multi_trial" and scheduled and trials is None:
        raise ConfigError(
            f"`entropy_weight_end` in {inside(where, 'sampler')} is reached with the last trial, but the experiment "
            f"has no `maxTrialNumber`. Give it one, or leave `entropy_weight_end` out."
        )


def _check_sections(settings: RunSettings, where: str) -> None:
    check(StrategySettings, settings.strategy, inside(where, "strategy"))
    if settings.architecture is not None:
        check(ArchitectureSettings, settings.architecture, inside(where, "architecture"))
    _check_smoothness(settings, where)
    for key in ("space", "evaluator", "report"):
        if getattr(settings, key) is not None:
            check_reference(getattr(settings, key), where, key)
    if settings.hyper_tuner is not None:
        _check_hyper_tuner(settings.hyper_tuner, inside(where, "hyper_tuner"))


def _check_smoothness(settings: RunSettings, where: str) -> None:
    weight, place = settings.strategy.get("smoothness", 0.0), inside(where, "strategy")
    if weight and (settings.context is None or settings.context.name == "own_input"):
        name = "null" if settings.context is None else settings.context.name
        raise ConfigError(
            f"`smoothness` in {place} is {weight}, but `context` is `{name}`: no context is given that could change "
            f"over time. Name another one, such as `context: {{name: vector, in_features: 8, dim: 16}}`, or leave "
            f"`smoothness` out."
        )


def _check_hyper_tuner(section: Mapping[str, Any], where: str) -> None:
    from nni.tools.package_utils import get_all_algo_meta

    check(HyperTunerSettings, section, where)
    known = [meta.name for meta in get_all_algo_meta() if meta.algo_type == "tuner" and meta.name != TUNER_NAME]
    if section["name"].lower() not in [name.lower() for name in known]:
        raise ConfigError(f"Unknown tuner `{section['name']}` in {where}.{did_you_mean(section['name'], known)}")


def check_files(settings: RunSettings, where: str, code_directory: Path) -> None:
    references = [("space", settings.space), ("evaluator", settings.evaluator), ("report", settings.report)]
    references += [(kind, named.name) for kind in TABLES if (named := getattr(settings, kind)) is not None]
    for key, reference in references:
        if reference is not None and ":" in reference:
            check_source(reference, key, where, code_directory)
    if settings.checkpoint is not None and not (code_directory / settings.checkpoint).exists():
        raise ConfigError(
            f"`checkpoint` in {where} is `{settings.checkpoint}`, but {short(code_directory / settings.checkpoint)} "
            f"does not exist. Make it with `nni-dynconv warmup CONFIG`, or let `nni-dynconv launch CONFIG` make it."
        )
