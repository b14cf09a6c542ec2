"""A held-out loss after a step of the weights, by which an architecture learns to second order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["unrolled_loss"]

NUDGE = 0.01  # how far weights are moved, in all, for the differences that stand for second derivatives
Loss = Callable[[], Tensor | None]
Parameters = Sequence[nn.Parameter]


def unrolled_loss(
    held_out: Loss, training: Loss, weights: Parameters, logits: Parameters, step: float
) -> Tensor | None:
    r"""Return a scalar whose gradient is that of a held-out loss after a step of the weights on a training loss.

    .. math:: \nabla_\alpha L_v(w - \xi \nabla_w L_t(w, \alpha), \alpha) \approx \nabla_\alpha L_v(w', \alpha) - \xi
        \frac{\nabla_\alpha L_t(w^+, \alpha) - \nabla_\alpha L_t(w^-, \alpha)}{2 \epsilon}, \quad
        w^\pm = w \pm \epsilon \nabla_{w'} L_v(w', \alpha)

    Parameters
    ----------
    held_out, training
        Losses of one mixture on two batches, the first run once and the second three times; where one returns ``None``,
        so does this.
    weights
        What takes the step, by plain gradient descent; each keeps its value.
    logits
        The only parameters that the scalar has a gradient for.
    step
        Its learning rate.

    References
    ----------
    Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, equations 7 and 8.
    """
    try:
        _, down = _gradients(training, weights)
        with _moved(weights, down, -step):
            loss, found = _gradients(held_out, [*weights, *logits])
        toward, gradients = found[: len(weights)], found[len(weights) :]
        nudge = NUDGE / max(float(torch.stack([one.norm() for one in toward]).norm()), 1e-12)
        sides = []
        for sign in (nudge, -nudge):
            with _moved(weights, toward, sign):
                sides.append(_gradients(training, logits)[1])
    except _LeftOutError:
        return None
    total = loss
    for one, gradient, plus, minus in zip(logits, gradients, *sides, strict=True):
        linear = (one * (gradient - step * (plus - minus) / (2 * nudge))).sum()
        total = total + linear - linear.detach()
    return total


class _LeftOutError(Exception):
    """A loss that may not be learned from."""


def _gradients(run: Loss, parameters: Parameters) -> tuple[Tensor, Sequence[Tensor]]:
    loss = run()
    if loss is None:
        raise _LeftOutError
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True, materialize_grads=True)
    return loss.detach(), found


@contextmanager
def _moved(weights: Parameters, along: Sequence[Tensor], step: float) -> Iterator[None]:
    before = [one.detach().clone() for one in weights]
    try:
        with torch.no_grad():
            for one, slope in zip(weights, along, strict=True):
                one.add_(slope, alpha=step)
        yield
    finally:
        with torch.no_grad():
            for one, value in zip(weights, before, strict=True):
                one.copy_(value)
