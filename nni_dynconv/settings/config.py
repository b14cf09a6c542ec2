"""Typed settings of a run (``tuner.classArgs``) and the check of a whole experiment's YAML.

Everything here works on plain data: neither torch nor Lightning nor ``nni.nas`` is imported, so that the tuner
process can check its settings before it has connected to NNI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import yaml

from ..errors import ConfigError, did_you_mean
from .parts import SAMPLERS, TABLES, ArchitectureSettings, Named, StrategySettings, parse_named
from .recipe import Recipe, check_recipe, check_settings
from .references import check_reference, check_source, short
from .typed import Range, as_mapping, check_keys, check_types, inside, require

__all__ = [
    "RunSettings",
    "check_class_args",
    "check_config",
    "check_end",
    "check_search_space",
    "code_directory_of",
    "load_yaml",
]

TUNER_NAME = "DynamicWeightMutator"
MODES = ("one_shot", "multi_trial")
OPTIMIZE_MODES = ("maximize", "minimize")
MULTI_TRIAL_SAMPLERS = ("random", "enas")
WARM_UP_OPTIONS = ("gradient_clip_val", "log_every", "norm_affine", "diagnose_every")
"""Options of the strategy that the shared checkpoint of multi-trial mode is trained with: nothing is compared there."""
FREE_SECTIONS = ("space_args", "evaluator_args", "report_args")
"""Sections whose keys belong to the user's own functions, so that any key goes."""


@dataclass(frozen=True)
class RunSettings:
    """The checked ``tuner.classArgs``; :meth:`to_dict` is what each trial receives as ``settings``."""

    mode: str
    space: str
    evaluator: str
    space_args: dict[str, Any] = field(default_factory=dict)
    evaluator_args: dict[str, Any] = field(default_factory=dict)
    sampler: Named = field(default_factory=lambda: Named("gdas", {}, "sampler"))
    controller: Named = field(default_factory=lambda: Named("chunked", {}, "controller"))
    context: Named | None = None
    architecture: dict[str, Any] | None = None
    base: str = "none"
    delta: str = "full"
    rank: int = 8
    per_site: dict[str, dict[str, Any]] = field(default_factory=dict)
    strategy: dict[str, Any] = field(default_factory=dict)
    seed: Annotated[int, Range(least=0)] = 0  # NNI's tuners take no negative one
    metric: str | None = None
    report: str | None = None
    report_args: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    hyper_tuner: dict[str, Any] | None = None
    optimize_mode: str = "maximize"

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, JSON-able, in the long form of the YAML (``sampler: {name: gdas}``)."""
        settings = {one.name: getattr(self, one.name) for one in fields(self)}
        for key in TABLES:
            settings[key] = settings[key].to_dict() if settings[key] is not None else None
        return settings


@dataclass(frozen=True)
class HyperTunerSettings:
    """``hyper_tuner``: the NNI tuner that proposes what ``searchSpace`` holds in one-shot mode."""

    name: str
    classArgs: dict[str, Any] = field(default_factory=dict)  # noqa: N815 (NNI's own spelling)


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
    check_keys(given, RunSettings, where)
    values = {key: value for key, value in given.items() if key not in TABLES}
    values |= {key: "none" for key in ("base", "delta") if key in given and given[key] is None}
    check_types(values, RunSettings, where)
    for key, section in given.items():
        if key in TABLES and section is not None:
            values[key] = parse_named(key, section, where)
    values |= _check_recipes(values, where)
    settings = RunSettings(**values)
    _check_choices(settings, where)
    _check_sections(settings, where)
    if code_directory is not None:
        _check_files(settings, where, Path(code_directory))
    return settings


def _check_recipes(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return how weights come about, checked."""
    keys = [*(one.name for one in fields(Recipe)), "per_site"]
    default, per_site = check_settings({key: values[key] for key in keys if key in values}, where)
    return {**asdict(default), "per_site": per_site}


