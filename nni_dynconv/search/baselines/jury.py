"""Who measures the networks of a comparison: an evaluator's test batches, or its validation ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import Lightning
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from ...errors import ConfigError
from ..closing import Evaluators, Goal, Trained, measure
from .table import Entry

__all__ = ["Jury"]


class Jury:
    """Measures networks on batches that chose nothing, where the evaluator has any.

    Parameters
    ----------
    evaluators
        Make what measures.
    goal
        Which of the numbers counts.
    """

    def __init__(self, evaluators: Evaluators, goal: Goal):
        self.evaluators, self.goal = evaluators, goal
        self.names: list[str] = []
        self._example: Any = None
        made = evaluators.make(alike=True)
        self._tests = _has_test_batches(made)
        self.measured_on = "test" if self._tests else "validation"

    def entry(self, kind: str, network: nn.Module, architecture: Mapping[str, Any], trained: Trained) -> Entry:
        """Return a network's entry in the table."""
        return Entry(
            kind,
            dict(architecture),
            self.measured(network),
            self._multiply_adds(network),
            sum(one.numel() for one in network.parameters()),
            trained.seconds,
            trained.epochs,
        )

    def measured(self, network: nn.Module) -> dict[str, float]:
        """Return the numbers that count, by name.

        Raises
        ------
        ConfigError
            The evaluator logs no such metric on these batches.
        """
        made = self.evaluators.make(alike=True)
        found = _tested(network, made) if self._tests else measure(network, made)
        self.names = self.names or self._names(found)
        return {name: found[name] for name in self.names}

    def _names(self, measured: Mapping[str, float]) -> list[str]:
        metric = self.goal.metric
        for name in dict.fromkeys([metric.replace("val", "test", 1), metric]):
            found = [one for one in measured if one == name or one.startswith(f"{name}/")]
            if found:
                return found
        raise ConfigError(
            f"Baselines are compared by `{metric}`, but on {self.measured_on} batches the evaluator logs "
            f"{sorted(measured)}. Log `{metric.replace('val', 'test', 1)}` in `test_step`, or leave out `test_step`: "
            f"`validation_step` is taken then."
        )

    def _multiply_adds(self, network: nn.Module) -> int | None:
        """Count what one sample takes, by the evaluator's own step; ``None`` where that does not take one alone."""
        if self._example is None:
            batch = self.evaluators.batch()
            self._example = pytree.tree_map_only(Tensor, lambda one: one[:1] if one.dim() else one, batch)
        try:
            with FlopCounterMode(display=False) as counter:
                self.evaluators.show(network, self._example)
        except (RuntimeError, ValueError, LookupError):
            return None
        return counter.get_total_flops() // 2


def _has_test_batches(evaluator: Lightning) -> bool:
    given = evaluator.datamodule is not None and is_overridden("test_dataloader", evaluator.datamodule)
    return evaluator.test_dataloaders is not None or given or is_overridden("test_dataloader", evaluator.module)


def _tested(network: nn.Module, evaluator: Lightning) -> dict[str, float]:
    """Return what an evaluator logs of a network on its test batches: by `test_step`, or else `validation_step`."""
    module, trainer, loaders = evaluator.module, evaluator.trainer, evaluator.test_dataloaders
    module.set_model(network)
    if is_overridden("test_step", module):
        trainer.test(module, dataloaders=loaders, datamodule=None if loaders else evaluator.datamodule, verbose=False)
    else:
        trainer.validate(module, dataloaders=loaders or _test_loaders(evaluator), verbose=False)
    return {name: float(one) for name, one in trainer.callback_metrics.items()}


def _test_loaders(evaluator: Lightning) -> Any:
    if is_overridden("test_dataloader", evaluator.module):
        return evaluator.module.test_dataloader()
    evaluator.datamodule.prepare_data()
    evaluator.datamodule.setup("test")
    return evaluator.datamodule.test_dataloader()
