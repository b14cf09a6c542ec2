"""From runs to readings: the same numbers over all architectures and batches."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..sites import WeightSpec
from .measuring import Run
from .readings import CandidateReading, ChoiceReading, ContextReading, NormReading, SiteReading
from .recording import OpCall, rms
from .spots import candidates_of, given_weights, is_free, sites_in

if TYPE_CHECKING:
    from ..supernet import DynamicWeightMutator

__all__ = ["NormState", "candidate_readings", "choice_readings", "context_reading", "norm_readings", "site_readings"]


class NormState(NamedTuple):
    """A normalisation as it was before anything ran: mode, the network's mode, running statistics and how settled."""

    training: bool
    expected: bool
    updates: int | None
    left: float | None
    mean: Tensor | None
    variance: Tensor | None

    @classmethod
    def of(cls, norm: _BatchNorm, expected: bool) -> NormState:
        if norm.running_mean is None or norm.running_var is None:
            return cls(norm.training, expected, None, None, None, None)
        updates = int(norm.num_batches_tracked) if norm.num_batches_tracked is not None else None
        momentum = 1.0 if norm.momentum is None else norm.momentum  # torch's word for the mean of all
        left = None if updates is None else (1 - momentum) ** updates
        return cls(norm.training, expected, updates, left, norm.running_mean.clone(), norm.running_var.clone())


# Sites


def site_readings(mutator: DynamicWeightMutator, runs: Sequence[Run]) -> tuple[SiteReading, ...]:
    """Sum up each site that ran."""
    seen: dict[str, list[tuple[Run, list[OpCall]]]] = defaultdict(list)
    for run in runs:
        for site, calls in run.record.ops.items():
            seen[site].append((run, calls))
    return tuple(_site(site, found, given_weights(mutator, site)) for site, found in seen.items())


def _site(site: str, found: Sequence[tuple[Run, list[OpCall]]], given: Mapping[str, Tensor] | None) -> SiteReading:
    calls = [call for _, ones in found for call in ones]
    specs = {spec.name: spec for spec in calls[0].op.weight_specs()}
    ratios = [ratio for spec in specs.values() if (ratio := _weight_scale(spec, calls, given)) is not None]
    made = [rms(run.record.made[site]) for run, _ in found if site in run.record.made]
    varied = [v for call in calls if (v := _variation(call.weights, specs)) is not None]
    return SiteReading(
        site=site,
        runs=len(found),
        made=_geometric(made) if made else None,
        weight_scale=max(ratios, key=lambda ratio: abs(_log(ratio))) if ratios else None,
        gain=_geometric(call.y / max(call.x, 1e-30) for call in calls),
        twin_gain=_geometric(call.twin / max(call.x, 1e-30) for call in calls),
        variation=fmean(varied) if varied else None,
        gradient=fmean(run.weight_gradient.get(site, 0.0) for run, _ in found),
        finite=all(map(_is_finite, calls)),
    )


def _is_finite(call: OpCall) -> bool:
    return math.isfinite(call.y) and all(bool(one.isfinite().all()) for one in call.weights.values())


def _weight_scale(spec: WeightSpec, calls: Sequence[OpCall], given: Mapping[str, Tensor] | None) -> float | None:
    usual = (3 * spec.fan_in) ** -0.5 if given is None else rms(given[spec.name])
    if spec.kind != "weight" or not usual:
        return None
    return _geometric(rms(call.weights[spec.name]) for call in calls) / usual


def _variation(weights: Mapping[str, Tensor], specs: Mapping[str, WeightSpec]) -> float | None:
    """Of the tensor that varies most; ``None`` for one set."""
    sets = [one.detach() for name, one in weights.items() if one.dim() > len(specs[name].shape) and len(one) > 1]
    return max((rms(one - one.mean(0)) / max(rms(one), 1e-30) for one in sets), default=None)


def _geometric(values: Iterable[float]) -> float:
    values = list(values)
    return math.exp(fmean(map(_log, values))) if all(values) else 0.0


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


# The context


