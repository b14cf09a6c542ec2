"""Write the tables of ``docs/yaml.md`` and the JSON Schema of YAMLs: ``python docs/make_yaml_tables.py``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from nni_dynconv.settings import TABLES, BaselineSettings, Named, RunSettings, StrategySettings
from nni_dynconv.settings.checking import range_of, settings_of
from nni_dynconv.settings.schema import SCHEMA_FILE, experiment_schema

PAGE = Path(__file__).with_name("yaml.md")


def run_table() -> Iterator[str]:
    """Return the lines of the table of ``tuner.classArgs``."""
    yield "| key | default | meaning |"
    yield "| --- | --- | --- |"
    for one in fields(RunSettings):
        yield f"| `{one.name}` | {default_of(one)} | {settings_of(RunSettings)[one.name]['description']} |"


def parts_table() -> Iterator[str]:
    """Return the lines of the table of every part's settings."""
    seed = settings_of(TABLES["sampler"]["random"].settings)["seed"]["description"]
    yield "| part | setting | default | range | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    yield f"| every sampler | `seed` | `null`: the run's `seed` | | {seed} |"
    parts = [(name, part.settings) for table in TABLES.values() for name, part in table.items()]
    for name, table in [*parts, ("strategy", StrategySettings), ("baselines", BaselineSettings)]:
        for one in fields(table):
            if one.name != "seed" or name == "baselines":
                yield row(name, one, settings_of(table)[one.name])


def row(part: str, one: Field[Any], setting: dict[str, Any]) -> str:
    """Return the line of a setting of a part."""
    cells = (f"`{part}`", f"`{one.name}`", default_of(one), range_of(setting), setting["description"])
    return re.sub(r"\|  \|", "| |", f"| {' | '.join(cells)} |")


def default_of(one: Field[Any]) -> str:
    """Return a setting's default as a YAML has it."""
    if one.default is MISSING and one.default_factory is MISSING:
        return "required"
    default = one.default if one.default_factory is MISSING else one.default_factory()
    default = default.name if isinstance(default, Named) else default
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def page(text: str) -> str:
    """Return the page with its tables made anew: what stands after the comment that names one."""
    for name, lines in (("RunSettings", run_table()), ("parts", parts_table())):
        table = "".join(f"{line}\n" for line in lines)
        text = re.sub(rf"(?<=<!-- table: {name} -->\n\n)(?:\|.*\n)+", lambda _, table=table: table, text)
    return text


def schema() -> str:
    """Return the text of the JSON Schema's file."""
    return json.dumps(experiment_schema(), indent=2) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    SCHEMA_FILE.write_text(schema(), encoding="utf-8")
