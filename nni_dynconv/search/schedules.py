"""Learning-rate schedules of an evaluator, stepped when Lightning would, metric-based ones too."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from pytorch_lightning import Trainer

from ..errors import ConfigError

__all__ = ["step_schedules"]


def step_schedules(
    trainer: Trainer, module: Any, interval: Literal["step", "epoch"], number: int, metric: bool
) -> None:
    """Step the schedules that are due: Lightning leaves them alone where optimization is by hand, as in a search.

    Parameters
    ----------
    module
        The evaluator's, whose ``lr_scheduler_step`` is called.
    interval, number
        What has ended, and how many of it.
    metric
        Whether those are due that go by a metric, such as ``ReduceLROnPlateau``, or the others: a metric of validation
        is known only after it.

    Raises
    ------
    ConfigError
        Nothing logs the metric of one.
    """
    for one in trainer.lr_scheduler_configs:
        if one.interval != interval or number % one.frequency or one.reduce_on_plateau != metric:
            continue
        value = trainer.callback_metrics.get(str(one.monitor)) if metric else None
        if metric and value is None:
            words = (
                f"A learning-rate schedule monitors `{one.monitor}`, but there is {sorted(trainer.callback_metrics)}."
            )
            if one.strict:
                raise ConfigError(f"{words} Log it, or give the schedule `strict=False`.")
            warnings.warn(f"{words} It is not stepped.", stacklevel=2)
            continue
        module.lr_scheduler_step(one.scheduler, value)
