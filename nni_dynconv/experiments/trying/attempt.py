"""The try itself: each step that a trial takes, in order, on a batch or a few."""

from __future__ import annotations

import resource
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from ... import export
from ...diagnosis import Diagnosis, diagnose
from ...errors import ConfigError
from ...generation import DynamicNetwork
from ...phases import phase
from ...search import Evaluators, first_batches, in_place, step_of
from ...settings import RunSettings
from ...supernet import DynamicWeightMutator
from .. import trial
from ..words import doing, form_of
from .architectures import run_each
from .briefly import STEPS, Clock, Plan, cut_short, short_options
from .measured import Measured, parts_of

__all__ = ["attempt"]

EXPECTED = "evaluators here take `((x, context), y)`, or `(x, y)` without a context"
UNSAVED = "\n  The network that a search would give could not be saved, or not be read back."


def attempt(settings: RunSettings, folder: Path) -> Measured:
    """Try an experiment: build it, and take a batch through all that a trial does.

    Parameters
    ----------
    settings
        The checked settings of the run.
    folder
        Where the network is written for a while, to be read back.

    Raises
    ------
    DynConvError
        What is wrong, in words.
    """
    whole = settings.to_dict()
    with phase("building"), doing("Building the experiment"):
        mutator, evaluator, callback = trial.build(whole, **_as_search(settings))
        evaluators = Evaluators(evaluator, [mutator])
    _check_data(evaluator, settings, mutator)
    batch = _first_batch(evaluator)
    said = f"\n  The batch is {form_of(batch)}; {EXPECTED}."
    remarks = _candidates(mutator, evaluator, batch, said)
    clock, plan = _search(mutator, evaluator, settings, said)
    _check_metric(callback, evaluator)
    network = _sampled(mutator, evaluators, settings, said).to(evaluator.trainer.strategy.root_device)
    call = _Call(evaluator.module, network, batch)
    with phase("saving"), doing("Saving an architecture", UNSAVED):
        _save(network, folder)
    parts = parts_of(clock, plan, settings, mutator.sampler.learns)
    return replace(_measured(mutator, network, call, clock), parts=parts, remarks=remarks)


def _as_search(settings: RunSettings) -> dict[str, Any]:
    """Changes by which the shared checkpoint of multi-trial mode is trained."""
    if settings.mode == "one_shot":
        return {}
    return {"sampler": {"name": "random"}, "mode": "one_shot", "checkpoint": None, "metric": None}


# Data


def _check_data(evaluator: Any, settings: RunSettings, mutator: DynamicWeightMutator) -> None:
    if _loader(evaluator, "train") is None:
        raise ConfigError("The evaluator gives no training data: give it `train_dataloaders`, or a data module.")
    if _loader(evaluator, "val") is not None:
        return
    why = "architectures are compared on it" if mutator.sampler.learns == "selection" else "its sampler learns on it"
    if settings.metric is not None:
        why += f", and `metric: {settings.metric}` is logged by it"
    raise ConfigError(
        f"The evaluator gives no validation data, but a search needs it: {why}. Give it `val_dataloaders`, or a data "
        f"module with `val_dataloader`."
    )


def _loader(evaluator: Any, which: str) -> Any:
    module = evaluator.datamodule
    if module is None:
        return getattr(evaluator, f"{which}_dataloaders")
    with doing(f"Preparing the data module {type(module).__name__}"):
        module.prepare_data()
        module.setup("fit")
        try:
            return getattr(module, f"{which}_dataloader")()
        except Exception as error:
            if "must be implemented" in str(error):  # Lightning's own word for one that has none
                return None
            raise


def _first_batch(evaluator: Any) -> Any:
    device = evaluator.trainer.strategy.root_device

    def moved(batch: Any) -> Any:
        return pytree.tree_map(lambda one: one.to(device) if isinstance(one, Tensor) else one, batch)

    with phase("loading data"):
        for which in ("val", "train"):
            with doing(f"Taking the first batch of `{which}_dataloaders`"):
                found = first_batches(_loader(evaluator, which), 1, moved)
            if not found:
                raise ConfigError(f"The evaluator's `{which}_dataloaders` give no batch: they are empty.")
    return found[0]


# What a trial does


