"""BatchNorm in a supernet: statistics of one architecture's own, and affine maps that stand still."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["fixed_affine", "modes_kept", "recalibrated", "tracking_norms"]


def tracking_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorms of a network that have running statistics, also those inside dynamic ones."""
    return [one for one in network.modules() if isinstance(one, _BatchNorm) and one.running_mean is not None]


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """After the block every module is in the mode that it was in: training, or evaluation.

    Examples
    --------
    >>> network = nn.Sequential(nn.BatchNorm1d(1).eval())
    >>> with modes_kept(network):
    ...     _ = network.train()
    >>> network.training, network[0].training
    (True, False)
    """
    modes = {module: module.training for module in network.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def recalibrated(network: nn.Module, run: Callable[[Any], object], batches: Iterable[Any]) -> Iterator[None]:
    """For a block, evaluate with BatchNorm statistics of some batches, averaged; afterwards all is as before.

    The running statistics of a supernet are a mixture over all architectures that were trained. Those of the one at
    hand are what a few forwards of it give.

    Parameters
    ----------
    network
        Its BatchNorms are told; in the block it is in evaluation mode.
    run
        Takes a batch and runs the architecture on it, for example inside ``mutator.using(sample)``.
    batches
        Of training data; none at all: the statistics stay, and only the mode changes.

    References
    ----------
    Guo et al., Single path one-shot neural architecture search with uniform sampling, ECCV 2020, section 3.4.

    Examples
    --------
    >>> norm = nn.BatchNorm1d(1)
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> with recalibrated(norm, norm, [x]):
    ...     norm.running_mean.item(), norm(x).mean().item()
    (2.0, 0.0)
    >>> norm.running_mean.item(), norm.training
    (0.0, True)
    """
    norms = tracking_norms(network)
    before = [_Statistics(norm) for norm in norms]
    with modes_kept(network):
        network.eval()
        try:
            _gather(norms, run, batches)
            yield
        finally:
            for one in before:
                one.restore()


class _Statistics:
    """Running statistics and momentum of one norm, as they are now."""

    def __init__(self, norm: _BatchNorm):
        self.norm, self.momentum = norm, norm.momentum
        self.buffers: list[Tensor] = [one.clone() for one in norm.buffers(recurse=False)]

    def restore(self) -> None:
        self.norm.momentum = self.momentum
        for buffer, value in zip(self.norm.buffers(recurse=False), self.buffers, strict=True):
            buffer.copy_(value)


@torch.no_grad()
def _gather(norms: list[_BatchNorm], run: Callable[[Any], object], batches: Iterable[Any]) -> None:
    """Let the norms see the batches, each weighing the same; one that sees none keeps its statistics.

    Such is the norm of an encoder whose context the batch shares: it has one sample, which is standardised by them.
    """
    for number, batch in enumerate(batches if norms else ()):
        for norm in norms if number == 0 else ():
            _forget(norm)
            norm.momentum = None  # torch's word for the plain average of all batches
            norm.train()
        run(batch)
    for norm in norms:
        norm.eval()


def _forget(norm: _BatchNorm) -> None:
    """Have the next batch weigh all: what is there stays until then, and must be finite, for it is multiplied by 0."""
    for one in norm.buffers(recurse=False):
        one.nan_to_num_() if one.is_floating_point() else one.zero_()


@contextmanager
def fixed_affine(network: nn.Module, fixed: bool = True) -> Iterator[None]:
    """For a block, keep the affine maps of all BatchNorms at one and zero: they do not learn.

    In a supernet a scale that is shared by many architectures can favour a candidate for what it learned elsewhere.
    What the block has trained can go on with maps that learn.

    Parameters
    ----------
    fixed
        ``False`` does nothing.

    References
    ----------
    Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, section 3.1 (its search has no affine maps).

    Examples
    --------
    >>> norm = nn.BatchNorm1d(1)
    >>> with fixed_affine(norm):
    ...     [one.requires_grad for one in norm.parameters()]
    [False, False]
    >>> [one.requires_grad for one in norm.parameters()]
    [True, True]
    """
    norms = [one for one in network.modules() if fixed and isinstance(one, _BatchNorm) and one.weight is not None]
    learned = [one for norm in norms for one in norm.parameters(recurse=False) if one.requires_grad]
    for norm in norms:
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
