"""The mutator as a strategy of NNI's ``NasExperiment``: NNI's one-shot machinery around a Lightning evaluator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import Lightning, LightningModule
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from pytorch_lightning import Callback

from ..errors import ConfigError, SpaceError, did_you_mean
from ..settings import StrategySettings, check_arguments
from ..supernet import DynamicWeightMutator
from .hooks import changes_batches
from .loaders import Loaders, check_loaders, plain
from .module import SearchModule, SearchModuleOnBatches
from .smoothing import check_smoothness
from .trainer import check_evaluator, check_validation

__all__ = ["DynamicStrategy"]


class DynamicStrategy(OneShotStrategy):
    """Search the space of a mutator by training its supernet once.

    Weights and controller train on training batches, by the evaluator's own optimizer and loss. The sampler learns on
    validation batches: by the gradient of a mixture (DARTS) or of two compared architectures (GDAS), its learning rate
    falling in a line over the steps after the warm-up; by rewards, each the negative loss of one drawn architecture
    (ENAS); or by comparing some architectures when training has ended (random, fair). Validation measures the architecture that :meth:`DynamicWeightMutator.export` would give,
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
    on_not_finite, on_error
        What becomes of a step whose loss or gradient is no finite number, and of an architecture that raises an error:
        ``stop`` raises an error that names step, architecture and candidate; ``skip`` leaves it out with a warning.
        Nothing is learned from it in either case: weights, sampler and optimizers stay as they are.
    skip_limit
        How many may be left out before the search stops all the same.
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
    NotFiniteError, CandidateError
        In training: see ``on_not_finite`` and ``on_error``.

    Notes
    -----
    A batch is ``((x, context), y)``, or ``(x, y)`` without context: NNI's evaluators call the model with the batch's
    first element.

    What a search does with other things that Lightning offers stands in ``docs/lightning.md``; what it cannot do is
    refused before it begins.

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
        on_not_finite: Literal["stop", "skip"] = "stop",
        on_error: Literal["stop", "skip"] = "stop",
        skip_limit: int = 100,
        diagnose_every: int = 0,
        diagnosis: Callable[[int], Callback] | None = None,
        **options: Any,
    ):
        _check_options(type(self), options)
        self.settings = StrategySettings(
            warmup_epochs=warmup_epochs,
            gradient_clip_val=gradient_clip_val,
            log_every=log_every,
            contenders=contenders,
            contender_batches=contender_batches,
            rerank=rerank,
            rerank_steps=rerank_steps,
            calibration_batches=calibration_batches,
            norm_affine=norm_affine,
            smoothness=smoothness,
            on_not_finite=on_not_finite,
            on_error=on_error,
            skip_limit=skip_limit,
            diagnose_every=diagnose_every,
        )
        check_arguments(self, self.settings)
        if diagnose_every and diagnosis is None:
            raise ConfigError(
                f"`diagnose_every` of DynamicStrategy is {diagnose_every}, but nothing that diagnoses was handed in. "
                f"Make the strategy by `mutator.strategy(diagnose_every={diagnose_every})`."
            )
        super().__init__()
        mutator.check_sampler()
        check_smoothness(mutator, smoothness)
        self.mutator, self.loaders = mutator, Loaders()
        self.callbacks = [diagnosis(diagnose_every)] if diagnosis is not None and diagnose_every else []

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        if model is not self.mutator.space:
            raise SpaceError(
                f"This strategy searches the space of its mutator, but the experiment has another "
                f"{type(model).__name__}. Write `NasExperiment(mutator.space, evaluator, mutator.strategy())`."
            )
        return model

    def mutate_evaluator(self, evaluator: Lightning) -> Lightning:
        if isinstance(evaluator, Lightning):
            check_evaluator(evaluator, self.settings, self.mutator.sampler.learns)
        return super().mutate_evaluator(evaluator)

    def configure_oneshot_module(self, training_module: LightningModule) -> SearchModule:
        kind = SearchModuleOnBatches if changes_batches(training_module) else SearchModule
        self._module = kind(training_module, self.mutator, self.settings, self.loaders, self.callbacks)
        return self._module

    def train_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        self.loaders.training, self.loaders.validation = train_dataloader_fn, val_dataloader_fn
        training, selects = train_dataloader_fn(), self.mutator.sampler.learns == "selection"
        if selects and not self.settings.contenders:
            return {"train": plain(training)}
        validation = val_dataloader_fn()
        self.loaders.alternate = check_loaders(training, validation)
        return {"train": plain(training)} if selects else {"train": plain(training), "val": plain(validation)}

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        validation = val_dataloader_fn()
        self._module.several_validations = check_validation(self._module.training_module, validation)
        return validation

    def extra_repr(self) -> str:
        return f"sampler={type(self.mutator.sampler).__name__}"


def _check_options(strategy: type, options: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(strategy).parameters if name not in ("mutator", "options", "diagnosis")]
    for name in options:
        raise ConfigError(f"`mutator.strategy()` has no option `{name}`.{did_you_mean(name, known)}")
