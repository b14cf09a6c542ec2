"""The continuous relaxation: a forward runs the mixture of all candidates."""

from __future__ import annotations

from torch import Tensor

from .differentiable import DifferentiableSampler

__all__ = ["DartsSampler"]


class DartsSampler(DifferentiableSampler):
    """Mix the outputs of all candidates by ``softmax(alpha)``; every candidate runs, and makes its weights.

    Parameters
    ----------
    seed, learning_rate, weight_decay
        See :class:`DifferentiableSampler`.

    Notes
    -----
    The mixture is trained as one, and its candidates learn to complete each other: a convolution takes off again what a
    pool adds. The most probable candidate need then not be the best alone, least so behind a norm, where only the ratio
    of their outputs counts. ``rerank`` of a strategy trains the best few alone, and compares them.

    References
    ----------
    Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019 (first order); Wang et al., Rethinking architecture
    selection in differentiable NAS, ICLR 2021.

    Examples
    --------
    >>> from nni_dynconv.samplers import Choice
    >>> sampler = DartsSampler()
    >>> sampler.bind({"op": Choice("op", ("conv3", "conv5"))})
    >>> sampler.relaxed("op")
    tensor([0.5000, 0.5000], grad_fn=<SoftmaxBackward0>)
    """

    mixes = True

    def relaxed(self, label: str) -> Tensor:
        return self.alpha(label).softmax(-1)
