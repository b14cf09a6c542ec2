"""A comparison: each network is trained alike, from scratch, and measured on batches that chose nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.evaluator.pytorch import Lightning
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from ...errors import ConfigError
from ...samplers import RandomSampler
from ...settings import BaselineSettings
from ...supernet import DynamicWeightMutator
from ..closing import Evaluators, Goal, Trained, from_scratch, goal_of, measure, train_network
from ..resuming import Keeper, KeepTraining
from .rivals import ShuffledContexts, StaticTwin
from .table import FOUND, RANDOM, SHUFFLED, TWIN, WENT_ON, Comparison, Entry

__all__ = ["compare", "compare_with"]

DRAWS = 50  # for each random architecture that is wanted, before a space counts as too small


class _Rival(NamedTuple):
    kind: str
    network: nn.Module
    architecture: dict[str, Any]


def compare(
    mutator: DynamicWeightMutator,
    evaluator: Lightning,
    trained: Trained,
    initial: Mapping[str, Tensor],
    *,
    random: int = 3,
    epochs: int | None = None,
    static: bool = True,
    shuffled: bool = True,
    seed: int = 0,
    goal: Goal | None = None,
) -> Comparison:
    """Compare what a search found with its baselines, each trained from scratch by an evaluator, for the same steps.

    Parameters
    ----------
    mutator
        The searched one; it stays as it is.
    evaluator
        NNI's Lightning evaluator. Its ``test_dataloaders`` (an attribute that you set), or those of its module or data
        module, measure; without any, its validation batches do, and the table says so.
    trained
        What was found, and went on.
    initial
        ``mutator.space.state_dict()`` from before the search, copied: what everything starts from.
    random
        How many random architectures of the space.
    epochs
        Of each training; by default as many as ``trained`` took, or, where that was none, the evaluator's own number.
    static, shuffled
        Whether the static twin is compared, and what was found with contexts that are not its samples' own.
    seed
        Decides the architectures, and the order of batches, the same one for each training.
    goal
        As of :func:`~nni_dynconv.train_final`.

    Raises
    ------
    ConfigError
        Nothing measures: the evaluator has no held-out batches, or logs no such metric on its test batches.
    """
    settings = BaselineSettings(random=random, epochs=epochs, static=static, shuffled=shuffled, seed=seed)
    return compare_with(mutator, Evaluators(evaluator), trained, initial, settings, goal)


def compare_with(
    mutator: DynamicWeightMutator,
    evaluators: Evaluators,
    trained: Trained,
    initial: Mapping[str, Tensor],
    settings: BaselineSettings,
    goal: Goal | None = None,
    keeper: Keeper | None = None,
) -> Comparison:
    """Compare as :func:`compare` does, by evaluators that are made alike, and keep how far that is."""
    goal = goal_of(evaluators.callbacks, goal)
    jury = _Jury(evaluators, goal)
    found: Any = trained.network
    keeper = keeper or Keeper()
    entries = [_first_entry(jury, _Rival(WENT_ON, found, found.architecture), trained, keeper)]
    epochs = settings.epochs or trained.epochs or None
    twin = None
    for number, rival in enumerate(_rivals(mutator, found.architecture, initial, settings)):
        what, stage = f"comparing with {rival.kind}", f"comparison {number + 1}"
        kept = keeper.done(stage)
        if kept is None:
            with torch.random.fork_rng():
                torch.manual_seed(settings.seed)
                keeping = KeepTraining(keeper, stage)
                done = train_network(
                    rival.network, evaluators, epochs, goal, "scratch", alike=True, phase=what, keeping=keeping
                )
            entries.append(jury.entry(rival, done))
            network = rival.network.state_dict() if isinstance(rival.network, StaticTwin) else None
            keeper.finish(stage, {"entry": entries[-1]._asdict(), "network": network})
        else:
            entries.append(Entry(**kept["entry"]))
            if kept["network"] is not None:
                rival.network.eval().load_state_dict(kept["network"])
        twin = rival.network.network if isinstance(rival.network, StaticTwin) else twin
    left_out = _left_out(mutator, entries, settings)
    return Comparison(entries, jury.names, goal.mode, jury.measured_on, left_out, twin)


def _first_entry(jury: _Jury, rival: _Rival, trained: Trained, keeper: Keeper) -> Entry:
    """Return the entry of what went on, as it was measured before the run was interrupted."""
    kept = keeper.done("comparison 0")
    if kept is None:
        kept = {"entry": jury.entry(rival, trained)._asdict()}
        keeper.finish("comparison 0", kept)
    jury.names = list(kept["entry"]["metrics"])
    return Entry(**kept["entry"])


def _rivals(
    mutator: DynamicWeightMutator, sample: Mapping[str, Any], initial: Mapping[str, Tensor], settings: BaselineSettings
) -> Iterator[_Rival]:
    """Yield the networks to train, each made when it is wanted."""
    sample = dict(sample)
    yield _Rival(FOUND, from_scratch(mutator, sample, initial), sample)
    if settings.static:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            twin = StaticTwin(from_scratch(mutator, sample, initial))
        yield _Rival(TWIN, twin, sample)  # outside of the block, which would end in the middle of what comes after
    if settings.shuffled and mutator.source.of_context is not None:
        network = ShuffledContexts(from_scratch(mutator, sample, initial), settings.seed)
        yield _Rival(SHUFFLED, network, sample)
    for one in _random(mutator, sample, settings):
        yield _Rival(RANDOM, from_scratch(mutator, one, initial), one)


def _random(
    mutator: DynamicWeightMutator, sample: Mapping[str, Any], settings: BaselineSettings
) -> list[dict[str, Any]]:
    """Return distinct random architectures of a space, as many as there are; the one that was found is none of them."""
    if not mutator.choices:
        return []
    sampler, found = RandomSampler(seed=settings.seed), []
    sampler.bind(mutator.choices)
    for _ in range(DRAWS * settings.random):
        drawn = dict(sampler.sample())
        if drawn != sample and drawn not in found:
            found.append(drawn)
        if len(found) == settings.random:
            break
    return found


def _left_out(mutator: DynamicWeightMutator, entries: Sequence[Entry], settings: BaselineSettings) -> list[str]:
    count = sum(one.kind == RANDOM for one in entries)
    words = []
    if settings.shuffled and mutator.source.of_context is None:
        words.append("Left out: shuffled contexts, for no context is given that could be another sample's.")
    if count < settings.random:
        words.append(f"Left out: {settings.random - count} of {settings.random} random architectures: there are none.")
    return words


class _Jury:
    """Measures networks on batches that chose nothing, where the evaluator has any.

    Parameters
    ----------
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

    def entry(self, rival: _Rival, trained: Trained) -> Entry:
        """Return a network's entry in the table."""
        measured = self._measured(rival.network)
        self.names = self.names or self._names(measured)
        return Entry(
            rival.kind,
            rival.architecture,
            {name: measured[name] for name in self.names},
            self._multiply_adds(rival.network),
            sum(one.numel() for one in rival.network.parameters()),
            trained.seconds,
            trained.epochs,
        )

    def _measured(self, network: nn.Module) -> dict[str, float]:
        made = self.evaluators.make(alike=True)
        return _tested(network, made) if self._tests else measure(network, made)

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