def _candidates(mutator: DynamicWeightMutator, evaluator: Any, batch: Any, said: str) -> tuple[str, ...]:
    """Run each candidate, and let the doctor look at all; return what he says."""
    mutator.space.to(evaluator.trainer.strategy.root_device)
    evaluator.module.set_model(mutator.space)
    step = step_of(evaluator.module)
    each = max((len(choice) for choice in mutator.choices.values()), default=1)
    with phase("candidates", total=each, unit="architecture") as now, doing("Running the candidates", said):
        run_each(mutator, batch, step, now)
    mutator.space.zero_grad(set_to_none=True)
    with phase("diagnosing"), doing("Diagnosing the network"):
        found = diagnose(mutator, [batch], step=step, progress=0.0, samples=1)
    _check_whose(found)
    return tuple(f"  doctor: {one}" for one in (*found.faults, *found.warnings))


def _check_whose(found: Diagnosis) -> None:
    astray = [one for one in found.faults if one.code == "weights-astray"]
    if astray:
        raise ConfigError(f"Samples get each other's weights. {astray[0]}")


def _search(mutator: DynamicWeightMutator, evaluator: Any, settings: RunSettings, said: str) -> tuple[Clock, Plan]:
    options = short_options(settings.strategy, settings.mode)
    clock = Clock()
    plan = cut_short(evaluator.trainer)
    evaluator.trainer.callbacks.append(clock)
    with phase("a short search"), doing("Searching for a few steps", said):
        trial.train_supernet(mutator, evaluator, options)
    return clock, plan


def _check_metric(callback: trial.ReportMetric, evaluator: Any) -> None:
    if callback.name is not None and callback.last(evaluator.trainer) is None:
        raise ConfigError(
            f"`metric` is `{callback.name}`, but nobody logged it: the trainer ran no validation "
            f"(`limit_val_batches`, `check_val_every_n_epoch`), or the evaluator's `validation_step` does not log it."
        )


def _sampled(mutator: DynamicWeightMutator, evaluators: Evaluators, settings: RunSettings, said: str) -> DynamicNetwork:
    """Freeze what the search would give, and train it by the evaluator, as the end of a search or a trial does."""
    with phase("freezing"), doing("Freezing an architecture", said):
        network = mutator.freeze(mutator.export())
    if settings.mode == "one_shot" and settings.strategy.get("final_epochs") == 0:
        return network
    with phase("training one architecture"), doing("Training one architecture, as is done in the end", said):
        made = evaluators.make(1, alike=True, limit_train_batches=STEPS, limit_val_batches=1)
        made.evaluate(network)
    if settings.metric is not None and settings.metric not in made.trainer.callback_metrics:
        known = sorted(made.trainer.callback_metrics)
        raise ConfigError(f"`metric` is `{settings.metric}`, but the evaluator logs {known} in validation.")
    return network


class _Call:
    """How the evaluator calls a network on a batch."""

    def __init__(self, module: Any, network: nn.Module, batch: Any):
        calls: list[tuple[Any, Any]] = []
        handle = network.register_forward_pre_hook(lambda _, *call: calls.append(call), with_kwargs=True)
        network.eval()
        try:
            with in_place(module, network), torch.no_grad():
                step_of(module)(batch)
        finally:
            handle.remove()
        self.args, self.kwargs = calls[0]
        tensors = [one for one in pytree.tree_leaves(calls[0]) if isinstance(one, Tensor) and one.dim()]
        self.batch = len(tensors[0]) if tensors else 1

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> None:
        network(*self.args, **self.kwargs)


def _save(network: DynamicNetwork, folder: Path) -> None:
    """Write it, which reads it back and compares."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        export.save(network, place)


# Measuring


def _measured(mutator: DynamicWeightMutator, network: DynamicNetwork, call: _Call, clock: Clock) -> Measured:
    with FlopCounterMode(display=False) as counter:
        call(network)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Measured(
        sample=network.architecture,
        batch=call.batch,
        supernet=_size(mutator.space),
        makers=_size(mutator.source),
        parameters=_size(network),
        generated=mutator.plan(network.architecture).num_generated,
        multiply_adds=counter.get_total_flops() / 2 / call.batch,
        step=clock.step,
        look=clock.look,
        memory=most if sys.platform == "darwin" else 1024 * most,
        gpu=torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None,
        parts={},
    )


def _size(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())
