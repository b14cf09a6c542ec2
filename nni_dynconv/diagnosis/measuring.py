"""Running a supernet over architectures and batches, and summing up what was seen as readings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .recording import Record, rms, watched
from .spots import candidates_of

if TYPE_CHECKING:
    from ..supernet import DynamicWeightMutator

__all__ = ["Run", "Step", "architectures", "between", "is_paired", "run_all", "shuffled", "within"]

Step = Callable[[Any], Tensor]
"""Gives the loss of a batch under the architecture that is open."""


@dataclass
class Run:
    """One architecture on one batch, in numbers.

    Parameters
    ----------
    sample
        The architecture, or ``None`` for a mixture of all.
    loss, shuffled
        With the contexts as they are, and shuffled within the batch.
    record
        Of the first.
    weight_gradient
        Norm of the loss's gradient into each site's weights times their norm, over the loss.
    """

    sample: Mapping[str, Any] | None
    record: Record
    loss: float
    shuffled: float | None = None
    weight_gradient: dict[str, float] = field(default_factory=dict)
    own_gradient: dict[tuple[str, str], float] = field(default_factory=dict)
    context_gradient: float | None = None
    code_gradient: float = 0.0
    delta_gradient: float = 0.0
    waking: bool = False
    spread: float = 0.0
    code_spread: float = 0.0


def architectures(mutator: DynamicWeightMutator, count: int, seed: int = 0) -> list[dict[str, Any] | None]:
    """Return samples in which each candidate of each label stands equally often, by a seed; ``[None]`` for a mixture.

    They are not drawn by the sampler, so that a candidate that it does not draw any more is seen all the same; but for
    those that would break a constraint of the space.

    Parameters
    ----------
    mutator
        Whose space it is.
    count
        How many, at least; of a label with more candidates, as many as it has.
    seed
        Decides which candidates stand together.
    """
    if not mutator.choices:
        return [{}]
    if mutator.sampler.mixes:
        return [None]
    generator = torch.Generator().manual_seed(seed)
    count = max(count, *(min(len(choice), 64) for choice in mutator.choices.values()))
    columns = {}
    for label, choice in mutator.choices.items():
        rounds = [torch.randperm(len(choice), generator=generator) for _ in range(math.ceil(count / len(choice)))]
        columns[label] = [choice.candidates[number] for number in torch.cat(rounds)[:count].tolist()]
    samples = [{label: column[row] for label, column in columns.items()} for row in range(count)]
    return [one if mutator.choices.broken(one) is None else mutator.sampler.sample() for one in samples]


def run_all(mutator: DynamicWeightMutator, batches: Sequence[Any], samples: Sequence[Any], step: Step) -> list[Run]:
    """Run each sample on one of the batches in turn, and each batch at least once."""
    count = max(len(batches), len(samples))
    return [_run(mutator, samples[n % len(samples)], batches[n % len(batches)], step, n) for n in range(count)]


def _run(mutator: DynamicWeightMutator, sample: Any, batch: Any, step: Step, seed: int) -> Run:
    record = Record(seed)
    batch, leaves = _with_gradient(mutator, batch)
    with watched(mutator, record), torch.enable_grad():
        loss = _loss(mutator, sample, batch, step)
    run = Run(sample, record, float(loss.detach()))
    _add_gradients(run, mutator, loss, leaves)
    other = shuffled(mutator, batch, seed)
    if other is not None:
        with torch.no_grad():
            run.shuffled = float(_loss(mutator, sample, other, step))
    run.spread = max((_spread(one) for one in leaves), default=0.0)
    run.code_spread = max((_spread(one) for one in record.codes), default=0.0)
    return run


def _loss(mutator: DynamicWeightMutator, sample: Any, batch: Any, step: Step) -> Tensor:
    with within(mutator, sample):
        return step(batch)


@contextmanager
def within(mutator: DynamicWeightMutator, sample: Mapping[str, Any] | None) -> Iterator[None]:
    """For a block, let an architecture run.

    Parameters
    ----------
    mutator
        Whose space it is.
    sample
        The architecture; ``None`` for the mixture of all.
    """
    if sample is not None:
        with mutator.using(sample):
            yield
        return
    mutator.sample = {label: choice.candidates[0] for label, choice in mutator.choices.items()}  # a mixture has none
    yield


# Contexts


def is_paired(mutator: DynamicWeightMutator, batch: Any) -> bool:
    """Whether a batch is ``((x, context), y)``."""
    first = batch[0]
    return mutator.source.of_context is not None and isinstance(first, (tuple, list)) and len(first) == 2


def _with_gradient(mutator: DynamicWeightMutator, batch: Any) -> tuple[Any, list[Tensor]]:
    """Give the context's floating-point tensors a gradient; return them, or those that have none."""
    if not is_paired(mutator, batch):
        return batch, []
    (x, context), *rest = batch
    leaves, structure = pytree.tree_flatten(context)
    leaves = [
        one.detach().clone().requires_grad_(one.is_floating_point()) if isinstance(one, Tensor) else one
        for one in leaves
    ]
    return ((x, pytree.tree_unflatten(leaves, structure)), *rest), [one for one in leaves if isinstance(one, Tensor)]


