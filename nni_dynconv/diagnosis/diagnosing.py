"""``diagnose``: measure a mutator on batches, and judge what was measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import ConfigError, did_you_mean
from . import judging_search, judging_weights, summary
from .comparing import lessons
from .diagnosis import Diagnosis
from .findings import Finding, Severity
from .measuring import architectures, is_paired, run_all
from .recording import kept
from .spots import norms_of
from .thresholds import CODES
from .whose import whose_reading

if TYPE_CHECKING:
    from ..supernet import DynamicWeightMutator

__all__ = ["diagnose"]


def diagnose(
    mutator: DynamicWeightMutator,
    batches: Iterable[Any],
    loss: Callable[[Any, Any], Tensor] | None = None,
    *,
    step: Callable[[Any], Tensor] | None = None,
    progress: float | None = None,
    started: float | None = None,
    samples: int = 12,
    limit: int = 12,
    ignore: Collection[str] = (),
    seed: int = 0,
) -> Diagnosis:
    """Tell whether generated weights have the right scale, the controller is alive, and the search is not stuck.

    The network runs in the mode that it is in; whether each sample gets its own weights is looked at in evaluation
    mode. Nothing is trained, and nothing is left behind: sample, sampler,
    buffers, gradients and torch's global generators are as before.

    Parameters
    ----------
    mutator
        At the start, during, or after a search.
    batches
        ``((x, context), y)``, or ``(x, y)`` without context, as NNI's evaluators take them; on the mutator's device.
    loss
        ``loss(output, y)``, a scalar.
    step
        ``step(batch)`` gives the loss itself, for who has a training step already; in the place of ``loss``.
    progress
        How far the search is, from 0 (nothing is trained yet) to 1. What is normal at the end, such as a sampler that
        has decided, is a fault at the start, and the other way round. ``None``: unknown; what depends on it is not
        judged as a fault.
    started
        Loss of the network with its first weights, before it was trained; a diverged training is told by it.
    samples
        Architectures to run, at least; each candidate stands in one or more.
    limit
        Batches to take, at most.
    ignore
        Codes of findings to leave out.
    seed
        Decides architectures and shuffles.

    Raises
    ------
    ConfigError
        Neither or both of ``loss`` and ``step`` are given, a code is unknown, or there is no batch.
    ScopeError
        NNI's own strategy chooses (``sampler=False``).

    Examples
    --------
    >>> print(diagnose(mutator, loader, F.cross_entropy, progress=0.0))  # doctest: +SKIP
    """
    mutator.check_sampler()
    _check_arguments(loss, step, progress, ignore)
    if step is None:
        step = _step_of(mutator, loss)
    space = mutator.space
    states = {name: summary.NormState.of(norm, space.training) for name, norm in norms_of(space).items()}
    device = next((one.device for one in space.parameters()), None)
    with kept(mutator):
        taken = list(islice(batches, limit))
        if not taken:
            raise ConfigError("There is no batch to diagnose with: `batches` is empty.")
        on_device = pytree.tree_map(lambda one: one.to(device) if isinstance(one, Tensor) else one, taken)
        drawn = architectures(mutator, samples, seed)
        runs = run_all(mutator, on_device, drawn, step)
        each = max((len(choice) for choice in mutator.choices.values()), default=1)  # so many have each candidate
        whose = whose_reading(mutator, on_device, drawn[:each], step, seed)
        taught = lessons(mutator, on_device, drawn, step)
    sites = summary.site_readings(mutator, runs)
    measured = Diagnosis(
        progress=progress,
        runs=len(runs),
        loss=fmean(run.loss for run in runs),
        sites=sites,
        context=summary.context_reading(mutator, runs, sites),
        candidates=summary.candidate_readings(mutator, runs),
        choices=summary.choice_readings(mutator, taught),
        norms=summary.norm_readings(states, runs),
        whose=whose,
        started=started,
    )
    findings = tuple(one for one in _judge(measured) if one.code not in ignore)
    return measured._replace(findings=findings)


def _check_arguments(loss: Any, step: Any, progress: float | None, ignore: Collection[str]) -> None:
    if (loss is None) == (step is None):
        raise ConfigError("`diagnose` needs either `loss`, as in `loss(output, y)`, or `step`, as in `step(batch)`.")
    if progress is not None and not 0 <= progress <= 1:
        raise ConfigError(f"`progress` is {progress}, but must be between 0 (the start) and 1 (the end).")
    for code in ignore:
        if code not in CODES:
            raise ConfigError(f"There is no finding `{code}` to ignore.{did_you_mean(code, CODES)}")


def _judge(diagnosis: Diagnosis) -> list[Finding]:
    """Return what is wrong with what was measured, what spoils most first."""
    findings = [*judging_weights.not_finite(diagnosis), *judging_weights.zero_controller(diagnosis)]
    findings = findings or judging_search.diverged(diagnosis)
    if not findings:  # which would show in all of these, too
        findings += [*judging_weights.scales(diagnosis), *judging_weights.context(diagnosis)]
        findings += judging_weights.whose(diagnosis)
        findings += [*judging_search.candidates(diagnosis), *judging_search.choices(diagnosis)]
    findings += [*judging_search.norms(diagnosis), *judging_search.sampler(diagnosis)]
    order: Sequence[Severity] = ("fault", "warning", "note")
    return sorted(findings, key=lambda one: order.index(one.severity))


def _step_of(mutator: DynamicWeightMutator, loss: Any) -> Callable[[Any], Tensor]:
    def step(batch: Any) -> Tensor:
        if is_paired(mutator, batch):
            (x, context), y = batch
            return loss(mutator(x, context=context), y)
        x, y = batch
        return loss(mutator(x), y)

    return step
