"""Time as context: how much the generated weights change from one moment to the next, as a penalty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import scope
from .errors import ContextError
from .mutator import DynamicWeightMutator

__all__ = ["smoothness"]


def smoothness(mutator: DynamicWeightMutator, context: Any, sample: Mapping[str, Any] | None = None) -> Tensor:
    r"""Return the mean squared change of the weights between neighbours in time, over their mean square.

    .. math:: \frac{1}{S} \sum_s \frac{\mathrm{mean}\,(w_{t+1} - w_t)^2}{\mathrm{mean}\, w^2}

    over the ``S`` tensors that depend on the context. Weights of independent moments give about 2 without a base, and
    constant ones 0. The denominator has no gradient, so that large weights are no way out.

    Parameters
    ----------
    context
        Of ``T`` moments of one sequence, in order, as the encoder takes a batch of them.
    sample
        The architecture whose weights are compared; the drawn one by default.

    Returns
    -------
    A scalar with gradient: add it to the loss, times a weight of your own. It costs one more making of the weights.

    Raises
    ------
    ContextError
        Fewer than two moments, or no weight depends on the context; weights are made from each layer's own input.

    Examples
    --------
    >>> loss = F.mse_loss(mutator(x, context=c), y) + 0.1 * smoothness(mutator, c)  # doctest: +SKIP
    """
    if mutator.source.own_input is not None:
        raise ContextError(
            "`smoothness` compares the weights of moments, but these weights are made from each layer's own input "
            "(OwnInputContext), not from a context in time. Take another encoder, such as `VectorContext`."
        )
    sample = mutator.plan(sample).sample or mutator.sample or {}
    with mutator.using(sample, context=context):
        opened = scope.current_of(mutator.source)
        assert opened is not None, "`using` opens a scope"
        sites = [mutator.source.sites[site.name] for site in mutator.plan(sample)]
        made = [(opened.weights(site.name)[spec.name], spec) for site in sites for spec in site.specs]
        changes = [_change(weight) for weight, spec in made if weight.dim() > len(spec.shape)]
    if not changes:
        raise ContextError(
            "No weight changes over time: the context has one moment only, or no site's weights depend on it. Give the "
            "contexts of two moments or more, in order."
        )
    return torch.stack(changes).mean()


def _change(weight: Tensor) -> Tensor:  # T ... -> ()
    return weight.diff(dim=0).square().mean() / weight.detach().square().mean().clamp_min(1e-12)
