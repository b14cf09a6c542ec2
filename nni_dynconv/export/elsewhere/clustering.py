"""A few sets of weights in the place of a controller: contexts of a data set, clustered by the weights made of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from torch import Tensor

from ...errors import ContextError
from ...generation import ClusteredController, DynamicNetwork, WeightSource

__all__ = ["Seen", "cluster", "clustered", "look_at"]

SKETCH = 1024
"""Weights are compared by so many numbers at most: sums of them with random signs, which keep distances."""
AT_ONCE = 1 << 24
TRIES, ROUNDS, STEPS = 4, 50, 100
RIDGE = 1e-4


class Seen(NamedTuple):
    """Contexts as they are clustered: their codes, and what tells their weights apart, ``(contexts, ...)``."""

    codes: Tensor
    weights: Tensor


def cluster(network: DynamicNetwork, contexts: Iterable[Any], clusters: int, seed: int = 0) -> DynamicNetwork:
    """Return a network with a few sets of weights, stored, in the place of its controller: the context picks one.

    Contexts are clustered by the weights that are made of them (k-means), each tensor by its size. A set is what the
    controller makes of the mean code of its cluster. Which one a context gets, a linear map of its code says, fitted to
    the clusters (logistic regression).

    Parameters
    ----------
    network
        It stays as it is; what is returned is saved, read, exported and called as it is.
    contexts
        Batches of contexts, each as the network takes it, such as those of its training data.
    clusters
        How many sets; fewer where not so many contexts differ.
    seed
        Of the clustering.

    Raises
    ------
    ContextError
        There are fewer contexts than clusters, or weights are made from none that is given.

    References
    ----------
    Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007; Charikar et al., Finding frequent
    items in data streams, ICALP 2002 (the sums with signs).

    Examples
    --------
    >>> few = cluster(nni_dynconv.load("runs/mine"), [c for (_, c), _ in loader], 8)  # doctest: +SKIP
    >>> y = few(x, context)  # doctest: +SKIP
    """
    return clustered(network, look_at(network, contexts), clusters, seed)


@torch.no_grad()
def look_at(network: DynamicNetwork, contexts: Iterable[Any]) -> Seen:
    """Return the codes of contexts, and what tells the weights apart that are made of them.

    Raises
    ------
    ContextError
        As of :func:`cluster`.
    """
    source = network.source
    source.need_contexts()
    several = [contexts] if isinstance(contexts, Tensor) else contexts
    codes = [source.codes(one) for one in several]
    if not codes:
        raise ContextError("There are no contexts to cluster. Give batches of them, as the network takes them.")
    rows = max(1, AT_ONCE // max(sum(site.num_generated for site in source.sites.values()), 1))
    return Seen(torch.cat(codes), torch.cat([_weights(source, some) for some in torch.cat(codes).split(rows)]))


def _weights(source: WeightSource, codes: Tensor) -> Tensor:  # B dim -> B values, or sums of them
    sites = tuple(source.sites.values())
    made = [
        one.flatten(1) / one.square().mean().sqrt().clamp_min(1e-12)
        for site, tensors in zip(sites, source.make(sites, codes), strict=True)
        for spec, one in zip(site.specs, (tensors[spec.name] for spec in site.specs), strict=True)
        if one.dim() > len(spec.shape)
    ]
    return _sketched(torch.cat(made, 1)) if made else codes.new_zeros(len(codes), 1)


def _sketched(values: Tensor) -> Tensor:
    if values.shape[1] <= SKETCH:
        return values
    generator = torch.Generator().manual_seed(0)  # one for all: they are compared
    places = torch.randint(SKETCH, (values.shape[1],), generator=generator)
    signs = torch.randint(2, (values.shape[1],), generator=generator) * 2 - 1
    return values.new_zeros(len(values), SKETCH).index_add_(1, places, values * signs)


def clustered(network: DynamicNetwork, seen: Seen, clusters: int, seed: int = 0) -> DynamicNetwork:
    """Do as :func:`cluster`, for contexts that were looked at."""
    if len(seen.codes) < clusters:
        raise ContextError(f"{clusters} clusters of {len(seen.codes)} contexts: give more contexts, or take fewer.")
    labels = _labels(seen.weights, clusters, seed)
    count = int(labels.max()) + 1
    centres = torch.stack([seen.codes[labels == one].mean(0) for one in range(count)])
    made = copy.deepcopy(network).cpu().eval()
    before: Any = made.source.controller
    if before is None:
        raise ContextError("Nothing is made of a context in this network: there is nothing to cluster.")
    stored = ClusteredController(count, before.scale_rule, before.nonlinearity)
    made.source.put(stored)
    with torch.no_grad():
        told = [made.source.asked[name] for name in stored.rows]
        for kept, values in zip(stored.sets, before.generate(told, centres), strict=True):
            kept.copy_(values)
    weight, offsets = _router(seen.codes, labels, count)
    stored.router.copy_(weight)
    stored.offsets.copy_(offsets)
    return made


def _labels(weights: Tensor, clusters: int, seed: int) -> Tensor:
    """Return which cluster each context is in, counted from 0 without gaps: the best of some tries."""
    values = weights.double().numpy()
    clusters = min(clusters, len(np.unique(values, axis=0)))
    best, least = np.zeros(len(values), int), np.inf
    for place in range(TRIES):
        generator = np.random.default_rng([seed, place])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a cluster that nothing is in: there are fewer then
            centres, labels = kmeans2(values, clusters, iter=ROUNDS, minit="++", rng=generator)
        error = float(np.square(values - centres[labels]).sum())
        if error < least:
            best, least = labels, error
    return torch.from_numpy(np.unique(best, return_inverse=True)[1])


@torch.enable_grad()
def _router(codes: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the linear map that tells the clusters of codes, and what is added to it."""
    mean, spread = codes.mean(0).double(), codes.double().std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    seen = (codes.detach() - mean) / spread
    weight = torch.zeros(count, seen.shape[1], dtype=torch.double, requires_grad=True)
    offsets = torch.zeros(count, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, offsets], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(seen, weight, offsets), labels) + RIDGE * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    found = weight.detach() / spread
    return found, offsets.detach() - found @ mean
