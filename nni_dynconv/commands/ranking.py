"""What ``nni-dynconv rank`` finds out: how far scores by generated weights foretell what training gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .. import export
from ..errors import ConfigError, RankError
from ..experiments import trial
from ..phases import phase, shown
from ..runs import Run
from ..search import (
    PROXIES,
    Fidelity,
    Row,
    SupernetRanking,
    Task,
    called_on,
    distinct,
    fidelity,
    first_batches,
    generated_losses,
    loaders_of,
    network_loss,
    proxy_scores,
    silent,
)
from ..supernet import DynamicWeightMutator
from .shared import hushed

__all__ = ["rank"]

DRAWS = 50  # for each architecture that is wanted, before a space counts as too small
Start = Literal["scratch", "generated"]


def rank(
    settings: Mapping[str, Any],
    supernet: str | Path,
    *,
    architectures: int = 32,
    trained: int = 8,
    start: Start = "scratch",
    batches: int = 16,
    calibration: int = 4,
    say: Callable[[str], object] = lambda line: None,
) -> SupernetRanking:
    """Score architectures by a supernet's generated weights, train some of them, and compare.

    Parameters
    ----------
    settings
        The long form of ``tuner.classArgs``; its evaluator scores and trains.
    supernet
        Folder of a run, or one that :func:`~nni_dynconv.export.save_supernet` wrote, such as the ``checkpoint`` of
        multi-trial mode.
    architectures
        How many are drawn and scored.
    trained
        How many of those are trained, drawn at random: once in full, and once for one epoch.
    start
        ``scratch``: fresh weights; ``generated``: the supernet's.
    batches, calibration
        Held-out batches that a score is made of, and training batches for BatchNorm's statistics.
    say
        Told about each training.

    Raises
    ------
    RankError
        Fewer than two are to be trained, more than are drawn, or the space has fewer.
    ConfigError
        The settings name no ``metric``, ``start`` is neither, ``batches`` is below 1, the evaluator has no held-out or
        training batches, or several loaders of them, or its trainer would start the command again for each process.
    """
    _check(settings, trained, architectures, start, batches)
    settings = {**settings, "mode": "one_shot", "checkpoint": None, "hyper_tuner": None}
    mutator, evaluator, _ = trial.build(settings, sampler={"name": "random", "seed": settings["seed"]})
    trial.check_launcher(evaluator)
    supernet = Run.supernet_in(supernet)
    export.load_supernet(mutator, supernet)
    samples, task = _draw(mutator, architectures), _task(evaluator, batches, calibration)
    fresh, _, _ = trial.build(settings)
    evaluator.module.set_model(mutator.space)
    with silent(evaluator.module):
        proxies, seconds = _proxies(fresh, samples, task, say)
        began = time.monotonic()
        scores = [-loss for loss in generated_losses(mutator, samples, task)]
    seconds = {"generated": time.monotonic() - began, "one_epoch": 0.0, "trained": 0.0, **seconds}
    rows = [
        Row(sample, score, _parameters(mutator, sample), **{name: found[place] for name, found in proxies.items()})
        for place, (sample, score) in enumerate(zip(samples, scores, strict=True))
    ]
    with shown(), phase("training", trained, "architecture") as now:
        for number, row in enumerate(rows[:trained]):  # drawn at random, so any few of them are
            found: dict[str, Any] = {}
            for name, epochs in (("one_epoch", 1), ("trained", None)):
                began = time.monotonic()
                found[name] = _train(settings, row.sample, supernet if start == "generated" else None, epochs)
                seconds[name] += time.monotonic() - began
            rows[number] = row._replace(**found)
            now.advance()
            say(f"trained {number + 1} of {trained}: {row.sample}")
    found_fidelity = _fidelity(rows[:trained])
    rows.sort(key=lambda row: -row.generated)
    return SupernetRanking(rows, found_fidelity, seconds, settings["metric"], start)


def _check(settings: Mapping[str, Any], trained: int, architectures: int, start: str, batches: int) -> None:
    if not settings.get("metric"):
        raise ConfigError("Ranking needs a `metric`: the name by which the evaluator logs a trained network's worth.")
    if start not in ("scratch", "generated"):
        raise ConfigError(f"`start` is {start!r}, but must be 'scratch' or 'generated'.")
    if batches < 1:
        raise ConfigError(f"`batches` is {batches}, but must be 1 or more: a score is the mean loss on these.")
    if not 2 <= trained <= architectures:
        raise RankError(
            f"{trained} of {architectures} architectures are to be trained; it must be two at least, and not more than "
            f"are drawn."
        )


def _draw(mutator: DynamicWeightMutator, count: int) -> list[dict[str, Any]]:
    samples = distinct(mutator.sampler.sample() for _ in range(DRAWS * count))[:count]
    if len(samples) < count:
        raise RankError(
            f"{count} architectures are wanted, but {DRAWS * count} draws gave only {len(samples)} different ones. Ask "
            f"for fewer."
        )
    return samples


def _proxies(
    mutator: DynamicWeightMutator, samples: Sequence[dict[str, Any]], task: Task, say: Callable[[str], object]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the scores of each zero-cost proxy that serves here, of fresh weights, and the seconds that they took."""
    found: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for name in PROXIES:
        began = time.monotonic()
        try:
            found[name] = proxy_scores(name, mutator, samples, called_on(mutator, task, samples[0]))
        except (RankError, ConfigError) as error:
            say(f"without `{name}`: {error}")
        else:
            seconds[name] = time.monotonic() - began
    return found, seconds


def _task(evaluator: Any, batches: int, calibration: int) -> Task:
    def same(batch: Any) -> Any:
        return batch

    held_out = first_batches(loaders_of(evaluator, "val", "score architectures with"), batches, same)
    training = first_batches(loaders_of(evaluator, "train", "gather statistics with"), calibration, same)
    return Task(network_loss(evaluator.module), held_out, training)


def _parameters(mutator: DynamicWeightMutator, sample: Mapping[str, Any]) -> int:
    network = mutator.freeze(sample).network
    return sum(one.numel() for one in network.parameters()) + mutator.plan(sample).num_generated


def _train(
    settings: Mapping[str, Any], sample: Mapping[str, Any], supernet: str | Path | None, epochs: int | None
) -> float:
    """Train one architecture by the evaluator and return the metric, higher better."""
    mutator, evaluator, callback = trial.build(settings)
    hushed(evaluator)
    if supernet is not None:
        export.load_supernet(mutator, supernet)
    if epochs is not None:
        evaluator.trainer.fit_loop.max_epochs = epochs
    evaluator.evaluate(mutator.freeze(sample))
    last = callback.last(evaluator.trainer)
    if last is None:
        raise RankError(f"The evaluator logged no `{settings['metric']}`: it ran no validation.")
    return last if settings["optimize_mode"] == "maximize" else -last


def _fidelity(rows: Sequence[Row]) -> dict[str, Fidelity]:
    truth = [row.trained for row in rows if row.trained is not None]  # one that is missing is told as such
    k = max(1, min(5, len(rows) // 3))
    names = [name for name in ("generated", "one_epoch", "parameters", *PROXIES) if getattr(rows[0], name) is not None]
    return {name: fidelity([float(getattr(row, name)) for row in rows], truth, k) for name in names}
