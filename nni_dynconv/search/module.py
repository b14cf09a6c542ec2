"""The search as a Lightning module around the evaluator's own: its end, and what validation measures."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import MappingProxyType
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn

from ..phases import shown
from ..samplers import distributed
from ..supernet import calibrate, fixed_affine, recalibrated
from .closing.keeping import KeepEpochs
from .ending import End, end_search
from .finals import Finals
from .guarding import check_parameters
from .hooks import OnBatches
from .learning import Learning
from .lightning import network_loss, silent
from .loaders import first_batches
from .resuming import KeepTraining, Memo
from .trainer import TellPhase

__all__ = ["SearchModule", "SearchModuleOnBatches"]


class SearchModule(Learning):
    """The search as a Lightning module around the evaluator's own."""

    several_validations = False
    costs: Mapping[str, Any] = MappingProxyType({})
    """What architectures cost, by name, beside the package's own costs."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._validated: dict[str, Any] = {}
        self.reranked: dict[str, Any] | None = None
        self._began = time.monotonic()
        self.keeping: KeepTraining | None = None
        self._during_training, self._during_validation = ExitStack(), ExitStack()

    def setup(self, stage: str) -> Any:
        if isinstance(self.trainer.strategy, DDPStrategy):  # candidates that do not run have no gradient
            self.trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        return super().setup(stage)

    def configure_callbacks(self) -> list[Callback]:
        self.trainers_part.take(self.trainer)  # Lightning asks for callbacks before it refuses the trainer's options
        keeping = [] if self.keeping is None else [self.keeping]
        in_time = [] if self.in_time is None else [self.in_time]
        own = [TellPhase("search"), KeepEpochs(self.history, "search")]
        return [_EndOfTraining(), *keeping, *in_time, *own, *self.callbacks, *super().configure_callbacks()]

    def on_train_start(self) -> None:
        self.sampler.settle(None)
        self._began = time.monotonic()
        self._during_training.enter_context(fixed_affine(self.mutator.space, fixed=not self.settings.norm_affine))
        super().on_train_start()

    def undo_settings(self) -> None:
        """Give back what holds during training or validation only, whether it ended or failed."""
        self._during_validation.close()
        self._during_training.close()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.schedules.step(self.trainer, self.training_module, "epoch", self.trainer.current_epoch + 1, metric=True)

    def on_train_end(self) -> None:
        self.undo_settings()
        self._recent.clear()
        check_parameters(self, "At the end of the search")
        distributed.share_statistics(self.mutator.space)
        if self.mutator.choices:
            distributed.agree(self.sampler)
            with silent(self.training_module), self._precision(), shown(unless=not distributed.is_first()):
                end = self._end()
                found = end_search(self.mutator, self.training_module, self.settings, end)
            self._keep(found)
            self._say(*end.said, found)
        self._note_end()
        super().on_train_end()

    def _note_end(self) -> None:
        """Note how long the search was, and what the sampler preferred when it was over."""
        seconds = time.monotonic() - self._began if self.keeping is None else self.keeping.seconds
        self.note("searched", steps=self._steps, epochs=self.trainer.current_epoch, seconds=round(seconds, 1))
        if self.mutator.choices:
            self.note("step", step=self._steps, epoch=self.trainer.current_epoch, **self._told(self.mutator.status()))

    def _keep(self, found: Finals | None) -> None:
        """Keep what the re-ranking trained of the winner, as the first process has it."""
        network = None if found is None else found.network
        if found is not None:
            self.note("reranked", **found.told())
        self.reranked = distributed.of_first(None if network is None else network.state_dict())

    def get_extra_state(self) -> dict[str, Any] | None:
        """Return what the re-ranking trained: Lightning brings it back from processes that it forked."""
        return self.reranked

    def set_extra_state(self, state: dict[str, Any] | None) -> None:
        self.reranked = state

    def _say(self, *found: object | None) -> None:
        left_out = f"{self.guard.skipped} steps of the search were left out." if self.guard.skipped else None
        for one in (*found, left_out):
            if one is not None and self.trainer.is_global_zero:
                print(one, flush=True)

    def _end(self) -> End:
        most = [int(one) for one in self.trainer.num_val_batches if 0 < one < math.inf]
        memo = Memo(asked=lambda: bool(self.trainer.received_sigterm))
        if self.keeping is not None:
            memo = Memo(self.keeping.keeper, self.keeping.stage)
        return End(
            self.loaders,
            self.to_device,
            self.guard,
            self.trainers_part.clip,
            most_training=self.trainer.num_training_batches or math.inf,
            most_validation=sum(most) or math.inf,
            fast=int(self.trainer.fast_dev_run),
            costs=self.costs,
            memo=memo,
        )

    def _precision(self) -> AbstractContextManager[Any]:
        """Let a forward outside of Lightning's steps compute as one inside."""
        return nullcontext() if self._trainer is None else self.trainer.precision_plugin.train_step_context()

    # Validation: the architecture that would be exported now

    def own_statistics(
        self, sample: Mapping[str, Any], batches: Iterable[Any] | None = None
    ) -> AbstractContextManager[None]:
        """For a block, evaluate the supernet with the BatchNorm statistics of one architecture's own.

        A copy that ``mutator.freeze(sample)`` makes in the block keeps them.

        Parameters
        ----------
        batches
            Training batches on the supernet's device; the loader's first ``calibration_batches`` by default.
        """

        def run(batch: Any) -> None:
            with self.mutator.using(sample), silent(self.training_module), self._precision():
                self.training_module.training_step(batch, 0)

        batches = self._first_batches() if batches is None else batches
        return recalibrated(self.mutator.space, run, batches, together=True)

    def calibrate(self, network: nn.Module) -> None:
        """Give a copy of one architecture BatchNorm statistics of its own, as it was measured with."""
        loss = network_loss(self.training_module)
        with silent(self.training_module), self._precision():
            calibrate(network, lambda batch: loss(network, batch), self._first_batches())

    def _first_batches(self) -> list[Any]:
        if not self._wanted:
            return []
        found = first_batches(self.loaders.training(), self._wanted, self.to_device)
        if not found:
            warnings.warn(
                f"There is no training batch at hand, where `calibration_batches` wants {self._wanted}: BatchNorm "
                f"keeps the supernet's statistics, a mixture over all architectures. Gather them anew by "
                f"`mutator.freeze(sample, calibrate=batches)`.",
                stacklevel=2,
            )
        return found

    def to_device(self, batch: Any) -> Any:
        """Make a loader's batch what a step is given: in the trainer's precision, where the supernet is."""
        module = self.training_module
        if self._trainer is not None:  # else what was trained was trained in processes that this one forked
            batch = self.trainer.precision_plugin.convert_input(batch)
        batch = module.on_before_batch_transfer(batch, 0)
        return module.on_after_batch_transfer(module.transfer_batch_to_device(batch, self.device, 0), 0)

    def on_validation_epoch_start(self) -> None:
        self._validate(self.export())
        self.training_module.on_validation_epoch_start()

    def _validate(self, sample: dict[str, Any]) -> None:
        """Let an architecture be validated from here on, or another where it raises and may be left out."""
        self._during_validation.close()
        self._validated = sample
        if not self._recent or self.trainer.state.fn != TrainerFn.FITTING:
            return
        try:
            self._during_validation.enter_context(self.own_statistics(sample, self._recent))
        except Exception as error:
            self._validate_another(error)

    def _validate_another(self, error: Exception) -> None:
        place = f"Validation in epoch {self.trainer.current_epoch}"
        self.guard.leave_out(self.guard.named(error, place, self._validated))
        self._validate(self.sampler.sample())

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        which = [dataloader_idx] if self.several_validations else []
        try:
            with self.mutator.using(self._validated):
                return self.training_module.validation_step(batch, batch_idx, *which)
        except Exception as error:
            self._validate_another(error)
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self._during_validation.close()
        self.training_module.on_validation_epoch_end()


class SearchModuleOnBatches(OnBatches, SearchModule):
    """The same where the evaluator's module has hooks of its own on batches."""


class _EndOfTraining(Callback):
    """Lightning tells only callbacks of a training or validation that failed or was interrupted."""

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        pl_module.undo_settings()
        pl_module.trainers_part.give_back(trainer)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        pl_module.trainers_part.give_back(trainer)
