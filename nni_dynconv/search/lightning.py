"""What is asked of an evaluator's Lightning module outside of Lightning's own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.evaluator.pytorch import LightningModule
from torch import Tensor, nn

from ..errors import ConfigError

__all__ = [
    "in_place",
    "loaders_of",
    "loss_of",
    "network_loss",
    "network_optimizers",
    "optimizers_in",
    "optimizers_of",
    "replaced",
    "silent",
    "step_of",
]


def loss_of(output: Any) -> Any:
    """Return the loss of a training step's output: a scalar, or ``None`` where the step leaves its batch out.

    Raises
    ------
    ConfigError
        It is a mapping without one.
    """
    if not isinstance(output, Mapping):
        return output
    if "loss" not in output:
        raise ConfigError(f"The evaluator's `training_step` returned {sorted(output)}, but no `loss` among them.")
    return output["loss"]


@contextmanager
def replaced(module: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """For a block, put a function in the place of a method, in this object alone."""
    before = vars(module).get(name)
    vars(module)[name] = method
    try:
        yield
    finally:
        vars(module).pop(name)
        if before is not None:
            vars(module)[name] = before


def silent(module: LightningModule) -> AbstractContextManager[None]:
    """For a block, keep a module from logging where Lightning does not allow it."""
    return replaced(module, "log", lambda *args, **kwargs: None)


def step_of(module: Any) -> Callable[[Any], Tensor]:
    """Return a module's own training step as ``step(batch)``, which logs nothing; ``module.model`` must be set."""

    def step(batch: Any) -> Tensor:
        with silent(module):
            return loss_of(module.training_step(batch, 0))

    return step


@contextmanager
def in_place(module: LightningModule, network: nn.Module) -> Iterator[None]:
    """Let an evaluator's module hold another network for a block."""
    model = module.model
    module.set_model(network)
    try:
        yield
    finally:
        module.set_model(model)


def network_loss(module: LightningModule) -> Callable[[nn.Module, Any], Any]:
    """Return the loss of a network on a batch, by the evaluator's training step; ``None`` where that leaves it out.

    Batches are numbered as they first come: a step that asks for the number gives each network the same answer.
    """
    numbers: dict[int, int] = {}

    def loss(network: nn.Module, batch: Any) -> Any:
        with in_place(module, network):
            return loss_of(module.training_step(batch, numbers.setdefault(id(batch), len(numbers))))

    return loss


def network_optimizers(module: LightningModule) -> Callable[[nn.Module], list[torch.optim.Optimizer]]:
    """Return what makes the evaluator's optimizers for a network."""

    def optimizers(network: nn.Module) -> list[torch.optim.Optimizer]:
        with in_place(module, network):
            return optimizers_of(module.configure_optimizers())

    return optimizers


def optimizers_in(configured: Any) -> list[torch.optim.Optimizer]:
    """Return the optimizers in whatever form Lightning's ``configure_optimizers`` may give them."""
    if isinstance(configured, torch.optim.Optimizer):
        return [configured]
    if isinstance(configured, Mapping):
        return optimizers_in(configured.get("optimizer"))
    return [one for some in configured for one in optimizers_in(some)] if isinstance(configured, (list, tuple)) else []


def optimizers_of(configured: Any) -> list[torch.optim.Optimizer]:
    """Return the optimizers in what Lightning's ``configure_optimizers`` gives, at their full rate.

    Schedules are left out: they are made for a whole training.

    Examples
    --------
    >>> sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    >>> schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=0.2, total_steps=10)
    >>> optimizers_of(([sgd], [schedule])) == optimizers_of({"optimizer": sgd, "lr_scheduler": schedule}) == [sgd]
    True
    >>> sgd.param_groups[0]["lr"]
    0.2
    """
    optimizers = optimizers_in(configured)
    for group in [group for one in optimizers for group in one.param_groups]:
        group["lr"] = group["initial_lr"] = group.get("max_lr", group.get("initial_lr", group["lr"]))
    return optimizers


def loaders_of(evaluator: Any, which: Literal["train", "val"], purpose: str) -> Iterable[Any]:
    """Return the batches that an evaluator trains or validates with: of its data module, where it has one.

    Parameters
    ----------
    purpose
        What they are for, in the error's words.

    Raises
    ------
    ConfigError
        There are none, or several loaders.
    """
    loader, module = getattr(evaluator, f"{which}_dataloaders"), evaluator.datamodule
    if module is not None:
        module.prepare_data()
        module.setup("fit")
        loader = getattr(module, f"{which}_dataloader")()
    if loader is None:
        raise ConfigError(f"The evaluator has no `{which}_dataloaders`, so there is nothing to {purpose}.")
    if isinstance(loader, (list, tuple, Mapping)):
        raise ConfigError(
            f"The evaluator has {len(loader)} loaders in a {type(loader).__name__} as its `{which}_dataloaders`, but "
            f"one is needed to {purpose}. Join their data sets (`torch.utils.data.ConcatDataset`)."
        )
    return loader
