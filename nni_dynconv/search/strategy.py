"""The mutator as a strategy of NNI's ``NasExperiment``: NNI's one-shot machinery around a Lightning evaluator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import Lightning, LightningModule
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from pytorch_lightning import Callback

from ..errors import ConfigError, ScopeError, SpaceError, did_you_mean
from ..generation import DynamicNetwork
from ..runs import Run
from ..settings import BaselineSettings, StrategySettings, check, check_arguments, check_final
from ..supernet import DynamicWeightMutator
from .baselines import Comparison
from .closing import Evaluators, Goal, Reports, Trained
from .closing.searching import Closing, Search
from .hooks import changes_batches
from .loaders import Loaders, check_loaders, plain
from .module import SearchModule, SearchModuleOnBatches
from .smoothing import check_smoothness
from .timed import Allotted
from .trainer import check_evaluator, check_validation

__all__ = ["DynamicStrategy"]

PASSED = ("mutator", "options", "diagnosis", "reports", "allotted")
"""Arguments that are handed in from above, and are no options."""


class DynamicStrategy(OneShotStrategy):
    """Search the space of a mutator by training its supernet once.

    Weights and controller train on training batches, by the evaluator's own optimizer and loss. The sampler learns on
    validation batches: by the gradient of a mixture (DARTS) or of two compared architectures (GDAS), its learning rate
    falling in a line over the steps after the warm-up; by rewards, each the negative loss of one drawn architecture
    (ENAS); or by comparing some architectures when training has ended (random, fair). Validation measures the
    architecture that :meth:`DynamicWeightMutator.export` would give, with BatchNorm statistics of its own.

    In the end copies of the best few are trained briefly, from the generated weights on, and the best of them on
    held-out batches is what :meth:`DynamicWeightMutator.export` gives. What that took is printed. An evaluator like the
    one that was given then trains it to its end, and :attr:`network` is that network, with the weights of its best
    epoch.

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
    final_search
        ``draws`` of the sampler are compared, or what an ``evolution`` over the trained supernet measures, which starts
        with such draws.
    population, evaluations, mutation, crossover
        Of the evolution: how many parents there are, how many architectures are measured at most, the probability that
        a choice of a child is made anew, and the share of children that have two parents.
    objectives
        Costs that count besides the loss: ``multiply_adds`` of a sample in a batch as the evaluator has them, with
        those that make its weights; ``parameters`` of a frozen copy; ``generated`` values for a context; ``seconds`` of
        a held-out batch; or names of ``costs``. All that is measured, and no other is better than, is :attr:`front`.
    budget
        The most that an architecture may have of a cost. Others are neither compared nor exported.
    pick, importance
        Which is exported: the one with the lowest ``loss``, or the ``knee`` of the front, where an objective may weigh
        more or less than the loss's 1.
    proxy, proxy_draws
        Which of the draws are measured: those with the best ``synflow`` or ``jacob_cov`` of so many times as many.
    rerank, rerank_steps
        How many of the best are trained in the end, and for how many steps each; 0: none.
    calibration_batches
        Training batches that gather BatchNorm's statistics anew for each architecture before it is measured: in each
        validation the last ones that were trained on, in the end the first of the loader. The supernet's own come back
        afterwards. 0: its own are used, a mixture over all architectures.
    sandwich
        How many drawn architectures each step of the weights takes beside the largest and the smallest, all on the same
        batch, and by the mean of their gradients; 0: one drawn architecture alone. Largest and smallest are as
        :func:`~nni_dynconv.search.costing.extremes` has them, by multiply-adds on the first batch.
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
    checkpoint_minutes
        Minutes between two checkpoints inside an epoch; one is written after each epoch anyway.
    folder
        Where the run is written: checkpoints, from which the same run goes on after a kill; architecture, supernet and
        weights before anything is exported; then the network (``docs/runs.md``). ``None``: nowhere.
    baselines
        Settings of :func:`~nni_dynconv.search.compare`, such as ``{"random": 3}``: what was found is compared in the
        end, and the table printed; ``None``: with nothing.
    metric, optimize_mode
        Which epoch is the best: a name that validation logs, and ``maximize`` or ``minimize``. By default what the
        evaluator's ``ModelCheckpoint`` or ``EarlyStopping`` monitors, else the lowest ``val_loss``.
    reports
        What NNI is told; by default what the evaluator reports by itself, with one final result.
    diagnosis
        Makes the callback that diagnoses every so many epochs; :meth:`DynamicWeightMutator.strategy` hands it in.
    costs
        What an architecture costs, by names for ``objectives`` and ``budget``: called with a sample, or NNI's
        profilers, which are made before the mutator.
    allotted
        How long all of it may take; a trial hands in what NNI and ``launch`` give it. The trainer's ``max_time`` counts
        too: the search ends early enough for what comes after it (``docs/runs.md``).

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

    The sandwich rule is of Yu and Huang, Universally slimmable networks and improved training techniques, ICCV 2019,
    and Yu et al., BigNAS, ECCV 2020; there gradients are summed, where their mean keeps the evaluator's learning rate
    right. In-place distillation, which both add, is not built.

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
        final_search: Literal["draws", "evolution"] = "draws",
        population: int = 20,
        evaluations: int = 400,
        mutation: float = 0.1,
        crossover: float = 0.5,
        objectives: list[str] | None = None,
        budget: dict[str, float] | None = None,
        pick: Literal["loss", "knee"] = "loss",
        importance: dict[str, float] | None = None,
        proxy: Literal["synflow", "jacob_cov"] | None = None,
        proxy_draws: int = 4,
        rerank: int = 5,
        rerank_steps: int = 100,
        calibration_batches: int = 4,
        sandwich: int = 0,
        final_epochs: int | None = None,
        final_start: Literal["generated", "scratch"] = "generated",
        norm_affine: bool = True,
        smoothness: float = 0.0,
        on_not_finite: Literal["stop", "skip"] = "stop",
        on_error: Literal["stop", "skip"] = "stop",
        skip_limit: int = 100,
        diagnose_every: int = 0,
        checkpoint_minutes: float = 10.0,
        folder: str | Path | Run | None = None,
        baselines: Mapping[str, Any] | None = None,
        metric: str | None = None,
        optimize_mode: Literal["maximize", "minimize"] = "maximize",
        reports: Reports | None = None,
        diagnosis: Callable[[int], Callback] | None = None,
        costs: Mapping[str, Any] | None = None,
        allotted: Allotted | None = None,
        **options: Any,
    ):
        _check_options(type(self), options)
        self.settings = StrategySettings(
            warmup_epochs=warmup_epochs,
            gradient_clip_val=gradient_clip_val,
            log_every=log_every,
            contenders=contenders,
            contender_batches=contender_batches,
            final_search=final_search,
            population=population,
            evaluations=evaluations,
            mutation=mutation,
            crossover=crossover,
            objectives=objectives,
            budget=budget,
            pick=pick,
            importance=importance,
            proxy=proxy,
            proxy_draws=proxy_draws,
            rerank=rerank,
            rerank_steps=rerank_steps,
            calibration_batches=calibration_batches,
            sandwich=sandwich,
            final_epochs=final_epochs,
            final_start=final_start,
            norm_affine=norm_affine,
            smoothness=smoothness,
            on_not_finite=on_not_finite,
            on_error=on_error,
            skip_limit=skip_limit,
            diagnose_every=diagnose_every,
            checkpoint_minutes=checkpoint_minutes,
        )
        check_arguments(self, self.settings)
        check_final(self.settings, f"`{type(self).__name__}`", costs or ())
        if diagnose_every and diagnosis is None:
            raise ConfigError(
                f"`diagnose_every` of DynamicStrategy is {diagnose_every}, but nothing that diagnoses was handed in. "
                f"Make the strategy by `mutator.strategy(diagnose_every={diagnose_every})`."
            )
        super().__init__()
        mutator.check_sampler()
        check_smoothness(mutator, smoothness)
        if sandwich and mutator.sampler.mixes:
            raise ConfigError(
                f"`sandwich` of DynamicStrategy is {sandwich}: each step then takes single architectures, but "
                f"{type(mutator.sampler).__name__} trains the mixture of all. Take another sampler, or leave it out."
            )
        self.mutator, self.loaders, self.costs = mutator, Loaders(), dict(costs or {})
        self.closing = Closing(
            mutator,
            self.settings,
            folder if folder is None or isinstance(folder, Run) else Run(folder),
            None if metric is None else Goal(metric, "max" if optimize_mode == "maximize" else "min"),
            Reports() if reports is None else reports,
            None if baselines is None else check(BaselineSettings, baselines, "`baselines` of `mutator.strategy()`"),
            ends_run=not isinstance(folder, Run),
            allotted=Allotted() if allotted is None else allotted,
        )
        self.callbacks = [diagnosis(diagnose_every)] if diagnosis is not None and diagnose_every else []

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        if model is not self.mutator.space:
            raise SpaceError(
                f"This strategy searches the space of its mutator, but the experiment has another "
                f"{type(model).__name__}. Write `NasExperiment(mutator.space, evaluator, mutator.strategy())`."
            )
        return model

    def mutate_evaluator(self, evaluator: Lightning) -> Lightning:
        if not isinstance(evaluator, Lightning):
            return super().mutate_evaluator(evaluator)
        check_evaluator(evaluator, self.settings, self.mutator.sampler.learns)
        clip, shared = self.settings.gradient_clip_val, (self.mutator, self.closing)
        evaluators = Evaluators(evaluator, shared, **({} if clip is None else {"gradient_clip_val": clip}))
        return Search(super().mutate_evaluator(evaluator), evaluators, self.closing)

    @property
    def trained(self) -> Trained:
        """What the search found and trained: network, result, epochs.

        Raises
        ------
        ScopeError
            It has not been run.
        """
        if self.closing.trained is None:
            raise ScopeError("Nothing is found yet. Run the experiment first: `NasExperiment(...).run()`.")
        return self.closing.trained

    @property
    def network(self) -> DynamicNetwork:
        """What the search found, trained: a plain module ``network(x, context)``, in evaluation mode, on the CPU.

        Raises
        ------
        ScopeError
            It has not been run.
        """
        return self.trained.network

    @property
    def has_time(self) -> bool:
        """Whether there is time for what a run can do without; always where its time is not limited."""
        limit = self.closing.limit
        return limit is None or limit.left > limit.to_write

    @property
    def comparison(self) -> Comparison | None:
        """What was compared with ``baselines``."""
        return self.closing.comparison

    def configure_oneshot_module(self, training_module: LightningModule) -> SearchModule:
        kind = SearchModuleOnBatches if changes_batches(training_module) else SearchModule
        self._module = kind(training_module, self.mutator, self.settings, self.loaders, self.callbacks)
        self._module.costs = self.costs
        self._module.history = None if self.closing.run is None else self.closing.run.history
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

    @property
    def front(self) -> list[dict[str, Any]]:
        """The front that the last search ended with, by rising loss: ``architecture``, ``loss`` and the objectives."""
        return list(self.mutator.sampler.front)

    def extra_repr(self) -> str:
        return f"sampler={type(self.mutator.sampler).__name__}"


def _check_options(strategy: type, options: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(strategy).parameters if name not in PASSED]
    for name in options:
        raise ConfigError(f"`mutator.strategy()` has no option `{name}`.{did_you_mean(name, known)}")
