"""A step of a search: what the sampler learns from a held-out batch, and the weights from a training batch."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from lightning_fabric.utilities import move_data_to_device
from nni.nas.evaluator.pytorch import LightningModule
from pytorch_lightning import Callback
from torch import Tensor, nn

from ...errors import CheckpointError, NotFiniteError
from ...keeping import decode, encode
from ...runs import History
from ...samplers import Sampler, distributed
from ...settings import StrategySettings
from ...supernet import DynamicWeightMutator, tracking_norms
from ..costing import Costs, called_on, costs_of, extremes
from ..guarding import Guard
from ..hooks import HandingOn
from ..lightning import loss_of, network_loss, optimizers_in, silent
from ..loaders import Loaders
from ..ranking import Task
from ..schedules import Schedules
from ..smoothing import smoothness_of_batch
from ..timed import StopInTime
from ..trainer import TrainersPart, aside, check_optimizers
from .pace import Clock, Pace, pace_of

__all__ = ["Learning"]


class Learning(HandingOn):
    """What is learned in a step of a search: by the sampler on a held-out batch, by the weights on a training batch."""

    sampler: Sampler
    mutator: DynamicWeightMutator
    history: History | None = None
    """Of the run; what is noted there is shown by its report."""
    in_time: StopInTime | None = None
    """Ends the search where the run's time is limited."""

    def __init__(
        self,
        training_module: LightningModule,
        mutator: DynamicWeightMutator,
        settings: StrategySettings,
        loaders: Loaders,
        callbacks: Sequence[Callback] = (),
    ):
        super().__init__(training_module)
        self.sampler = mutator.sampler
        self.__dict__["mutator"] = mutator  # unregistered: its space is the training module's model already
        self.settings, self.loaders, self.callbacks = settings, loaders, callbacks
        self.guard, self.trainers_part = Guard(mutator, settings), TrainersPart(settings)
        self.schedules, self.clock = Schedules(), Clock()
        self._steps = 0
        self._ends: tuple[dict[str, Any], ...] | None = None
        self._recent: deque[Any] = deque(maxlen=self._wanted)

    def configure_optimizers(self) -> Any:
        configured = self.training_module.configure_optimizers()
        optimizers, architecture = optimizers_in(configured), self.configure_architecture_optimizers()
        check_optimizers(optimizers)
        if architecture is not None:
            architecture.is_arch_optimizer = True  # type: ignore[attr-defined]  # by this NNI's words find it
            optimizers = [*optimizers, architecture]
        return optimizers, self.schedules.take(configured)

    def resample(self) -> dict[str, Any]:
        distributed.agree(self.sampler)
        return self.mutator.reset()

    def export(self) -> dict[str, Any]:
        distributed.agree(self.sampler)
        return self.mutator.export()

    def export_probs(self) -> dict[str, Any]:
        return self.mutator.status()["probabilities"]

    @property
    def _wanted(self) -> int:
        """Training batches that statistics are gathered on; none where there are no statistics."""
        return self.settings.calibration_batches if tracking_norms(self.mutator.space) else 0

    def configure_architecture_optimizers(self) -> torch.optim.Optimizer | None:
        wanted = self.sampler.learns == "gradient" and self.mutator.choices
        return self.sampler.optimizer() if wanted else None

    # What a run that goes on needs besides the states of modules and optimizers

    def kept(self) -> dict[str, Any]:
        """Return what steps have left behind: plain data, and batches as bytes."""
        return {
            "recent": self._kept_batches(),
            "ends": self._ends,
            "skipped": self.guard.skipped,
            "sample": self.mutator.sample,
            "steps": self._steps,
            "learning since": self.clock.start,
            "cut": None if self.in_time is None else self.in_time.cut,
        }

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on with what :meth:`kept` gave."""
        if state["recent"] is not None:
            self._recent.extend(move_data_to_device(decode(state["recent"]), self.device))
        self._ends, self.guard.skipped = state["ends"], state["skipped"]
        self.mutator.sample = state["sample"]
        self._steps, self.clock.start = state["steps"], state["learning since"]
        if self.in_time is not None:
            self.in_time.take_up(state["cut"])

    def is_between_steps(self, batches: int) -> bool:
        """Whether no gradients are being gathered after so many batches of an epoch."""
        return batches % self.trainers_part.accumulate == 0

    def _kept_batches(self) -> bytes | None:
        try:
            return encode(list(self._recent))
        except CheckpointError as error:
            warnings.warn(
                f"A checkpoint cannot keep the batches of this evaluator, so that the first validation after a kill "
                f"may take others for BatchNorm's statistics: {error}",
                stacklevel=2,
            )
            return None

    # Training

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        with self.sampler.watch.sleeping():  # processes decide together what becomes of a step
            if self.mutator.choices and self.trainer.current_epoch >= self.settings.warmup_epochs:
                with nullcontext() if self.in_time is None else self.in_time.beside():
                    self._keep_pace(batch_idx)
                    self._learn_architecture(batch, batch_idx)
            self._recent.append(batch["train"])
            output = self._learn_weights(batch["train"], batch_idx)
        if batch_idx % self.settings.log_every == 0:
            self._log_architecture()
        self._steps += 1
        return output

    def _keep_pace(self, batch_idx: int) -> None:
        """Tell the sampler how far it is, and slow it down: what wins late is exported with hardly trained weights."""
        optimizer = self.architecture_optimizers() if self.sampler.learns == "gradient" else None
        own_steps = int(optimizer is not None)
        how = self.trainer, batch_idx, self.settings.warmup_epochs, self.trainers_part.accumulate, own_steps
        pace = pace_of(*how, self._timed(pace_of(*how)))
        self.sampler.anneal(pace.progress)
        for group in optimizer.param_groups if optimizer is not None else []:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * pace.rate

    def _timed(self, pace: Pace) -> Pace | None:
        """Return the pace by the time of the search, where that may be over before its steps are."""
        if self.in_time is None:
            return self.clock.pace(self.trainer)
        return self.clock.pace(self.trainer, self.in_time.limit.spent, self.in_time.nearest(pace.total - pace.done))

    def _learn_weights(self, batch: Any, batch_idx: int) -> Any:
        """Train the drawn architecture, or several, whose gradients are averaged; return what the last one gave."""
        ends = self._extremes(batch)
        drawn = self.settings.sandwich if ends else 1
        for number in range(len(ends) + drawn):
            with self._architecture(ends[number] if number < len(ends) else None):
                output = self._go_back(batch, batch_idx, len(ends) + drawn, first=number == 0)
        self._end_step(batch_idx)
        return output

    @contextmanager
    def _architecture(self, sample: dict[str, Any] | None) -> Iterator[None]:
        """For a block, let an architecture run, or one that is drawn."""
        if sample is None:
            self.resample()
            yield
            return
        self.mutator.sample = dict(sample)  # errors tell its name
        with self.mutator.using(sample):
            yield

    def _extremes(self, batch: Any) -> tuple[dict[str, Any], ...]:
        """Return the architectures of a sandwich that every step takes."""
        if not self.settings.sandwich or not self.mutator.choices:
            return ()
        if self._ends is None:
            sample = self.resample()
            with silent(self.training_module):
                called = called_on(self.mutator, Task(network_loss(self.training_module), [batch]), sample)
                costs = Costs(costs_of(self.mutator, *called.args, **called.kwargs), ["multiply_adds"])
                self._ends = extremes(self.mutator.choices, lambda one: costs.of(one)["multiply_adds"], sample)
        return self._ends

    def _go_back(self, batch: Any, batch_idx: int, together: int, first: bool) -> Any:
        """Run the architecture at hand, and add its share to the gradients; return what the training step gave."""

        def run() -> Any:
            output = self.training_module.training_step(batch, batch_idx)
            loss = loss_of(output)
            return output, None if loss is None else loss + self._roughness(batch, batch_idx)

        place = self._place(batch_idx)
        found, fine = self.guard.forward(run, lambda output: output[1], place)
        output, loss = found if fine else (None, None)
        if first:
            self._forget_gradients(batch_idx)
        if loss is not None and not self._gathers:
            share = loss / (self.trainers_part.accumulate * together)
            own = self.training_module.parameters()
            self.guard.backward(lambda: self.manual_backward(share), lambda: run()[1], own, place)
        return output

    def _place(self, batch_idx: int) -> str:
        return f"Step {batch_idx} of epoch {self.trainer.current_epoch}"

    @property
    def _gathers(self) -> bool:
        """Whether the statistics of averaged weights are gathered, and nothing is learned."""
        return getattr(self.trainer.fit_loop, "_skip_backward", False)

    @property
    def _own_optimizer(self) -> Any:
        (optimizer,) = [one for one in _several(self.optimizers()) if not getattr(one, "is_arch_optimizer", False)]
        return optimizer

    def _forget_gradients(self, batch_idx: int) -> None:
        if batch_idx % self.trainers_part.accumulate == 0 and not self._gathers:
            self.training_module.on_before_zero_grad(self._own_optimizer)
            self.training_module.optimizer_zero_grad(self.trainer.current_epoch, batch_idx, self._own_optimizer)

    def _end_step(self, batch_idx: int) -> None:
        """Take a step of the evaluator's optimizer, or leave the gradients to a later one."""
        if self._gathers:
            return
        module = self.training_module
        if (batch_idx + 1) % self.trainers_part.accumulate == 0 or self.trainer.is_last_batch:
            self._step(self._own_optimizer, batch_idx, self._place(batch_idx))
            self.schedules.step(self.trainer, module, "step", batch_idx + 1, metric=False)
            self.schedules.step(self.trainer, module, "step", batch_idx + 1, metric=True)
        if self.trainer.is_last_batch:
            self.schedules.step(self.trainer, module, "epoch", self.trainer.current_epoch + 1, metric=False)

    def _step(self, optimizer: Any, batch_idx: int, place: str) -> None:
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        if all(one.grad is None for one in parameters) or not self._can_step(parameters, place):
            return
        clip, module = self.trainers_part.clip, self.training_module
        module.configure_gradient_clipping(optimizer, clip.value, clip.algorithm)
        module.optimizer_step(self.trainer.current_epoch, batch_idx, optimizer)

    def _can_step(self, parameters: list[nn.Parameter], place: str) -> bool:
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:  # it leaves such steps out itself
            return True
        if self.guard.gradients(parameters, place):
            return True
        for one in parameters:
            one.grad = None
        return False

    def _roughness(self, batch: Any, batch_idx: int) -> Tensor | float:
        """Return the weighted penalty on weights of the drawn architecture that change over a batch's moments."""
        if not self.settings.smoothness:
            return 0.0
        penalty = smoothness_of_batch(self.mutator, batch)
        if batch_idx % self.settings.log_every == 0:
            self.log("smoothness", penalty.detach())
        return self.settings.smoothness * penalty

    def _learn_architecture(self, batch: dict[str, Any], batch_idx: int) -> None:
        if self.sampler.learns == "selection":
            return
        held_out = self.loaders.held_out(batch["val"], batch_idx)
        place = f"{self._place(batch_idx)}, on a held-out batch"
        if self.sampler.learns == "gradient":
            self._descend(held_out, batch["train"], batch_idx, place)
        else:
            self.resample()
            self._reward(held_out, batch_idx, place)

    def _descend(self, held_out: Any, training: Any, batch_idx: int, place: str) -> None:
        def run(batch: Any = held_out) -> Any:
            return loss_of(self.training_module.training_step(batch, batch_idx))

        def guarded(batch: Any = held_out) -> Any:
            return self.guard.forward(lambda: run(batch), lambda loss: loss, place)[0]

        optimizer = self.architecture_optimizers()
        loss = self.mutator.architecture_loss(guarded, lambda: guarded(training))
        if loss is None or optimizer is None:
            return
        weights = [one for one in self.training_module.parameters() if one.requires_grad]
        with aside(weights if self.trainers_part.accumulate > 1 else []):
            optimizer.zero_grad()
            everything = [*weights, *self.sampler.parameters()]
            fine = self.guard.backward(lambda: self.manual_backward(loss), run, everything, place)
        if fine and self._can_step(list(self.sampler.parameters()), place):
            optimizer.step()

    def _reward(self, batch: Any, batch_idx: int, place: str) -> None:
        def run() -> Any:
            return loss_of(self.training_module.training_step(batch, batch_idx))

        with torch.no_grad():
            loss, fine = self.guard.forward(run, lambda loss: loss, place)
        if not fine or loss is None:
            return
        reward, sample = -distributed.mean(float(loss)), dict(self.mutator.sample or {})
        words = self.sampler.objection(reward)
        if words is None:
            self.sampler.observe(sample, reward)
        else:
            self.guard.leave_out(NotFiniteError(f"{place}: the reward {reward:g} of architecture {sample} {words}."))

    def _log_architecture(self) -> None:
        status = self.mutator.status()
        if status["entropy"] is not None:
            self.log("entropy", status["entropy"], prog_bar=True)
        self.log_probs(status["probabilities"])
        self.note("step", step=self._steps, epoch=self.trainer.current_epoch, **self._told(status))

    def note(self, kind: str, **facts: Any) -> None:
        """Note something in the run's history, where there is one."""
        if self.history is not None and self.trainer.is_global_zero:
            self.history.add(kind, **facts)

    @staticmethod
    def _told(status: dict[str, Any]) -> dict[str, Any]:
        return {name: status[name] for name in ("entropy", "probabilities")}


def _several(one: Any) -> list[Any]:
    return one if isinstance(one, list) else [one]