def shuffled(mutator: DynamicWeightMutator, batch: Any, seed: int) -> Any:
    """Return the batch with its contexts in another order; ``None`` where it has not one for each of its samples."""
    if not is_paired(mutator, batch):
        return None
    (x, context), *rest = batch
    tensors = [one for one in pytree.tree_leaves(x) if isinstance(one, Tensor) and one.dim()]
    sizes = {len(one) for one in pytree.tree_leaves(context) if isinstance(one, Tensor) and one.dim()}
    if not tensors or sizes != {len(tensors[0])} or len(tensors[0]) < 2:
        return None
    order = torch.randperm(len(tensors[0]), generator=torch.Generator().manual_seed(seed))
    other = pytree.tree_map(lambda one: one.detach()[order.to(one.device)] if isinstance(one, Tensor) else one, context)
    return ((x, other), *rest)


def _spread(x: Tensor) -> float:
    if x.dim() < 2 or len(x) < 2:
        return 0.0
    x = x.detach().double()
    return rms(x - x.mean(0)) / max(rms(x), 1e-30)


# Gradients


def _add_gradients(run: Run, mutator: DynamicWeightMutator, loss: Tensor, contexts: list[Tensor]) -> None:
    """Ask for every gradient in one backward; ``.grad`` of nothing changes."""
    weights = {site: [one for call in calls for one in call.weights.values()] for site, calls in run.record.ops.items()}
    alive = {place: _own(modules) for place, modules in candidates_of(mutator.space).items()}
    groups: dict[Any, list[Tensor]] = {("site", site): tensors for site, tensors in weights.items()}
    groups |= {("own", place): tensors for place, tensors in alive.items() if run.record.outputs.get(place)}
    groups["context"], groups["code"] = contexts, run.record.codes
    groups["made"], groups["waking"] = list(run.record.made.values()), between(mutator)
    norms = _gradient_norms(loss, groups)
    scale = max(abs(run.loss), 1e-12)
    for key, (gradient, elasticity) in norms.items():
        if isinstance(key, tuple) and key[0] == "site":
            run.weight_gradient[key[1]] = elasticity / scale
        elif isinstance(key, tuple):
            run.own_gradient[key[1]] = gradient
    if any(one.requires_grad for one in contexts):
        run.context_gradient = norms["context"][1] / scale
    run.code_gradient, run.delta_gradient = norms["code"][1] / scale, norms["made"][1] / scale
    run.waking = norms["waking"][0] > 0


def _own(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [one for module in modules for one in module.parameters()]


def between(mutator: DynamicWeightMutator) -> list[Tensor]:
    """Parameters of the weight source that are neither a base nor the controller's or an encoder's: factors."""
    return [
        one
        for name, one in mutator.source.named_parameters()
        if not name.startswith(("controller.", "encoder.", "architecture.", "base"))
    ]


def _gradient_norms(loss: Tensor, groups: Mapping[Any, Sequence[Tensor]]) -> dict[Any, tuple[float, float]]:
    """Return for each group the norm of the gradient, and that times the norm of the tensors."""
    wanted = [one for tensors in groups.values() for one in tensors if one.requires_grad]
    if not wanted or not loss.requires_grad:
        return dict.fromkeys(groups, (0.0, 0.0))
    found = iter(torch.autograd.grad(loss, wanted, allow_unused=True))
    norms = {}
    for key, tensors in groups.items():
        gradients = [next(found) for one in tensors if one.requires_grad]
        norm, size = (_norm(ones) for ones in (gradients, tensors))
        norms[key] = norm, norm * size
    return norms


def _norm(tensors: Iterable[Tensor | None]) -> float:
    return math.sqrt(sum(float(one.detach().double().square().sum()) for one in tensors if one is not None))
