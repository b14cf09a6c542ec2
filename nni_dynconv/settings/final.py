"""The end of a search, as settings: which of them go together."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import ConfigError, did_you_mean
from .parts import COSTS, StrategySettings

__all__ = ["check_final"]


def check_final(settings: StrategySettings, where: str, own: Collection[str] = ()) -> None:
    """Check that what is said of the end of a search goes together.

    Parameters
    ----------
    settings
        Of the right types.
    where
        Place of the settings, for the error's words.
    own
        Names of costs that are given beside the package's own.

    Raises
    ------
    ConfigError
        A cost is unknown or named twice, one is weighed that is no objective, or there is no objective to weigh.
    """
    objectives, importance = settings.objectives or [], settings.importance or {}
    for key, names in (("objectives", objectives), ("budget", settings.budget or {})):
        for name in names:
            if name not in (*COSTS, *own):
                raise ConfigError(f"Unknown cost `{name}` in `{key}` in {where}.{did_you_mean(name, (*COSTS, *own))}")
    if len(set(objectives)) < len(objectives):
        raise ConfigError(f"`objectives` in {where} are {objectives}: one of them is named twice.")
    if settings.pick == "knee" and not objectives:
        raise ConfigError(
            f"`pick` in {where} is 'knee', but there is no front to have one: `objectives` is empty. Name one, such as "
            f"`objectives: [multiply_adds]`, or leave `pick` out."
        )
    for name in importance:
        if settings.pick != "knee" or name not in objectives:
            raise ConfigError(
                f"`importance` in {where} weighs `{name}`, but `pick` is {settings.pick!r} and `objectives` are "
                f"{objectives}. Write `pick: knee` and name `{name}` among the objectives, or leave it out."
            )
