"""A comparison: each network is trained alike, from scratch, and measured on batches that chose nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.evaluator.pytorch import Lightning
from torch import Tensor, nn

from ...samplers import RandomSampler
from ...settings import BaselineSettings
from ...supernet import DynamicWeightMutator
from ..closing import Evaluators, Goal, Trained, from_scratch, goal_of, train_network
from ..resuming import Keeper, KeepTraining
from .jury import Jury
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
    jury = Jury(evaluators, goal)
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
            entries.append(jury.entry(*rival, done))
            network = rival.network.state_dict() if isinstance(rival.network, StaticTwin) else None
            keeper.finish(stage, {"entry": entries[-1]._asdict(), "network": network})
        else:
            entries.append(Entry(**kept["entry"]))
            if kept["network"] is not None:
                rival.network.eval().load_state_dict(kept["network"])
        twin = rival.network.network if isinstance(rival.network, StaticTwin) else twin
    left_out = _left_out(mutator, entries, settings)
    return Comparison(entries, jury.names, goal.mode, jury.measured_on, left_out, twin)


def _first_entry(jury: Jury, rival: _Rival, trained: Trained, keeper: Keeper) -> Entry:
    """Return the entry of what went on, as it was measured before the run was interrupted."""
    kept = keeper.done("comparison 0")
    if kept is None:
        kept = {"entry": jury.entry(*rival, trained)._asdict()}
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
