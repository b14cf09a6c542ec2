"""Watching a supernet run: what each op was given and gave, what candidates gave, what normalisations saw."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..ops import DynamicOp
from ..search import replaced
from .spots import candidates_of, given_weights, norms_of, static_weights

if TYPE_CHECKING:
    from ..supernet import DynamicWeightMutator

__all__ = ["OpCall", "Record", "kept", "rms", "watched"]


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.detach().double().square().mean().sqrt()) if x.numel() else 0.0


class OpCall(NamedTuple):
    """One call of an op; ``x``, ``y`` and ``twin`` are root mean squares."""

    op: DynamicOp
    weights: Mapping[str, Tensor]
    x: float
    y: float
    twin: float


class Output(NamedTuple):
    """What a candidate gave: root mean square, and that of the deviations from each channel's mean."""

    size: float
    deviation: float


class Moments(NamedTuple):
    """Mean and variance of each channel that a normalisation saw, ``(C,)``."""

    mean: Tensor
    variance: Tensor


@dataclass
class Record:
    """One forward; the seed decides the static twins' weights."""

    seed: int = 0
    ops: dict[str, list[OpCall]] = field(default_factory=lambda: defaultdict(list))
    outputs: dict[tuple[str, str], list[Output]] = field(default_factory=lambda: defaultdict(list))
    norms: dict[str, list[Moments]] = field(default_factory=lambda: defaultdict(list))
    made: dict[str, Tensor] = field(default_factory=dict)
    codes: list[Tensor] = field(default_factory=list)
    pauses: int = 0


@contextmanager
def kept(mutator: DynamicWeightMutator) -> Iterator[None]:
    """Leave no trace: drawn sample, sampler, buffers and torch's generators are after the block as they were before."""
    sample, sampler = mutator.sample, mutator.sampler
    buffers = {name: one.detach().clone() for name, one in mutator.space.named_buffers()}
    with torch.random.fork_rng(devices=_cuda_devices(mutator)):
        mutator.sampler = copy.deepcopy(sampler)  # with the noise of its draws, and what is left of its rounds
        try:
            yield
        finally:
            mutator.sample, mutator.sampler = sample, sampler
            with torch.no_grad():
                for name, one in mutator.space.named_buffers():
                    one.copy_(buffers[name])


def _cuda_devices(mutator: DynamicWeightMutator) -> list[int]:
    """Return the numbers of the CUDA devices that the space is on; their generators are their own."""
    devices = {one.device for one in mutator.space.parameters() if one.is_cuda}
    return sorted(device.index for device in devices)


@contextmanager
def watched(mutator: DynamicWeightMutator, record: Record) -> Iterator[None]:
    """Fill a record by the forwards in the block."""

    def given(site: str) -> dict[str, Tensor] | None:
        return given_weights(mutator, site)

    with ExitStack() as stack:
        for module in mutator.space.modules():
            if isinstance(module, DynamicOp):
                stack.enter_context(replaced(module, "compute", _compute(module, record, given)))
        if mutator.controller is not None:
            stack.enter_context(replaced(mutator.controller, "generate", _generate(mutator.controller, record)))
        for place, modules in candidates_of(mutator.space).items():
            for module in modules:
                _hook(stack, module, _note_output(record.outputs[place]), record)
        for name, norm in norms_of(mutator.space).items():
            handle = norm.register_forward_pre_hook(_norm_hook(name, record))
            stack.callback(handle.remove)
        if mutator.context is not None:
            _hook(stack, mutator.context, record.codes.append, record)
        yield


def _hook(stack: ExitStack, module: nn.Module, note: Callable[[Tensor], Any], record: Record) -> None:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not record.pauses:
            note(output)

    stack.callback(module.register_forward_hook(hook).remove)


def _compute(op: DynamicOp, record: Record, twin_of: Callable[[str], Any]) -> Callable[..., Tensor]:
    plain = op.compute

    def compute(x: Tensor, weights: Mapping[str, Tensor], *rest: Any, **options: Any) -> Tensor:
        y = plain(x, weights, *rest, **options)
        if record.pauses:
            return y
        record.pauses += 1
        try:
            with torch.no_grad():
                twin = plain(x, twin_of(str(op.site)) or static_weights(op.weight_specs(), x, record.seed))
        finally:
            record.pauses -= 1
        record.ops[str(op.site)].append(OpCall(op, dict(weights), rms(x), rms(y), rms(twin)))
        return y

    return compute


def _generate(controller: Any, record: Record) -> Callable[..., Any]:
    plain = controller.generate

    def generate(sites: Any, *rest: Any, **options: Any) -> Any:
        made = plain(sites, *rest, **options)
        leaves = [one for one in pytree.tree_leaves(made) if isinstance(one, Tensor)]
        if len(leaves) == len(sites):
            record.made |= {site.name: one for site, one in zip(sites, leaves, strict=True)}
        return made

    return generate


def _note_output(outputs: list[Output]) -> Callable[[Tensor], None]:
    return lambda y: outputs.append(_output(y))


def _output(y: Tensor) -> Output:
    y = y.detach()
    axes = [axis for axis in range(y.dim()) if axis != 1]
    alone = y.dim() < 2 or y.numel() == y.shape[1]  # one value a channel: nothing to deviate from
    return Output(rms(y), rms(y) if alone else rms(y - y.mean(axes, keepdim=True)))


def _norm_hook(name: str, record: Record) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not record.pauses and isinstance(args[0], Tensor):
            x = args[0].detach().transpose(0, 1).flatten(1)  # C, all else
            if x.shape[1] > 1:
                record.norms[name].append(Moments(x.mean(1), x.var(1)))

    return hook
