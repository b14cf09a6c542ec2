"""Zero-cost proxies: what one forward and backward of an architecture say of its worth, before any training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ... import ops
from ...errors import RankError
from ...generation import DynamicNetwork
from ...ops import DynamicOp
from ...samplers import distributed
from ...supernet import DynamicWeightMutator
from ..costing import Called
from ..lightning import replaced
from ..ranking.contest import Measured, Sample, as_it_is

__all__ = ["PROXIES", "best_by_proxy", "jacob_cov", "proxy_scores", "synflow"]

DYNAMIC_NORMS = tuple(getattr(ops, name) for name in ops.__all__ if "Norm" in name)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
SMALL = 1e-5  # of Mellor et al., beside eigenvalues


def synflow(network: DynamicNetwork, called: Called) -> float:
    r"""Return the logarithm of the synaptic flow of a network: more is better. The network is spent.

    .. math:: \log \sum_w |w| \, \partial R / \partial |w|

    over the entries of all weight tensors, generated ones as they are made for the call's contexts, where ``R`` is the
    sum of the outputs for an input of ones, all weights are replaced by their absolute values, and norms by nothing.

    Raises
    ------
    RankError
        The input is of whole numbers.

    References
    ----------
    Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, NeurIPS 2020; as
    a score of architectures: Abdelfattah et al., Zero-cost proxies for lightweight NAS, ICLR 2021.

    Notes
    -----
    It is computed in double precision. Biases, and what has one axis only, flow and are not summed over.
    """
    image = _continuous(called, "synflow")
    network.double().eval()
    ones = called.map(lambda one: torch.ones_like(one) if one is image else one)
    ones = ones.map(lambda one: one.double() if one.is_floating_point() else one)
    own = list(network.network.parameters())
    with torch.no_grad():
        for one in own:
            one.abs_()
    with _positive(network) as made:
        total = _sum(ones.of(network))
    weights = [one for one in [*own, *made] if one.dim() > 1 and one.requires_grad]
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    flow = sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True) if g is not None)
    return math.log(flow) if flow > 0 else -math.inf


@contextmanager
def _positive(network: nn.Module) -> Iterator[list[Tensor]]:
    """For a block, ops use absolute values of what is made for them, which are collected, and norms do nothing."""
    made: list[Tensor] = []

    def compute(
        op: DynamicOp,
        before: Callable[..., Tensor],
        x: Tensor,
        weights: Mapping[str, Tensor],
        *more: Any,
        **options: Any,
    ) -> Tensor:
        positive = {name: one.detach().abs().requires_grad_() for name, one in weights.items()}
        made.extend(positive[spec.name] for spec in op.weight_specs() if len(spec.shape) > 1)
        return before(x, positive, *more, **options)

    with ExitStack() as stack:
        for one in network.modules():
            if isinstance(one, NORMS):
                stack.enter_context(replaced(one, "forward", lambda x, *more: x))
            elif isinstance(one, DYNAMIC_NORMS):
                stack.enter_context(replaced(one, "compute", lambda x, *more, **options: x))
            elif isinstance(one, DynamicOp):
                stack.enter_context(replaced(one, "compute", partial(compute, one, one.compute)))
        yield made


def jacob_cov(network: DynamicNetwork, called: Called) -> float:
    r"""Return how differently a network answers to the samples of a batch: more is better. The network is spent.

    .. math:: -\sum_i \log(v_i + k) + 1 / (v_i + k), \quad k = 10^{-5}

    with the eigenvalues ``v`` of the correlations between the samples' gradients of the summed outputs with respect to
    the input, ``(B, B)``. Norms standardise by the batch. Minus infinity where a sample does not reach the output.

    Raises
    ------
    RankError
        The input is of whole numbers, or has one sample only.

    References
    ----------
    Mellor et al., Neural architecture search without training, 2020 (version 1 of arXiv 2006.04647, section 3); as
    ``jacob_cov`` in Abdelfattah et al., Zero-cost proxies for lightweight NAS, ICLR 2021.
    """
    if len(_continuous(called, "jacob_cov")) < 2:
        raise RankError("The proxy `jacob_cov` compares the samples of a batch, but this one has a single one.")
    network.train()
    image = called.input.detach().clone().requires_grad_()
    fresh = called.map(lambda one: image if one is called.input else one)
    with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
        (gradient,) = torch.autograd.grad(_sum(fresh.of(network)), image)
    correlations = torch.corrcoef(gradient.flatten(1).double())
    if not correlations.isfinite().all():  # some sample does not reach the output
        return -math.inf
    values = torch.linalg.eigvalsh(correlations).clamp(min=0) + SMALL
    return -float((values.log() + 1 / values).sum())


def _continuous(called: Called, name: str) -> Tensor:
    if not called.input.is_floating_point():
        raise RankError(
            f"The proxy `{name}` needs an input of real numbers, but the network is called with {called.input.dtype}. "
            f"Leave it out."
        )
    return called.input


PROXIES: dict[str, Callable[[DynamicNetwork, Called], float]] = {"synflow": synflow, "jacob_cov": jacob_cov}


def proxy_scores(
    name: str, mutator: DynamicWeightMutator, samples: Sequence[Sample], called: Called, measured: Measured = as_it_is
) -> list[float]:
    """Return a proxy's score of each architecture with the weights that the supernet has now; higher is better.

    Parameters
    ----------
    name
        ``synflow`` or ``jacob_cov``.
    samples
        Of the mutator's space, which stays as it is.
    called
        How a network is called on a batch.
    measured
        Calls what measures one, and decides what becomes of an error.
    """

    def score(sample: Sample) -> float:
        with torch.enable_grad(), torch.autocast(called.input.device.type, enabled=False):
            return PROXIES[name](mutator.freeze(sample), called)

    return [distributed.mean(measured(one, partial(score, one))) for one in samples]


def best_by_proxy(samples: Sequence[Sample], scores: Sequence[float], wanted: int) -> list[Sample]:
    """Return the architectures with the highest scores, in the order in which they came.

    Examples
    --------
    >>> best_by_proxy([{"op": "a"}, {"op": "b"}, {"op": "c"}], [1.0, float("nan"), 2.0], 2)
    [{'op': 'a'}, {'op': 'c'}]
    """
    places = sorted(range(len(samples)), key=lambda place: math.inf if math.isnan(scores[place]) else -scores[place])
    return [samples[place] for place in sorted(places[:wanted])]


def _sum(output: Any) -> Tensor:
    tensors = [one for one in pytree.tree_leaves(output) if isinstance(one, Tensor) and one.is_floating_point()]
    return torch.stack([one.double().sum() for one in tensors]).sum()
