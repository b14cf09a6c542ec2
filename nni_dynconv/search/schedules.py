"""Learning-rate schedules of an evaluator, stepped when Lightning would, metric-based ones too."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

from pytorch_lightning import Trainer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..errors import ConfigError

__all__ = ["Schedules", "schedules_in"]


def schedules_in(configured: Any) -> list[dict[str, Any]]:
    """Return the schedules in whatever form Lightning's ``configure_optimizers`` may give them, each as a mapping.

    Examples
    --------
    >>> schedules_in(([], ["falling"])) == schedules_in({"lr_scheduler": "falling"}) == [{"scheduler": "falling"}]
    True
    """
    if isinstance(configured, Mapping):
        found = configured.get("lr_scheduler")
        if found is None:
            return []
        monitor = {"monitor": configured["monitor"]} if "monitor" in configured else {}
        return [{**monitor, **_mapping(found)}]
    if isinstance(configured, (list, tuple)) and len(configured) == 2 and isinstance(configured[0], (list, tuple)):
        return [_mapping(one) for one in configured[1]]
    return [one for some in configured for one in schedules_in(some)] if isinstance(configured, (list, tuple)) else []


def _mapping(one: Any) -> dict[str, Any]:
    return dict(one) if isinstance(one, Mapping) else {"scheduler": one}


class Schedules:
    """Steps schedules where optimization is by hand, as in a search: Lightning leaves them alone, and drops monitors.

    Attributes
    ----------
    monitors
        Of the schedules that go by a metric: its name, and whether it must be there.
    """

    def __init__(self) -> None:
        self.monitors: dict[int, tuple[str, bool]] = {}

    def take(self, configured: Any) -> list[dict[str, Any]]:
        """Return an evaluator's schedules without what Lightning drops, which is kept here.

        Raises
        ------
        ConfigError
            One goes by a metric, and names none.
        """
        found = schedules_in(configured)
        self.monitors = {}
        for one in found:
            if one.pop("reduce_on_plateau", isinstance(one["scheduler"], ReduceLROnPlateau)):
                if "monitor" not in one:
                    raise ConfigError(
                        'A `ReduceLROnPlateau` of the evaluator names no metric. Give `{"scheduler": ..., "monitor": '
                        '"val_loss"}`.'
                    )
                self.monitors[id(one["scheduler"])] = one["monitor"], one.get("strict", True)
            one.pop("monitor", None)
            one.pop("strict", None)
        return found

    def step(
        self, trainer: Trainer, module: Any, interval: Literal["step", "epoch"], number: int, metric: bool
    ) -> None:
        """Step the schedules that are due.

        Parameters
        ----------
        module
            The evaluator's, whose ``lr_scheduler_step`` is called.
        interval, number
            What has ended, and how many of it.
        metric
            Whether those are due that go by a metric, or the others: one of validation is known only after it.

        Raises
        ------
        ConfigError
            Nothing logs the metric of one.
        """
        for one in trainer.lr_scheduler_configs:
            monitored = self.monitors.get(id(one.scheduler))
            if one.interval != interval or number % one.frequency or (monitored is not None) != metric:
                continue
            value = None if monitored is None else self._value(trainer, *monitored)
            if value is not None or monitored is None:
                module.lr_scheduler_step(one.scheduler, value)

    def _value(self, trainer: Trainer, name: str, strict: bool) -> Any:
        value = trainer.callback_metrics.get(name)
        if value is None:
            known = sorted(one for one in trainer.callback_metrics if not one.startswith("prob/"))
            words = f"A learning-rate schedule monitors `{name}`, but what is logged is {known}."
            if strict:
                raise ConfigError(f"{words} Log it, or give the schedule `strict=False`.")
            warnings.warn(f"{words} It is not stepped.", stacklevel=2)
        return value
