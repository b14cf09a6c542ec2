"""BatchNorm in a supernet: statistics of one architecture's own, and affine maps that stand still."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from ..errors import ConfigError

__all__ = [
    "calibrate",
    "calibrate_copy",
    "fixed_affine",
    "input_of",
    "modes_kept",
    "recalibrated",
    "tracking_norms",
]


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


def input_of(batch: Any, network: nn.Module) -> Any:
    """Return what NNI's evaluators call a network with: the first element of ``((x, context), y)`` or ``(x, y)``.

    A tensor is the input itself. All tensors are moved to the network's device.

    Raises
    ------
    ConfigError
        The batch is neither.

    Examples
    --------
    >>> input_of((torch.tensor(1), torch.tensor(2)), nn.ReLU())
    tensor(1)
    """
    if not isinstance(batch, (Tensor, tuple, list)):
        raise ConfigError(
            f"A batch for BatchNorm's statistics is a {type(batch).__name__}, but must be `((x, context), y)` or "
            f"`(x, y)`. For another form say how it is run: `nni_dynconv.calibration.calibrate(network, run, batches)`."
        )
    device = next((one.device for one in network.parameters()), None)
    found = batch if isinstance(batch, Tensor) else batch[0]
    return pytree.tree_map_only(Tensor, lambda one: one.to(device), found)


def calibrate(network: nn.Module, run: Callable[[Any], object], batches: Iterable[Any]) -> int:
    """Give the BatchNorms of a network the statistics of some batches, averaged, to keep.

    All else stays as it was: momenta, modes, the statistics of a norm that no batch reached, torch's global
    generators; after an error, all statistics too. While it gathers, only the norms are in training mode.

    Parameters
    ----------
    network
        One architecture. Norms without running statistics are left alone.
    run
        Takes a batch and runs the network on it, without gradient.
    batches
        Of training data; all of them are gone through, each weighing the same. A network without running statistics
        takes none.

    Returns
    -------
    How many batches were run.

    Examples
    --------
    >>> norm = nn.BatchNorm1d(1)
    >>> calibrate(norm, norm, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
    2
    >>> norm.running_mean.item(), norm.momentum, norm.training
    (4.0, 0.1, True)
    """
    norms = tracking_norms(network)
    before = [_Statistics(norm) for norm in norms]
    try:
        with modes_kept(network), torch.random.fork_rng(devices=_cuda_devices(network)):
            network.eval()
            count = _gather(norms, run, batches)
    except BaseException:
        for one in before:
            one.restore()
        raise
    for one in before:
        one.settle()
    return count


def calibrate_copy(network: nn.Module, batches: Iterable[Any]) -> None:
    """Give the BatchNorms of a frozen network statistics of its own.

    Parameters
    ----------
    batches
        Of the form that :func:`input_of` takes.

    Raises
    ------
    ConfigError
        There is a BatchNorm, but no batch; or a batch has another form.
    """
    run = calibrate(network, lambda batch: network(input_of(batch, network)), batches)
    if tracking_norms(network) and run == 0:
        raise ConfigError(
            "There is no batch to gather BatchNorm's statistics on: `calibrate` is empty. Give training batches, in a "
            "list or as a loader; an iterator that was gone through before is empty."
        )


def _cuda_devices(network: nn.Module) -> list[int]:
    """Return the numbers of the CUDA devices that a network is on; their generators are their own."""
    return sorted({one.device.index for one in network.parameters() if one.is_cuda})


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
    before = [_Statistics(norm) for norm in tracking_norms(network)]
    with modes_kept(network):
        network.eval()
        try:
            calibrate(network, run, batches)
            yield
        finally:
            for one in before:
                one.restore()


class _Statistics:
    """Running statistics and momentum of one norm, as they are now."""

    def __init__(self, norm: _BatchNorm):
        self.norm, self.momentum = norm, norm.momentum
        self.buffers: list[Tensor] = [one.clone() for one in norm.buffers(recurse=False)]

    def settle(self) -> None:
        """Let the norm keep what it has gathered since; where that is nothing, give back what it had."""
        self.norm.momentum = self.momentum
        if self.norm.num_batches_tracked == 0:
            self.restore()

    def restore(self) -> None:
        self.norm.momentum = self.momentum
        for buffer, value in zip(self.norm.buffers(recurse=False), self.buffers, strict=True):
            buffer.copy_(value)


@torch.no_grad()
def _gather(norms: list[_BatchNorm], run: Callable[[Any], object], batches: Iterable[Any]) -> int:
    """Let the norms see the batches, each weighing the same; return how many there were.

    A norm may see none, such as that of an encoder whose context the batch shares: it has one sample, which is
    standardised by what the norm knows.
    """
    count = 0
    for batch in batches if norms else ():
        for norm in norms if count == 0 else ():
            _forget(norm)
            norm.momentum = None  # torch's word for the plain average of all batches
            norm.train()
        run(batch)
        count += 1
    return count


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
