"""A whole experiment: the YAML that ``nnictl create --config`` reads, our part of it and NNI's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel

from ..errors import ConfigError, did_you_mean
from .checking import as_mapping, require
from .class_args import check_class_args, check_end, check_files
from .hyper_parameters import check_search_space
from .reading import load_yaml
from .references import short
from .run import TUNER_NAME, RunSettings

__all__ = ["check_config", "code_directory_of", "search_path"]


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
    from nni.experiment.config import AlgorithmConfig, ExperimentConfig

    document = _in_nnis_spelling(load_yaml(path), ExperimentConfig, str(path))
    place = f"{path}, section `tuner`"
    tuner = _in_nnis_spelling(require(document, "tuner", str(path)), AlgorithmConfig, place)
    if str(tuner.get("name", "")).lower() != TUNER_NAME.lower():
        found = tuner.get("name", tuner.get("className"))
        raise ConfigError(f"`tuner.name` in {path} is `{found}`, but this project's tuner is `{TUNER_NAME}`.")
    code_directory, where = code_directory_of(document, path), f"{path}, section `tuner.classArgs`"
    settings = check_class_args(tuner.get("classArgs") or {}, where)
    check_files(settings if checkpoint_needed else replace(settings, checkpoint=None), where, code_directory)
    check_search_space(_search_space(document, path), settings, str(path))
    _check_trial_command(document, path)
    check_end(settings, _check_with_nni(document, path).max_trial_number, where)
    return settings


def code_directory_of(document: Mapping[str, Any], path: str | Path) -> Path:
    """Return the absolute ``trialCodeDirectory``; NNI takes it as relative to the YAML."""
    service = document.get("trainingService")
    given = service.get("trialCodeDirectory") if isinstance(service, Mapping) else None
    given = given or document.get("trialCodeDirectory", ".")
    directory = (Path(path).resolve().parent / Path(str(given)).expanduser()).resolve()
    if not directory.is_dir():
        raise ConfigError(f"`trialCodeDirectory` in {path} is `{given}`, but {short(directory)} is no directory.")
    return directory


def _search_space(document: Mapping[str, Any], path: str | Path) -> Any:
    if "searchSpaceFile" in document:
        return load_yaml(Path(path).resolve().parent / str(document["searchSpaceFile"]))
    return require(document, "searchSpace", str(path), " (`{}` when there is nothing to search)")


def _in_nnis_spelling(section: Any, table: type, where: str) -> dict[str, Any]:
    """Return a section of NNI's with its keys as NNI's documentation spells them; NNI reads them in any case.

    Raises
    ------
    ConfigError
        NNI's dataclass of the section has no such key.
    """
    known = {one.name.replace("_", ""): to_camel(one.name) for one in fields(table)}
    spelt = {}
    for key, value in as_mapping(section, where).items():
        plain = str(key).replace("_", "").lower()
        if plain not in known:
            raise ConfigError(f"Unknown key `{key}` in {where}.{did_you_mean(key, known.values())}")
        spelt[known[plain]] = value
    return spelt


def _check_service(section: Any, where: str) -> None:
    from nni.experiment.config import training_services, utils

    platform = require(as_mapping(section, where), "platform", where)
    try:
        table = type(utils.training_service_config_factory(platform))
    except ValueError:
        known = [one.platform for one in vars(training_services).values() if hasattr(one, "platform")]
        raise ConfigError(f"Unknown `platform` `{platform}` in {where}.{did_you_mean(platform, known)}") from None
    _in_nnis_spelling(section, table, where)


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


def _check_with_nni(document: Mapping[str, Any], path: str | Path) -> Any:
    """Let NNI judge its own part of the YAML, and tell its verdict without its traceback; return what it read."""
    from nni.experiment.config import ExperimentConfig, utils

    service = require(document, "trainingService", str(path))
    for one in service if isinstance(service, list) else [service]:
        _check_service(one, f"{path}, section `trainingService`")
    try:
        config = ExperimentConfig.load(path)
        config.json()
    except Exception as error:
        said = str(error) or traceback.extract_tb(error.__traceback__)[-1].line  # an `assert` says nothing
        raise ConfigError(f"NNI refuses {path}: {said}") from None
    finally:
        utils.unset_base_path()  # which NNI forgets where it refuses, and then refuses whatever it reads next
    return config
