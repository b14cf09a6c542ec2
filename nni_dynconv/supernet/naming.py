"""Names of sites, and which of a network's ops run under a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingCell
from torch import nn

from ..generation import NAME
from ..ops import ChoiceOp, DynamicOp
from .cells import chosen, made_before

__all__ = ["Around", "alive_ops", "name_sites"]


class Around(ModelSpace):
    """A space without choices, around a plain module; sites are named as in that module."""

    network: nn.Module

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.network(*inputs, **options)


def name_sites(network: nn.Module) -> list[DynamicOp]:
    """Give every dynamic op of a network its site's name, and return the ops in order.

    The name is the owning label, the candidate and the path inside it: module names move when a space freezes.
    """
    ops: dict[DynamicOp, str] = {}
    taken: dict[str, int] = {}

    def visit(module: nn.Module, path: str) -> None:
        if isinstance(module, DynamicOp):
            if module not in ops:
                taken[path] = taken.get(path, 0) + 1  # two choices of one label have their own ops
                ops[module] = path if taken[path] == 1 else f"{path}#{taken[path]}"
            return
        for name, child in _children(module):
            visit(child, name if name.startswith("/") else f"{path}.{name}".lstrip("."))

    inside = network.network if isinstance(network, Around) else network
    visit(network if isinstance(inside, (DynamicOp, ChoiceOp)) else inside, "")
    for op, name in ops.items():
        op.site = name.removeprefix("/")
    return list(ops)


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield children by name; a name with a leading slash starts anew."""
    if isinstance(module, LayerChoice):
        yield from ((f"/{module.label}/{name}", module[name]) for name in module.names)
    elif isinstance(module, ChoiceOp):
        yield from module.variants.items()
    elif (before := made_before(module)) is not None:
        for (node, source), ops in before.items():
            yield from ((f"/{module.label}/{node}_{source}/{name}", op) for name, op in ops.items())
        yield from ((name, child) for name, child in module.named_children() if name not in ("ops", "inputs"))
    elif isinstance(module, PathSamplingCell):
        for node, inputs in enumerate(module.ops, start=module.num_predecessors):
            for source, ops in enumerate(inputs):
                yield from ((f"/{module.label}/{node}_{source}/{name}", op) for name, op in ops.items())
        yield from ((name, child) for name, child in module.named_children() if name != "ops")
    else:
        yield from ((name, child) for name, child in module.named_children() if name != NAME)


def alive_ops(module: nn.Module, sample: Mapping[str, Any]) -> Iterator[DynamicOp]:
    """Yield the dynamic ops that run under a sample."""
    if isinstance(module, DynamicOp):
        yield module
        return
    if isinstance(module, LayerChoice):
        children = [module[sample[module.label]]]
    elif isinstance(module, ChoiceOp):
        children = [module.at(sample)]
    elif isinstance(module, Repeat):
        depth = module.depth_choice
        children = list(module.blocks[: depth if isinstance(depth, int) else depth.freeze(dict(sample))])
    elif isinstance(module, PathSamplingCell):
        children = [op for _, _, op in chosen(module, sample)]
        children += [child for name, child in module.named_children() if name != "ops"]
    else:
        children = [child for _, child in _children(module)]
    for child in children:
        yield from alive_ops(child, sample)