def context_reading(
    mutator: DynamicWeightMutator, runs: Sequence[Run], sites: Sequence[SiteReading]
) -> ContextReading | None:
    """Sum up what the context does; ``None`` where there is none, or nothing is made of it."""
    if mutator.context is None or mutator.controller is None:
        return None
    varied = [site.variation for site in sites if site.variation is not None]
    into = [run.context_gradient for run in runs if run.context_gradient is not None]
    gaps = [run.shuffled - run.loss for run in runs if run.shuffled is not None]
    gaps = [gap for gap in gaps if math.isfinite(gap)]
    scale = max(abs(fmean(run.loss for run in runs)), 1e-12)
    return ContextReading(
        spread=fmean(run.spread for run in runs),
        code_spread=fmean(run.code_spread for run in runs),
        variation=fmean(varied) if varied else None,
        gradient=fmean(into) if into else None,
        code_gradient=fmean(run.code_gradient for run in runs),
        delta_gradient=fmean(run.delta_gradient for run in runs),
        waking=any(run.waking for run in runs),
        gap=fmean(gaps) / scale if gaps else None,
        gap_error=stdev(gaps) / math.sqrt(len(gaps)) / scale if len(gaps) > 1 else None,
    )


# Candidates and choices


def candidate_readings(mutator: DynamicWeightMutator, runs: Sequence[Run]) -> tuple[CandidateReading, ...]:
    """Sum up each candidate that is a module, whether it ran or not."""
    tables = {label: mutator.sampler.probabilities(label).tolist() for label in mutator.choices}
    found = candidates_of(mutator.space).items()
    return tuple(_candidate(mutator, place, modules, tables, runs) for place, modules in found)


def _candidate(
    mutator: DynamicWeightMutator,
    place: tuple[str, str],
    modules: Sequence[nn.Module],
    tables: Mapping[str, Sequence[float]],
    runs: Sequence[Run],
) -> CandidateReading:
    label, name = place
    ran = [run for run in runs if run.record.outputs.get(place)]
    outputs = [one for run in ran for one in run.record.outputs[place]]
    size = fmean(one.size for one in outputs) if outputs else 0.0
    deviation = fmean(one.deviation for one in outputs) if outputs else 0.0
    names = [str(candidate) for candidate in mutator.choices[label].candidates]
    probability = tables[label][names.index(name)]
    gradient = None if is_free(modules) else fmean(_gradient(place, modules, run) for run in ran) if ran else 0.0
    return CandidateReading(label, name, len(ran), probability, size, deviation / max(size, 1e-30), gradient)


def _gradient(place: tuple[str, str], modules: Sequence[nn.Module], run: Run) -> float:
    return run.own_gradient.get(place, 0.0) + sum(run.weight_gradient.get(site, 0.0) for site in sites_in(modules))


def choice_readings(mutator: DynamicWeightMutator, taught: Mapping[str, float]) -> tuple[ChoiceReading, ...]:
    """Sum up the sampler's distribution of each label, and what it has to learn it by."""
    modules, choices = candidates_of(mutator.space), mutator.choices.items()
    return tuple(_choice(mutator, label, modules, taught[label]) for label, choice in choices if len(choice) > 1)


def _choice(
    mutator: DynamicWeightMutator, label: str, modules: Mapping[tuple[str, str], Any], gradient: float
) -> ChoiceReading:
    choice, table = mutator.choices[label], mutator.sampler.probabilities(label)
    entropy = float(torch.special.entr(table).sum()) / math.log(len(choice))
    winner = str(choice.candidates[int(table.argmax())])
    free = {name: is_free(found) for (one, name), found in modules.items() if one == label}
    mixed = len(set(free.values())) == 2
    won = free.get(winner) if mixed else None
    return ChoiceReading(label, entropy, winner, float(table.max()), len(choice), won, gradient)


# Normalisations


def norm_readings(states: Mapping[str, NormState], runs: Sequence[Run]) -> tuple[NormReading, ...]:
    """Compare what each normalisation saw, on average, with its running statistics before."""
    return tuple(_norm(name, state, runs) for name, state in states.items())


def _norm(name: str, state: NormState, runs: Sequence[Run]) -> NormReading:
    seen = [moments for run in runs for moments in run.record.norms.get(name, [])]
    known = NormReading(name, state.training, state.expected, state.updates, state.left, None, None)
    if state.mean is None or state.variance is None or not seen or state.updates == 0:
        return known
    mean, variance = (torch.stack(ones).mean(0) for ones in zip(*seen, strict=True))
    shift = rms((mean - state.mean) / (state.variance + 1e-5).sqrt())
    ratio = math.exp(float(((variance + 1e-5) / (state.variance + 1e-5)).log().mean()))
    return known._replace(mean_shift=shift, variance_ratio=ratio)
