"""The mutator as a strategy of NNI's ``NasExperiment``: NNI's one-shot machinery around a Lightning evaluator."""

from __future__ import annotations

import inspect
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from lightning_fabric.utilities import move_data_to_device
from nni.nas.evaluator.pytorch import LightningModule
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from ..errors import ConfigError, SpaceError, did_you_mean
from ..samplers import Sampler
from ..settings.parts import StrategySettings, check_arguments
from ..supernet.calibration import fixed_affine, recalibrated, tracking_norms
from ..supernet.mutator import DynamicWeightMutator
from . import distributed
from .finals import end_search
from .lightning import first_batches, loss_of, silent
from .smoothing import check_smoothness, smoothness_of_batch

__all__ = ["DynamicStrategy", "SearchModule"]


class DynamicStrategy(OneShotStrategy):
    """Search the space of a mutator by training its supernet once.

    Weights and controller train on training batches, by the evaluator's own optimizer and loss. The sampler learns on
    validation batches: by gradient (DARTS, GDAS; its learning rate falls in a line after the
    warm-up, to zero in the last epoch), by
    rewards, each the negative loss of one drawn architecture (ENAS), or by comparing some architectures when training
    has ended (random, fair). Validation measures the architecture that :meth:`DynamicWeightMutator.export` would give,
    with BatchNorm statistics of its own.

    In the end copies of the best few are trained briefly, from the generated weights on, and the best of them on
    held-out batches is what :meth:`DynamicWeightMutator.export` gives. What that took is printed.

    Parameters
    ----------
    mutator
        The mutator; give its ``mutator.space`` to the experiment.
    warmup_epochs
        Epochs before the sampler starts to learn.
    gradient_clip_val
        Norm that the evaluator's gradients are clipped to.
    log_every
        Steps between two logs of entropy and probabilities.
    contenders, contender_batches
        How many architectures are drawn in the end, and how many validation batches measure each, the same ones for
        all. A sampler that learns by selection learns from that; of another, they are what it may re-rank.
    rerank, rerank_steps
        How many of the best are trained in the end, and for how many steps each; 0: none.
    calibration_batches
        Training batches that gather BatchNorm's statistics anew for each architecture before it is measured: in each
        validation the last ones that were trained on, in the end the first of the loader. The supernet's own come back
        afterwards. 0: its own are used, a mixture over all architectures.
    norm_affine
        ``False``: the affine maps of BatchNorms do not learn during the search.
    smoothness
        Weight of :func:`~nni_dynconv.smoothness`, added to the loss that weights and controller learn by, never to the
        sampler's; 0: off, and nothing is computed. A training batch must then be ``((x, context), y)`` where row ``t``
        of the context is moment ``t`` of one sequence, in order, ``T >= 2`` of them and one for each sample (a loader
        with ``shuffle=False``, or a sampler of whole sequences). The weights of the drawn architecture are made once
        more for it, for all ``T`` moments, and each tensor's mean squared change between neighbours is divided by its
        mean square; an architecture without generated weights adds nothing.
    diagnose_every
        Epochs between two diagnoses, by :class:`~nni_dynconv.diagnosis.DiagnosisCallback`; 0: none.
    diagnosis
        Makes the callback that diagnoses every so many epochs; :meth:`DynamicWeightMutator.strategy` hands it in.

    Raises
    ------
    ConfigError
        An option that it does not have, of another type, or outside of its range; ``smoothness`` where weights depend
        on no context.
    ContextError
        In training: ``smoothness`` is on, and a batch has no context, or one that its samples share.

    Notes
    -----
    A batch is ``((x, context), y)``, or ``(x, y)`` without context: NNI's evaluators call the model with the batch's
    first element.

    Under Lightning's DDP all processes draw the same architectures, and the sampler learns from all their batches.
    """

    def __init__(
        self,
        mutator: DynamicWeightMutator,
        *,
        warmup_epochs: int = 0,
        gradient_clip_val: float | None = None,
        log_every: int = 10,
        contenders: int = 32,
        contender_batches: int = 8,
        rerank: int = 5,
        rerank_steps: int = 100,
        calibration_batches: int = 4,
        norm_affine: bool = True,
        smoothness: float = 0.0,
        diagnose_every: int = 0,
        diagnosis: Callable[[int], Callback] | None = None,
        **options: Any,
    ):
        _check_options(type(self), options)
        ends = contenders, contender_batches, rerank, rerank_steps, calibration_batches
        settings = StrategySettings(
            warmup_epochs, gradient_clip_val, log_every, *ends, norm_affine, smoothness, diagnose_every
        )
        check_arguments(self, settings)
        if diagnose_every and diagnosis is None:
            raise ConfigError(
                f"`diagnose_every` of DynamicStrategy is {diagnose_every}, but nothing that diagnoses was handed in. "
                f"Make the strategy by `mutator.strategy(diagnose_every={diagnose_every})`."
            )
        super().__init__()
        mutator.check_sampler()
        check_smoothness(mutator, smoothness)
        self.mutator = mutator
        self.warmup_epochs, self.gradient_clip_val, self.log_every = warmup_epochs, gradient_clip_val, log_every
        self.contenders, self.contender_batches = contenders, contender_batches
        self.rerank, self.rerank_steps = rerank, rerank_steps
        self.calibration_batches, self.norm_affine = calibration_batches, norm_affine
        self.smoothness = smoothness
        self.diagnosis = diagnosis(diagnose_every) if diagnosis is not None and diagnose_every else None
        self.training_batches: Callable[[], Any] = list
        self.validation_batches: Callable[[], Any] = list

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        if model is not self.mutator.space:
            raise SpaceError(
                f"This strategy searches the space of its mutator, but the experiment has another "
                f"{type(model).__name__}. Write `NasExperiment(mutator.space, evaluator, mutator.strategy())`."
            )
        return model

    def configure_oneshot_module(self, training_module: LightningModule) -> SearchModule:
        return SearchModule(training_module, self)

    def train_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        self.training_batches, self.validation_batches = train_dataloader_fn, val_dataloader_fn
        if self.mutator.sampler.learns == "selection":
            return {"train": train_dataloader_fn()}
        return {"train": train_dataloader_fn(), "val": val_dataloader_fn()}

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        return val_dataloader_fn()

    def extra_repr(self) -> str:
        return f"sampler={type(self.mutator.sampler).__name__}"


