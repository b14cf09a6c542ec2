"""BatchNorm in a supernet: statistics of one architecture's own, and affine maps that stand still."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from ..errors import CandidateError, ConfigError
from ..samplers import distributed
from .pooling import Pool

__all__ = [
    "calibrate",
    "calibrate_copy",
    "fixed_affine",
    "input_of",
    "modes_kept",
    "recalibrated",
    "tracking_norms",
]


PASSES = 8


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


def calibrate(network: nn.Module, run: Callable[[Any], object], batches: Iterable[Any], together: bool = False) -> int:
    """Give the BatchNorms of a network the statistics of some batches, as if these were one, to keep.

    Every sample weighs the same, and of sequences and images every position, however long the batches are and in
    whatever order. What a norm sees depends on the norms before it: so the batches are gone through once for each norm
    that another one follows, up to eight times, or until nothing moves any more.

    All else stays as it was: momenta, modes, the statistics of a norm that no batch reached, or one value at a time
    only, torch's global generators; after an error, all statistics too. While it gathers, all is in evaluation mode.

    Parameters
    ----------
    network
        One architecture. Norms without running statistics are left alone.
    run
        Takes a batch and runs the network on it, without gradient.
    batches
        Of training data; all of them are gone through, and kept in a list. A network without running statistics
        takes none.
    together
        Whether the batches of all processes of ``torch.distributed`` are gathered; every one of them has to call this.

    Returns
    -------
    How many batches there were, in this process.

    Raises
    ------
    CandidateError
        With ``together``: another process could not run a batch.

    Notes
    -----
    A forward in training mode would standardise a batch by its own statistics, and so hide from all norms but the first
    how batches differ. The variance that is kept is the unbiased one, as torch's.

    References
    ----------
    Wu and Johnson, Rethinking "batch" in BatchNorm, 2021, section 3 (statistics of the whole population; there of
    batches that are standardised by themselves).

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
            return _gather(norms, run, batches, together) if norms else 0
    except BaseException:
        for one in before:
            one.restore()
        raise


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
def recalibrated(
    network: nn.Module, run: Callable[[Any], object], batches: Iterable[Any], together: bool = False
) -> Iterator[None]:
    """For a block, evaluate with BatchNorm statistics of some batches, as if these were one; afterwards all is as before.

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
    together
        As of :func:`calibrate`.

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
            calibrate(network, run, batches, together)
            yield
        finally:
            for one in before:
                one.restore()


class _Statistics:
    """Running statistics of one norm, as they are now."""

    def __init__(self, norm: _BatchNorm):
        self.norm = norm
        self.buffers: list[Tensor] = [one.clone() for one in norm.buffers(recurse=False)]

    def restore(self) -> None:
        for buffer, value in zip(self.norm.buffers(recurse=False), self.buffers, strict=True):
            buffer.copy_(value)


@torch.no_grad()
def _gather(norms: list[_BatchNorm], run: Callable[[Any], object], batches: Iterable[Any], together: bool) -> int:
    """Let the norms see the batches until they have the statistics of all; return how many batches there were.

    With each pass the statistics of one more norm in a row are final, for those before it stand.
    """
    batches, final = list(batches), list[Pool]()
    for _ in range(PASSES):
        known = {pool.norm for pool in final}
        pools = [Pool(norm) for norm in norms if norm not in known]
        reached = _see(pools, run, batches, together)
        for pool in pools:
            pool.write()
        final += reached[:1]  # nothing before it can change any more
        if len(reached) < 2:
            break
    for pool in [*final, *reached[1:]]:
        pool.write(correction=1)
        if pool.norm.num_batches_tracked is not None:
            pool.norm.num_batches_tracked.fill_(pool.calls)
    return len(batches)


def _see(pools: list[Pool], run: Callable[[Any], object], batches: list[Any], together: bool) -> list[Pool]:
    """Run the batches, and return what was reached, in that order; a norm standardises by what it has seen so far."""
    problem: Exception | None = None
    order: dict[Pool, None] = {}

    def look(pool: Pool, x: Tensor) -> None:
        order[pool] = None
        pool.see(x)
        pool.write()

    handles = [pool.norm.register_forward_pre_hook(lambda _, args, pool=pool: look(pool, args[0])) for pool in pools]
    try:
        for batch in batches:
            run(batch)
    except Exception as error:
        problem = error
    finally:
        for handle in handles:
            handle.remove()
    if together and distributed.any_of(problem is not None):
        raise problem or CandidateError("Another process could not run a batch for BatchNorm's statistics.")
    if problem is not None:
        raise problem
    for pool in pools if together else ():
        pool.share()
    return [pool for pool in order if pool.reached]


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
