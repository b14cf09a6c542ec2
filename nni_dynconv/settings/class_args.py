"""The check of a run's settings: what goes together, and what is there; keys, types and ranges are its tables'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean
from .checking import as_mapping, check, inside, settings_of
from .final import check_final
from .named import SAMPLERS, TABLES, parse_named
from .parts import ArchitectureSettings, StrategySettings
from .recipe import check_settings
from .references import check_reference, check_source, short
from .run import MULTI_TRIAL_SAMPLERS, TUNER_NAME, WARM_UP_OPTIONS, BaselineSettings, HyperTunerSettings, RunSettings

__all__ = ["check_class_args", "check_end", "check_files"]


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
    if "auto" in {settings.delta, *(one.get("delta") for one in settings.per_site.values())}:
        raise ConfigError(
            f"`delta` in {where} is `auto`, which each process would pick by its own measurements, but in `mode: "
            f"multi_trial` all share one supernet. Name a delta, by `delta` and `per_site`."
        )
    name = settings.sampler.name
    if name in SAMPLERS and name not in MULTI_TRIAL_SAMPLERS:
        why = "trains all candidates of a supernet equally often" if name == "fair" else "learns from gradients"
        raise ConfigError(
            f"Sampler `{name}` in {inside(where, 'sampler')} {why}, and `mode: multi_trial` has only the trials' "
            f"results. Use {' or '.join(f'`{one}`' for one in MULTI_TRIAL_SAMPLERS)}, or `mode: one_shot`."
        )
    if settings.checkpoint is None:
        raise ConfigError(f"Missing `checkpoint` in {where}: `mode: multi_trial` starts each trial from a shared one.")
    for key in ("hyper_tuner", "report", "baselines"):
        if getattr(settings, key) is not None:
            raise ConfigError(f"`{key}` in {where} is for `mode: one_shot`, but `mode` is `multi_trial`. Leave it out.")
    for key in settings.strategy:
        if key in settings_of(StrategySettings) and key not in WARM_UP_OPTIONS:
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
    check_final(check(StrategySettings, settings.strategy, inside(where, "strategy")), inside(where, "strategy"))
    if settings.architecture is not None:
        check(ArchitectureSettings, settings.architecture, inside(where, "architecture"))
    if settings.baselines is not None:
        check(BaselineSettings, settings.baselines, inside(where, "baselines"))
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
