"""The JSON Schema of a whole experiment's YAML, by which editors complete and check: of our tables, and of NNI's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema

from .checking import settings_of
from .fields import REFERENCE
from .named import TABLES
from .parts import ArchitectureSettings, StrategySettings
from .recipe import Recipe
from .run import (
    FREE_SECTIONS,
    MULTI_TRIAL_SAMPLERS,
    TUNER_NAME,
    WARM_UP_OPTIONS,
    BaselineSettings,
    HyperTunerSettings,
    RunSettings,
)

__all__ = ["SCHEMA_FILE", "experiment_schema"]

SCHEMA_FILE = Path(__file__).with_name("experiment.schema.json")
"""What :func:`experiment_schema` gives, as it ships."""
PARTS = {name: part.settings for table in TABLES.values() for name, part in table.items()}
REPLACED = ("Named", "TrainingServiceConfig")  # by what may stand for a part, and by the services that there are
Schema = dict[str, Any]


def experiment_schema() -> Schema:
    """Return the JSON Schema (draft 7) of the YAML that ``nnictl create --config`` reads.

    NNI's own keys are those of its dataclasses, in the spelling of its documentation; NNI itself takes others too.
    """
    definitions, services = _definitions()
    experiment = definitions.pop("ExperimentConfig")
    for name, table in PARTS.items():
        _add_name(definitions[table.__name__], name)
    for one in (definitions["Recipe"], definitions["RunSettings"]):
        for key in ("base", "delta"):
            one["properties"][key] = {"enum": [*one["properties"][key]["enum"], None]} | _meaning(one, key)
    _add_sections(definitions["RunSettings"])
    definitions |= {"SearchSpace": _search_space(), "HyperParameter": _hyper_parameter()}
    service = {"anyOf": [_ref(one) for one in services]}
    experiment["properties"] |= {
        "searchSpace": _ref("SearchSpace"),
        "trainingService": {"anyOf": [*service["anyOf"], {"type": "array", "items": service}]},
        "tuner": _object({"name": {"const": TUNER_NAME}, "classArgs": _ref("RunSettings")}),
    }
    experiment["required"] += ["tuner"]
    experiment["anyOf"] = [{"required": ["searchSpace"]}, {"required": ["searchSpaceFile"]}]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **experiment, "$defs": definitions}


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def union_schema(self, schema: Any) -> Schema:
        """Sort what may stand: `typing` gives a union as somebody wrote it first, anywhere in the process."""
        found = super().union_schema(schema)
        return {key: sorted(one, key=json.dumps) if key == "anyOf" else one for key, one in found.items()}


def _definitions() -> tuple[dict[str, Schema], list[str]]:
    """Return the schemas of all tables by their names, and which of them are NNI's training services."""
    from nni.experiment.config import ExperimentConfig, training_services

    services = [one for one in vars(training_services).values() if hasattr(one, "platform")]
    sections = [StrategySettings, ArchitectureSettings, HyperTunerSettings, BaselineSettings]
    ours = [RunSettings, *sections, Recipe, *PARTS.values()]
    adapters: list[Any] = [(one, "validation", TypeAdapter(one)) for one in (ExperimentConfig, *services, *ours)]
    found = TypeAdapter.json_schemas(adapters, schema_generator=_Untitled)[1]["$defs"]
    names = [one.__name__ for one in ours]
    tables = {name: _clean(one) for name, one in found.items() if name not in REPLACED}
    definitions = {name: one if name in names else _in_nnis_spelling(one) for name, one in tables.items()}
    given_above = definitions["ExperimentConfig"]["properties"]
    for service in services:
        one = definitions[service.__name__]
        one["required"] = ["platform", *(key for key in one["required"] if key not in given_above)]
    return definitions, [service.__name__ for service in services]