def _check_choices(settings: RunSettings, where: str) -> None:
    for key, allowed in (("mode", MODES), ("optimize_mode", OPTIMIZE_MODES)):
        value = getattr(settings, key)
        if value not in allowed:
            raise ConfigError(f"Unknown `{key}` `{value}` in {where}.{did_you_mean(value, allowed)}")
    if settings.mode == "one_shot" and settings.checkpoint is not None:
        raise ConfigError(
            f"`checkpoint` in {where} is for `mode: multi_trial`, but `mode` is `one_shot`. Leave it out."
        )
    if settings.mode == "multi_trial":
        _check_multi_trial(settings, where)


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
    check_keys(settings.strategy, StrategySettings, inside(where, "strategy"))
    check_types(settings.strategy, StrategySettings, inside(where, "strategy"))
    if settings.architecture is not None:
        check_keys(settings.architecture, ArchitectureSettings, inside(where, "architecture"))
        check_types(settings.architecture, ArchitectureSettings, inside(where, "architecture"))
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

    check_keys(section, HyperTunerSettings, where)
    check_types(section, HyperTunerSettings, where)
    known = [meta.name for meta in get_all_algo_meta() if meta.algo_type == "tuner" and meta.name != TUNER_NAME]
    if section["name"].lower() not in [name.lower() for name in known]:
        raise ConfigError(f"Unknown tuner `{section['name']}` in {where}.{did_you_mean(section['name'], known)}")


def _check_files(settings: RunSettings, where: str, code_directory: Path) -> None:
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


# ---------------------------------------------------------------------------------------------------------------------
# A whole experiment: the YAML that `nnictl create --config` reads


def check_config(path: str | Path, checkpoint_needed: bool = True) -> RunSettings:
    """Check a whole experiment YAML, ours and NNI's own parts.

    Parameters
    ----------
    path
        The YAML file.
    checkpoint_needed
        ``False`` lets the shared checkpoint of multi-trial mode be missing, for whoever is about to make it.

    Raises
    ------
    ConfigError
        The first thing that is wrong, where it is, and the way out.
    """
    document = load_yaml(path)
    _check_experiment_keys(document, path)
    tuner = as_mapping(require(document, "tuner", str(path)), f"{path}, section `tuner`")
    if str(tuner.get("name", "")).lower() != TUNER_NAME.lower():
        found = tuner.get("name", tuner.get("className"))
        raise ConfigError(f"`tuner.name` in {path} is `{found}`, but this project's tuner is `{TUNER_NAME}`.")
    code_directory = code_directory_of(document, path)
    class_args = as_mapping(tuner.get("classArgs") or {}, f"{path}, section `tuner.classArgs`")
    where = f"{path}, section `tuner.classArgs`"
    settings = check_class_args(class_args, where)
    _check_files(settings if checkpoint_needed else replace(settings, checkpoint=None), where, code_directory)
    check_search_space(_search_space(document, path), settings, str(path))
    _check_trial_command(document, path)
    check_end(settings, _check_with_nni(path).max_trial_number, where)
    return settings


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping; a file that is missing or broken is told in words."""
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror or error}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    return dict(as_mapping(document, str(path)))


def code_directory_of(document: Mapping[str, Any], path: str | Path) -> Path:
    """Return the absolute ``trialCodeDirectory``; NNI takes it as relative to the YAML."""
    service = document.get("trainingService")
    given = service.get("trialCodeDirectory") if isinstance(service, Mapping) else None
    given = given or document.get("trialCodeDirectory", ".")
    directory = (Path(path).resolve().parent / Path(str(given)).expanduser()).resolve()
    if not directory.is_dir():
        raise ConfigError(f"`trialCodeDirectory` in {path} is `{given}`, but {short(directory)} is no directory.")
    return directory


def check_search_space(search_space: Any, settings: RunSettings, where: str) -> None:
    """Check that a ``searchSpace`` holds hyper-parameters that this run has: dotted names of its settings."""
    place = f"{where}, section `searchSpace`"
    space = as_mapping(search_space if search_space is not None else {}, place)
    if settings.mode == "multi_trial" and space:
        raise ConfigError(
            f"`searchSpace` in {where} must be `{{}}` in `mode: multi_trial`, but has `{next(iter(space))}`: there the "
            f"sampler chooses among the architectures of `{settings.space}`."
        )
    for key, value in space.items():
        _check_hyper_parameter(key, settings, place)
        if not isinstance(value, Mapping) or not {"_type", "_value"} <= set(value):
            raise ConfigError(f"`{key}` in {place} is {value!r}, but must be a mapping with `_type` and `_value`.")
        if value["_type"] == "choice" and isinstance(value["_value"], list):
            for one in value["_value"]:
                _check_candidate(key, one, settings, place)


def _check_candidate(key: str, value: Any, settings: RunSettings, place: str) -> None:
    """Check a value that a trial would be given for a setting; those of the user's own classes are free."""
    head, _, tail = key.partition(".")
    part = getattr(settings, head, None) if head in TABLES else None
    tables = {"strategy": StrategySettings, "architecture": ArchitectureSettings}
    if part is not None and part.name in TABLES[head]:
        tables[head] = TABLES[head][part.name].settings
    own = inside(place, key)
    if head in tables:
        check_types({tail: value}, tables[head], own)
    elif key in [one.name for one in fields(Recipe)]:
        check_recipe({key: value}, own)
    elif key == "seed":
        check_types({key: value}, RunSettings, own)


