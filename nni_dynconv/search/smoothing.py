"""Time as context: how much the generated weights change from one moment to the next, as a penalty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import ConfigError, ContextError
from ..sites import batch_of, scope
from ..supernet import DynamicWeightMutator

__all__ = ["check_smoothness", "smoothness", "smoothness_of_batch"]


def smoothness(mutator: DynamicWeightMutator, context: Any, sample: Mapping[str, Any] | None = None) -> Tensor:
    r"""Return the mean squared change of the weights between neighbours in time, over their mean square.

    .. math:: \frac{1}{S} \sum_s \frac{\mathrm{mean}\,(w_{t+1} - w_t)^2}{\mathrm{mean}\, w^2}

    over the ``S`` tensors that depend on the context. Weights of independent moments give about 2 without a base, and
    constant ones 0. The denominator has no gradient, so that large weights are no way out.

    Parameters
    ----------
    mutator
        Whose controller makes the weights.
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

    See Also
    --------
    The option ``smoothness`` of :class:`~nni_dynconv.search.strategy.DynamicStrategy` adds it to the loss of each step.

    Examples
    --------
    >>> loss = F.mse_loss(mutator(x, context=c), y) + 0.1 * smoothness(mutator, c)  # doctest: +SKIP
    """
    if mutator.source.own_input is not None:
        raise ContextError(
            "`smoothness` compares the weights of moments, but these weights are made from each layer's own input "
            "(OwnInputContext), not from a context in time. Take another encoder, such as `VectorContext`."
        )
    changes = _changes(mutator, context, mutator.plan(sample).sample or mutator.sample or {})
    if not changes:
        raise ContextError(
            "No weight changes over time: the context has one moment only, or no site's weights depend on it. Give the "
            "contexts of two moments or more, in order."
        )
    return torch.stack(changes).mean()


def check_smoothness(mutator: DynamicWeightMutator, weight: float) -> None:
    """Refuse the penalty where weights cannot change over time.

    Raises
    ------
    ConfigError
        The weight is positive where no context is given, or no weight depends on it.
    """
    if weight == 0:
        return
    way_out = "Give the mutator one, such as `context=VectorContext(D, dim)`, or leave `smoothness` out."
    if mutator.source.own_input is not None:
        raise ConfigError(
            f"`smoothness` is {weight}, but weights are made from each layer's own input (OwnInputContext), not from a "
            f"context in time. {way_out}"
        )
    if mutator.source.of_context is None:
        raise ConfigError(f"`smoothness` is {weight}, but the mutator has no context encoder. {way_out}")
    if not any(site.specs for site in mutator.source.asked.values()):
        raise ConfigError(
            f'`smoothness` is {weight}, but no weight depends on the context: the delta of each site is "none". Give '
            f"one a delta, or leave `smoothness` out."
        )


def smoothness_of_batch(mutator: DynamicWeightMutator, batch: Any) -> Tensor:
    """Return :func:`smoothness` of a batch of consecutive moments, for the drawn architecture.

    Parameters
    ----------
    batch
        ``((x, context), y)``: row ``t`` of ``context`` is moment ``t`` of one sequence, two rows or more.

    Returns
    -------
    A scalar with gradient; 0 for an architecture none of whose weights are made from the context.

    Raises
    ------
    ContextError
        There is no context, or one moment only.
    """
    context = mutator.source.take_context((batch[0],), {})[2] if isinstance(batch, (tuple, list)) else None
    if context is None:
        raise ContextError(
            f"`smoothness` needs batches `((x, context), y)`, whose contexts are consecutive moments, but this one is "
            f"{_form_of(batch)}."
        )
    sample = dict(mutator.sample or {})
    changes = _changes(mutator, context, sample)
    if changes:
        return torch.stack(changes).mean()
    if any(site.specs for site in mutator.plan(sample)):
        raise ContextError(
            f"`smoothness` compares the weights of consecutive moments, but a batch has one context for its "
            f"{batch_of(*pytree.tree_leaves(batch[0]))} samples. Give a context for each, two moments or more, in "
            f"order; `drop_last=True` of a loader leaves out a last batch of one."
        )
    return next(mutator.parameters()).new_zeros(())


def _form_of(batch: Any) -> str:
    if not isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__}"
    return f"({', '.join(type(one).__name__ for one in batch)})"


def _changes(mutator: DynamicWeightMutator, context: Any, sample: Mapping[str, Any]) -> list[Tensor]:
    """Return the change of each tensor of an architecture that has several moments."""
    with mutator.using(sample, context=context):
        opened = scope.current_of(mutator.source)
        assert opened is not None, "`using` opens a scope"
        sites = [mutator.source.sites[site.name] for site in mutator.plan(sample)]
        made = [(opened.weights(site.name)[spec.name], spec) for site in sites for spec in site.specs]
        return [_change(weight) for weight, spec in made if weight.dim() > len(spec.shape)]


def _change(weight: Tensor) -> Tensor:  # T ... -> ()
    return weight.diff(dim=0).square().mean() / weight.detach().square().mean().clamp_min(1e-12)