def _clean(schema: Schema) -> Schema:
    """Return a table's schema without what is for Python, and for docs/yaml.md: an editor follows no links."""
    properties = {
        key: {name: value for name, value in one.items() if not name.startswith("x-")}
        for key, one in schema["properties"].items()
    }
    for one in properties.values():
        if "description" in one:
            one["description"] = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one["description"])
    return _object(properties, schema.get("required", []))


def _in_nnis_spelling(schema: Schema) -> Schema:
    properties = {to_camel(key): one for key, one in schema["properties"].items()}
    return _object(properties, [to_camel(key) for key in schema["required"]])


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    needed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _meaning(table: Schema, key: str) -> Schema:
    return {name: value for name, value in table["properties"][key].items() if name in ("default", "description")}


def _add_name(table: Schema, name: str) -> None:
    table["properties"] = {"name": {"const": name}, **table["properties"]}
    table["required"] = ["name", *table["required"]]


def _add_sections(run: Schema) -> None:
    """Say what stands in the sections of ``classArgs``, and what the mode decides."""
    null = {"type": "null"}
    sections: Schema = {
        "strategy": _ref("StrategySettings"),
        "architecture": {"anyOf": [_ref("ArchitectureSettings"), null]},
        "hyper_tuner": {"anyOf": [_ref("HyperTunerSettings"), null]},
        "baselines": {"anyOf": [_ref("BaselineSettings"), null]},
        "per_site": {"type": "object", "additionalProperties": _ref("Recipe")},
        **{kind: _part(kind) for kind in TABLES},
    }
    for key, one in sections.items():
        run["properties"][key] = {"allOf": [one], **_meaning(run, key)} if "$ref" in one else one | _meaning(run, key)
    others = [name for name in TABLES["sampler"] if name not in MULTI_TRIAL_SAMPLERS]
    gradients = {"anyOf": [{"enum": [*others, None]}, {"type": "object", "properties": {"name": {"enum": others}}}]}
    compared = [key for key in settings_of(StrategySettings) if key not in WARM_UP_OPTIONS]
    run["if"] = {"properties": {"mode": {"const": "multi_trial"}}, "required": ["mode"]}
    run["then"] = {
        "properties": {
            "sampler": {"not": gradients},
            "strategy": {"properties": dict.fromkeys(compared, False)},
            **dict.fromkeys(("report", "hyper_tuner", "baselines"), null),
        },
        "required": ["sampler", "checkpoint"],
    }
    run["else"] = {"properties": {"checkpoint": null}}


def _part(kind: str) -> Schema:
    """Return what may stand for a part: a bare name, or a mapping with its settings; one of the package's or not."""
    tables: dict[str, type] = {name: part.settings for name, part in TABLES[kind].items()}
    bare = [name for name, table in tables.items() if all("default" in one for one in settings_of(table).values())]
    own = {"type": "object", "properties": {"name": {"type": "string", **REFERENCE}}, "required": ["name"]}
    mappings = [_ref(table.__name__) for table in tables.values()]
    return {"anyOf": [{"enum": [*bare, None]}, {"type": "string", **REFERENCE}, *mappings, own]}


def _search_space() -> Schema:
    heads: dict[str, list[type]] = {"strategy": [StrategySettings], "architecture": [ArchitectureSettings]}
    heads |= {kind: [part.settings for part in table.values()] for kind, table in TABLES.items()}
    dotted = [f"{head}.{key}" for head, tables in heads.items() for table in tables for key in settings_of(table)]
    keys = dict.fromkeys(["seed", "base", "delta", "rank", *dotted], _ref("HyperParameter"))
    of_ones_own = f"^({'|'.join([*TABLES, *FREE_SECTIONS])})\\..+"
    return {**_object(keys, []), "type": ["object", "null"], "patternProperties": {of_ones_own: _ref("HyperParameter")}}


def _hyper_parameter() -> Schema:
    from nni.common.hpo_utils.validation import common_search_space_types

    return _object({"_type": {"enum": common_search_space_types}, "_value": {"type": "array"}})