class SearchModule(BaseOneShotLightningModule):
    """The search as a Lightning module around the evaluator's own."""

    sampler: Sampler
    mutator: DynamicWeightMutator

    def __init__(self, training_module: LightningModule, strategy: DynamicStrategy):
        super().__init__(training_module)
        self.sampler = strategy.mutator.sampler
        self.__dict__["mutator"] = strategy.mutator  # unregistered: its space is the training module's model already
        self.strategy = strategy
        self._validated: dict[str, Any] = {}
        self._during_training, self._during_validation = ExitStack(), ExitStack()
        self._recent: deque[Any] = deque(maxlen=self._wanted)

    def setup(self, stage: str) -> Any:
        if isinstance(self.trainer.strategy, DDPStrategy):  # candidates that do not run have no gradient
            self.trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        return super().setup(stage)

    def configure_callbacks(self) -> list[Callback]:
        callbacks: list[Callback] = [_EndOfTraining()]
        return callbacks if self.strategy.diagnosis is None else [*callbacks, self.strategy.diagnosis]

    def resample(self) -> dict[str, Any]:
        distributed.agree(self.sampler)
        return self.mutator.reset()

    def export(self) -> dict[str, Any]:
        distributed.agree(self.sampler)
        return self.mutator.export()

    def export_probs(self) -> dict[str, Any]:
        return self.mutator.status()["probabilities"]

    def configure_architecture_optimizers(self) -> torch.optim.Optimizer | None:
        return self.sampler.optimizer() if self.sampler.learns == "gradient" else None

    # Training

    def on_train_epoch_start(self) -> None:
        epoch, last = self.trainer.current_epoch, max((self.trainer.max_epochs or 1) - 1, 1)
        self.sampler.anneal(epoch / last)
        learned, falling = epoch - self.strategy.warmup_epochs, last - self.strategy.warmup_epochs
        self._slow_down_architecture(1 - max(learned, 0) / falling if falling > 1 else 1.0)
        super().on_train_epoch_start()

    def _slow_down_architecture(self, factor: float) -> None:
        """Let the architecture settle: a candidate that wins late is exported with weights that hardly learned."""
        if self.sampler.learns == "gradient" and self.mutator.choices:
            for group in self.architecture_optimizers().param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        if self.trainer.current_epoch >= self.strategy.warmup_epochs:
            self._learn_architecture(batch, batch_idx)
        self.resample()
        self._recent.append(batch["train"])
        output = self.training_module.training_step(batch["train"], batch_idx)
        loss = loss_of(output) + self._roughness(batch["train"], batch_idx)
        self.advance_optimization(loss, batch_idx, self.strategy.gradient_clip_val)
        self.advance_lr_schedulers(batch_idx)
        if batch_idx % self.strategy.log_every == 0:
            self._log_architecture()
        return output

    def _roughness(self, batch: Any, batch_idx: int) -> Tensor | float:
        """Return the weighted penalty on weights of the drawn architecture that change over a batch's moments."""
        if not self.strategy.smoothness:
            return 0.0
        penalty = smoothness_of_batch(self.mutator, batch)
        if batch_idx % self.strategy.log_every == 0:
            self.log("smoothness", penalty.detach())
        return self.strategy.smoothness * penalty

    def _learn_architecture(self, batch: dict[str, Any], batch_idx: int) -> None:
        if self.sampler.learns == "gradient":
            self.resample()
            optimizer = self.architecture_optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss_of(self.training_module.training_step(batch["val"], batch_idx)))
            optimizer.step()
        elif self.sampler.learns == "rewards":
            sample = self.resample()
            self.sampler.observe(sample, -self._held_out_loss(batch["val"], batch_idx))

    @torch.no_grad()
    def _held_out_loss(self, batch: Any, batch_idx: int) -> float:
        return distributed.mean(float(loss_of(self.training_module.training_step(batch, batch_idx))))

    def _log_architecture(self) -> None:
        status = self.mutator.status()
        if status["entropy"] is not None:
            self.log("entropy", status["entropy"], prog_bar=True)
        self.log_probs(status["probabilities"])

    def on_train_start(self) -> None:
        self.sampler.settle(None)
        self._during_training.enter_context(fixed_affine(self.mutator.space, fixed=not self.strategy.norm_affine))
        super().on_train_start()

    def undo_settings(self) -> None:
        """Give back what holds during training or validation only, whether it ended or failed."""
        self._during_validation.close()
        self._during_training.close()

    def on_train_end(self) -> None:
        self.undo_settings()
        self._recent.clear()
        if self.mutator.choices:
            distributed.agree(self.sampler)
            with silent(self.training_module):
                end_search(self)
        super().on_train_end()

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
            with self.mutator.using(sample), silent(self.training_module):
                self.training_module.training_step(batch, 0)

        return recalibrated(self.mutator.space, run, self._first_batches() if batches is None else batches)

    @property
    def _wanted(self) -> int:
        """Training batches that statistics are gathered on; none where there are no statistics."""
        return self.strategy.calibration_batches if tracking_norms(self.mutator.space) else 0

    def _first_batches(self) -> list[Any]:
        if not self._wanted:
            return []
        found = first_batches(self.strategy.training_batches(), self._wanted, self.to_device)
        if not found:
            warnings.warn(
                f"There is no training batch at hand, where `calibration_batches` wants {self._wanted}: BatchNorm "
                f"keeps the supernet's statistics, a mixture over all architectures. Gather them anew by "
                f"`mutator.freeze(sample, calibrate=batches)`.",
                stacklevel=2,
            )
        return found

    def to_device(self, batch: Any) -> Any:
        """Move a batch to where the supernet is."""
        if self._trainer is None:  # what was trained was trained in processes that this one forked
            return move_data_to_device(batch, self.device)
        return self.trainer.strategy.batch_to_device(batch, self.device)

    def on_validation_epoch_start(self) -> None:
        self._validated = self.export()
        if self._recent and self.trainer.state.fn == TrainerFn.FITTING:
            self._during_validation.enter_context(self.own_statistics(self._validated, self._recent))
        self.training_module.on_validation_epoch_start()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        with self.mutator.using(self._validated):
            return self.training_module.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._during_validation.close()
        self.training_module.on_validation_epoch_end()


class _EndOfTraining(Callback):
    """Lightning tells only callbacks of a training or validation that failed or was interrupted."""

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        pl_module.undo_settings()


def _check_options(strategy: type, options: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(strategy).parameters if name not in ("mutator", "options", "diagnosis")]
    for name in options:
        raise ConfigError(f"`mutator.strategy()` has no option `{name}`.{did_you_mean(name, known)}")
