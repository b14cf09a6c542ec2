"""A search as NNI runs it, from its first step to a network that is trained, measured, written and compared."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import Lightning
from torch import Tensor

from ... import export
from ...generation import DynamicNetwork
from ...keeping import Store, generators
from ...runs import Run
from ...samplers import distributed
from ...settings import BaselineSettings, StrategySettings
from ...supernet import DynamicWeightMutator
from ..baselines import TWIN, Comparison, compare_with
from ..resuming import Keeper, KeepTraining, described
from ..timed import Allotted, Needs, StopInTime, Tempo, TimeLimit, allotted_by, comparison_seconds
from .best import Goal, goal_of
from .evaluators import Evaluators
from .reports import Reports, words_of
from .scratch import from_scratch, initial_of
from .training import Trained, measure, train_network
from .writing import Writer, called_by

__all__ = ["Closing", "Search"]

TOLD = "told.jsonl"
"""What NNI was told, beside the checkpoints."""


@dataclass
class Closing:
    """What a strategy is told of a run's end.

    Parameters
    ----------
    mutator, settings
        Of the strategy.
    run
        Where it is written; ``None``: nowhere.
    goal
        What tells the best epoch; ``None``: the evaluator's callbacks.
    reports
        What NNI is told.
    baselines
        What is compared with in the end; ``None``: nothing.
    ends_run
        Whether nothing comes after it, so that its checkpoints can go.
    allotted
        How long all of it may take.

    Attributes
    ----------
    keeper
        Of the run's checkpoints, from its beginning on.
    initial
        The space's tensors from before the search, where something is trained from scratch.
    limit
        Of the run's time; ``None``: there is none.
    cut
        What the search's time was too short for, as a sentence.
    trained, comparison
        What came out.
    """

    mutator: DynamicWeightMutator
    settings: StrategySettings
    run: Run | None = None
    goal: Goal | None = None
    reports: Reports = field(default_factory=Reports)
    baselines: BaselineSettings | None = None
    ends_run: bool = True
    allotted: Allotted = field(default_factory=Allotted)
    keeper: Keeper = field(default_factory=Keeper)
    initial: dict[str, Tensor] | None = None
    limit: TimeLimit | None = None
    cut: str | None = None
    trained: Trained | None = None
    comparison: Comparison | None = None


class Search(Lightning):
    """The evaluator that NNI runs in a search.

    Parameters
    ----------
    searching
        What NNI made of the user's evaluator: the supernet is trained by it.
    evaluators
        Makes such as the user gave.
    closing
        What is to be done in the end; what came out is put into it.
    """

    def __init__(self, searching: Lightning, evaluators: Evaluators, closing: Closing):
        data = {"datamodule": searching.datamodule}
        if searching.datamodule is None:
            loaders = searching.train_dataloaders, searching.val_dataloaders
            data = dict(zip(("train_dataloaders", "val_dataloaders"), loaders, strict=True))
        super().__init__(searching.module, searching.trainer, fit_kwargs=dict(searching.fit_kwargs), **data)
        self.evaluators, self.closing = evaluators, closing

    def is_mutable(self) -> bool:
        return False  # what NNI made of the user's evaluator was asked; for an answer all arguments would be traced

    def search(self, model: Any) -> None:
        """Train the supernet, and compare the best few."""
        if self.closing.keeper.store is not None:
            self.module.keeping = KeepTraining(self.closing.keeper, "search", self.module)
            self.fit_kwargs.update(self.module.keeping.fit_kwargs)
        super().evaluate(model)

    def evaluate(self, model: Any) -> None:
        """Search, train what was found to its end, and report, write and compare it."""
        closing = self.closing
        writer = Writer(closing.run, self.trainer.is_global_zero)
        closing.keeper = keeper = self._keeper()
        goes_on = keeper.read()
        closing.limit = self._limit()
        closing.initial = keeper.done("beginning")["initial"] if goes_on else self._initial()
        writer.began()
        self._keep_beside(goes_on)
        if not goes_on:
            keeper.finish("beginning", {"initial": closing.initial})
        with closing.reports.between() as reports, keeper.going():
            reports.phase = "search"
            network = self._searched(model)
            writer.searched(closing.mutator, network, network.architecture)
            trained = closing.trained = self._trained(network, reports)
            writer.trained(trained)
            reports.final(trained.result, architecture=words_of(network.architecture))
            reports.phase = "comparison"
            writer.exported(trained, self.evaluators)
            if closing.baselines is not None and self._has_time_to_compare(writer, closing.baselines, trained):
                writer.without_failing("baselines", self.compare)
            writer.shown()
        if closing.ends_run:
            keeper.over()

    def _keep_beside(self, goes_on: bool) -> None:
        """Let what NNI was told, and the run's history, go on from where they were."""
        keeper, run, reports = self.closing.keeper, self.closing.run, self.closing.reports
        if keeper.store is None or run is None:
            return
        known: dict[str, Any] = keeper.found_beside if goes_on else {"told": None, "history": run.history.size}
        reports.keep(run.checkpoints / TOLD, known["told"])
        run.history.cut(known["history"])
        keeper.beside = lambda: {"told": reports.count, "history": run.history.size}

    def _keeper(self) -> Keeper:
        """Return what keeps the run: nothing, where there is no folder, and where several processes train together."""
        closing, trainer = self.closing, self.trainer
        if closing.run is None or trainer.fast_dev_run:
            return Keeper()
        if trainer.world_size > 1 or trainer.strategy.launcher is not None:
            if trainer.is_global_zero:
                print("Several processes train together, and write no checkpoints: killed, the run begins anew.")
            return Keeper()
        about = described(closing.mutator, closing.settings, self.module.training_module, trainer)
        told = {"run": dict(closing.run.facts.get("settings") or {}), "baselines": repr(closing.baselines)}
        store = Store(closing.run.checkpoints, {**told, **about})
        return Keeper(store, closing.settings.checkpoint_minutes, self.evaluators.drawing)

    def _limit(self) -> TimeLimit | None:
        """Return what the trainer, and who started the run, give it in time."""
        keeper = self.closing.keeper
        seconds = min(allotted_by(self.trainer), self.closing.allotted.after(keeper.spent))
        unlimited = math.isinf(seconds) or self.trainer.fast_dev_run
        return None if unlimited else TimeLimit(seconds, lambda: keeper.spent)

    def _search_in_time(self) -> StopInTime | None:
        """Return what ends the search early enough for what comes after it."""
        closing, limit = self.closing, self.closing.limit
        if limit is None:
            return None
        epochs = self.trainer.max_epochs if closing.settings.final_epochs is None else closing.settings.final_epochs
        epochs = math.inf if epochs is None or epochs < 0 else epochs
        selects = closing.mutator.sampler.learns == "selection"
        needs = Needs(closing.settings, epochs, selects)
        what = "re-ranking and the final training"

        def left(tempo: Tempo) -> float:
            return limit.for_search(needs.comparing(tempo), needs.training(tempo))

        return StopInTime(limit, left, "search", what)

    def _train_in_time(self) -> StopInTime | None:
        limit, what = self.closing.limit, "measuring and writing what it trained"
        if limit is None:
            return None
        return StopInTime(limit, lambda tempo: limit.for_training(tempo.validation), "final training", what)

    def _searched(self, model: Any) -> DynamicNetwork:
        """Search, and return what was found; or what was found before the run was interrupted."""
        keeper, mutator = self.closing.keeper, self.closing.mutator
        kept = keeper.done("search")
        if kept is None:
            in_time = self.module.in_time = self._search_in_time()
            self.search(model)
            cut = self.closing.cut = None if in_time is None else in_time.cut
            network = self._found()
            keeper.finish("search", {"mutator": mutator.state_dict(), "network": _state(network), "cut": cut})
            return network
        self.closing.cut = kept["cut"]
        mutator.load_state_dict(kept["mutator"])
        return _rebuilt(mutator, kept["network"])

    def _trained(self, network: DynamicNetwork, reports: Reports) -> Trained:
        """Train what was found, or return what became of it before the run was interrupted."""
        keeper = self.closing.keeper
        kept = keeper.done("final training")
        if kept is None:
            trained = self._finish(network, reports)
            cut = [] if self.closing.cut is None else [self.closing.cut]
            trained = replace(trained, cut=[*cut, *trained.cut])
            facts = {one.name: getattr(trained, one.name) for one in fields(trained) if one.name != "network"}
            keeper.finish("final training", {"network": _state(trained.network), "facts": facts})
            return trained
        return Trained(_rebuilt(self.closing.mutator, kept["network"]), **kept["facts"])

    def _initial(self) -> dict[str, Tensor] | None:
        if self.closing.settings.final_start != "scratch" and self.closing.baselines is None:
            return None
        return initial_of(self.closing.mutator)

    def _found(self) -> DynamicNetwork:
        """Return the winner with the weights that its training starts from, and BatchNorm statistics of its own."""
        mutator = self.closing.mutator
        distributed.agree(mutator.sampler)
        sample = mutator.export()
        if self.closing.settings.final_start == "scratch" and self.closing.initial is not None:
            return from_scratch(mutator, sample, self.closing.initial)
        # a loader draws when it is gone through, which no training may see
        with generators.untouched(self.evaluators.drawing):
            return self._with_weights(sample)

    def _with_weights(self, sample: dict[str, Any]) -> DynamicNetwork:
        """Return an architecture with what the re-ranking trained, or else the supernet's weights."""
        mutator, module = self.closing.mutator, self.module
        if module.reranked is None:
            with module.own_statistics(sample):
                return mutator.freeze(sample).eval()
        network = mutator.freeze(sample).eval()
        network.load_state_dict(module.reranked)
        module.calibrate(network)
        return network

    def _finish(self, network: DynamicNetwork, reports: Reports) -> Trained:
        settings, goal = self.closing.settings, self.closing.goal
        if settings.final_epochs != 0:
            epochs, start = settings.final_epochs, settings.final_start
            history = None if self.closing.run is None else self.closing.run.history
            keeping, in_time = KeepTraining(self.closing.keeper, "final training"), self._train_in_time()
            how: dict[str, Any] = {"reports": reports, "history": history, "keeping": keeping, "in_time": in_time}
            trained = train_network(network, self.evaluators, epochs, goal, start, **how)
        else:
            reports.phase = "result"
            made, goal = self.evaluators.make(), goal_of(self.evaluators.callbacks, goal)
            metrics = measure(network, made)
            value = metrics.get(goal.metric)
            metric = None if value is None else goal.metric
            trained = Trained(network.cpu().eval(), settings.final_start, 0, metric, value, metrics=metrics)
        if self.trainer.is_global_zero:
            print(trained, flush=True)
        return trained

    def _has_time_to_compare(self, writer: Writer, baselines: BaselineSettings, trained: Trained) -> bool:
        """Whether a comparison is over in time; one that is not is left out, and that is said."""
        limit = self.closing.limit
        if limit is None:
            return True
        needed = comparison_seconds(baselines, trained.epochs, trained.seconds)
        fits = distributed.of_first(needed <= limit.left - limit.to_write)
        if not fits:
            words = (
                f"The comparison with baselines was left out: it takes about {needed:.0f} s, and "
                f"{max(limit.left, 0.0):.0f} s were left of the {limit.seconds:.0f} s that this run may take."
            )
            self.closing.trained = trained = replace(trained, cut=[*trained.cut, words])
            writer.cut(trained.cut)
        return fits

    def compare(self) -> None:
        """Compare what was found with its baselines, and write and tell the table."""
        closing = self.closing
        if closing.trained is None or closing.initial is None or closing.baselines is None:
            return
        closing.comparison = compare_with(
            closing.mutator,
            self.evaluators,
            closing.trained,
            closing.initial,
            closing.baselines,
            closing.goal,
            closing.keeper,
        )
        comparison = closing.comparison
        if self.trainer.is_global_zero:
            print(comparison, flush=True)
            if closing.run is not None:
                comparison.write(closing.run)
                self._save_twin(comparison, closing.run, closing.trained.network)

    def _save_twin(self, comparison: Comparison, run: Run, network: DynamicNetwork) -> None:
        """Export the static twin, which is called as the network is but for the context."""
        call = called_by(self.evaluators, network)
        if comparison.twin is not None:
            own = None if call is None else call._replace(context=None, index=None)
            results = next(one.metrics for one in comparison.entries if one.kind == TWIN)
            export.save(comparison.twin, run.twin, example=own, results=results)


def _state(network: DynamicNetwork) -> dict[str, Any]:
    return {"architecture": dict(network.architecture), "tensors": network.state_dict()}


def _rebuilt(mutator: DynamicWeightMutator, kept: dict[str, Any]) -> DynamicNetwork:
    network = mutator.freeze(kept["architecture"]).cpu().eval()
    network.load_state_dict(kept["tensors"])
    return network
