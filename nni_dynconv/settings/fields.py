"""What tables of settings are made of: their base, and the types that many settings have."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

__all__ = ["NAME", "REFERENCE", "Count", "CountOrNone", "Positive", "Rate", "Settings", "about"]

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]

# What the JSON Schema says beyond the type; what starts with `x-` is for our own words
REFERENCE: dict[str, Any] = {"pattern": "^[^:]+:[^:]+$"}
NAME: dict[str, Any] = {"x-name": True}
"""Of a ``Literal`` whose error is the one of a name: ``Unknown `mode` `oneshot` in ...``."""


class Settings:
    """Base of a table of settings: a frozen dataclass, by which pydantic checks what is given, and converts nothing.

    A setting is ``hidden: Annotated[Count, about("width of the MLP")] = 128``; what is wrong with it is told by
    :func:`~nni_dynconv.settings.checking.check`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def about(meaning: str, way_out: str = "", **more: Any) -> Any:
    """Return what is known of a setting beyond its type.

    Parameters
    ----------
    meaning
        For docs/yaml.md and for editors, in Markdown.
    way_out
        A sentence for the error: what to do instead. Without one the error tells the default.
    **more
        Of pydantic's ``Field``: ``ge``, ``gt``, ``le``, ``multiple_of``, ``json_schema_extra``.
    """
    if way_out:
        more["json_schema_extra"] = {"x-way-out": way_out}
    return Field(description=meaning, **more)