def _check_hyper_parameter(key: str, settings: RunSettings, place: str) -> None:
    head, _, tail = str(key).partition(".")
    if head in FREE_SECTIONS and tail:
        return
    part = getattr(settings, head, None) if head in TABLES else None
    if part is not None and part.name not in TABLES[head] and tail:
        return
    known = hyper_parameters(settings)
    if key not in known:
        free = f" Or any `{'.x`, `'.join(FREE_SECTIONS)}.x`."
        raise ConfigError(f"Unknown setting `{key}` in {place}.{did_you_mean(key, known)}{free}")


def hyper_parameters(settings: RunSettings) -> list[str]:
    """Dotted names that a ``searchSpace`` may hold under these settings, but for those of the user's own classes."""
    known = ["seed", "base", "delta", "rank"]
    if settings.architecture is not None:
        known += [f"architecture.{one.name}" for one in fields(ArchitectureSettings)]
    for kind, table in TABLES.items():
        part = getattr(settings, kind)
        if part is not None and part.name in table:
            known += [f"{kind}.{one.name}" for one in fields(table[part.name].settings)]
    return known + [f"strategy.{one.name}" for one in fields(StrategySettings)]


def with_hyper_parameters(settings: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the settings (long form) with dotted hyper-parameters put in their places.

    >>> with_hyper_parameters({"sampler": {"name": "gdas"}, "seed": 0}, {"sampler.learning_rate": 0.1, "seed": 3})
    {'sampler': {'name': 'gdas', 'learning_rate': 0.1}, 'seed': 3}
    """
    merged = _copy(settings)
    for key, value in values.items():
        *path, last = key.split(".")
        section = merged
        for name in path:
            section = section.setdefault(name, {})
        section[last] = value
    return merged


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value


def _search_space(document: Mapping[str, Any], path: str | Path) -> Any:
    if "searchSpaceFile" in document:
        return load_yaml(Path(path).resolve().parent / str(document["searchSpaceFile"]))
    return require(document, "searchSpace", str(path), " (`{}` when there is nothing to search)")


def _check_experiment_keys(document: Mapping[str, Any], path: str | Path) -> None:
    from nni.experiment.config import ExperimentConfig

    known = [_camel(one.name) for one in fields(ExperimentConfig)]
    plain = {name.lower() for name in known}
    for key in document:
        if str(key).replace("_", "").lower() not in plain:
            raise ConfigError(f"Unknown key `{key}` in {path}.{did_you_mean(key, known)}")


def _check_trial_command(document: Mapping[str, Any], path: str | Path) -> None:
    service = document.get("trainingService")
    service = service if isinstance(service, Mapping) else {}
    command = service.get("trialCommand") or document.get("trialCommand")
    if not isinstance(command, str) or not command.strip():
        raise ConfigError(f"Missing `trialCommand` in {path}: `python3 -m nni_dynconv.trial` is the usual one.")
    program = command.split()[0]
    if service.get("platform") == "local" and not _is_command(program):
        raise ConfigError(f"`trialCommand` in {path} starts with `{program}`, which is no command on this machine.")


def _is_command(program: str) -> bool:
    """Whether the shell that NNI runs the command in knows its first word; what is not a plain word, it may."""
    if not program.replace("_", "").replace("-", "").replace(".", "").isalnum() or shutil.which("bash") is None:
        return True
    env = {**os.environ, "PATH": search_path()}
    return subprocess.run(["bash", "-c", 'type -- "$0"', program], env=env, capture_output=True).returncode == 0


def search_path() -> str:
    """``PATH`` with this Python's directory first, so that ``python3`` of a trial is the Python of this process."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _check_with_nni(path: str | Path) -> Any:
    """Let NNI judge its own part of the YAML, and tell its verdict without its traceback; return what it read."""
    from nni.experiment.config import ExperimentConfig

    try:
        config = ExperimentConfig.load(path)
        config.json()
    except Exception as error:
        raise ConfigError(f"NNI refuses {path}: {str(error) or type(error).__name__}") from None
    return config


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)
