"""What there is to look at in a space: candidates, normalisations, and the weights of a static twin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.nn.pytorch import LayerChoice
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..generation import OwnInputContext
from ..ops import ChoiceOp, DynamicOp
from ..sites import WeightSpec
from ..supernet import ScopedCell

if TYPE_CHECKING:
    from ..supernet import DynamicWeightMutator

__all__ = ["candidates_of", "given_weights", "is_free", "norms_of", "sites_in", "static_weights"]


def candidates_of(space: nn.Module) -> dict[tuple[str, str], list[nn.Module]]:
    """Return the modules of each candidate of each label that chooses among modules; a label may stand twice.

    Parameters
    ----------
    space
        A supernet.
    """
    found: dict[tuple[str, str], list[nn.Module]] = defaultdict(list)
    for module in space.modules():
        if isinstance(module, LayerChoice):
            for name in module.names:
                found[module.label, str(name)].append(module[name])
        elif isinstance(module, ChoiceOp) and len(module.candidates) == 1:  # with more, a variant is of several labels
            ((label, values),) = module.candidates.items()
            for value in values:
                found[label, str(value)].append(module.at({label: value}))
        elif isinstance(module, ScopedCell):
            for node, inputs in enumerate(module.ops, start=module.num_predecessors):
                for slot in range(module.num_ops_per_node):
                    for ops in inputs:
                        for name, op in ops.items():
                            found[f"{module.label}/op_{node}_{slot}", name].append(op)
    return dict(found)


def sites_in(modules: Iterable[nn.Module]) -> list[str]:
    """Return the sites of the dynamic ops in some modules."""
    return [str(op.site) for module in modules for op in module.modules() if isinstance(op, DynamicOp)]


def is_free(modules: Sequence[nn.Module]) -> bool:
    """Whether modules have no weights at all, generated or not: a skip, a pool, a zero."""
    return not sites_in(modules) and not any(True for module in modules for _ in module.parameters())


def norms_of(space: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch normalisations of a network by path, those inside ops and the context's encoder too.

    Those of an :class:`~nni_dynconv.OwnInputContext`, of which each site has one, are named after the site.
    """
    own = {
        id(norm): f"own_input of {site}"
        for module in space.modules()
        if isinstance(module, OwnInputContext) and module.bound
        for site, norm in zip(module.inputs, module.norms, strict=True)
    }
    return {own.get(id(one), name): one for name, one in space.named_modules() if isinstance(one, _BatchNorm)}


def static_weights(specs: Sequence[WeightSpec], like: Tensor, seed: int) -> dict[str, Tensor]:
    """Draw the weights that a static layer of torch starts with: ``U(-1, 1) / sqrt(fan_in)``, affine maps none."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for spec in specs:
        reach = 0.0 if spec.kind in ("scale", "shift") else spec.fan_in**-0.5
        weights[spec.name] = (reach * (2 * torch.rand(spec.shape, generator=generator) - 1)).to(like)
    return weights


def given_weights(mutator: DynamicWeightMutator, site: str) -> dict[str, Tensor] | None:
    """Return the weights that a static layer had before it was lifted; ``None`` where there was none."""
    source = mutator.source
    base = source.base_of(site) if source.recipes[site].base == "given" else None
    return None if base is None else {name: one.detach() for name, one in base.items()}
