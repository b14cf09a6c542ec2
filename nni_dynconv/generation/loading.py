"""The ``state_dict`` of a network from before it was lifted, into what it has become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ParamsError
from ..ops import DynamicCall
from .given import original_of
from .installing import NAME
from .source import WeightSource

__all__ = ["load_original"]


@torch.no_grad()
def load_original(network: nn.Module, state: Mapping[str, Tensor], source: WeightSource | None = None) -> None:
    """Load weights into a network that was lifted: bases, what was kept, and running statistics. Deltas stay.

    Parameters
    ----------
    network
        Where lifted modules stand.
    state
        What ``state_dict()`` of the original network gives. On an error nothing is loaded.
    source
        What makes its weights; ``None``: what was lifted away is loaded, which a mutator starts from.

    Raises
    ------
    ParamsError
        Names or shapes differ, or a lifted layer has no base.
    """
    targets: dict[str, list[Tensor]] = {}
    for name, target in _targets_of(network, source):
        targets.setdefault(name, []).append(target)
    _check_names(list(targets), list(state))
    fitting = {name: [one for one in own if one.shape == state[name].shape] for name, own in targets.items()}
    for name, own in fitting.items():
        if not own:
            raise ParamsError(
                f"`{name}` is {tuple(targets[name][0].shape)} here, but {tuple(state[name].shape)} there."
            )
    for name, own in fitting.items():
        for target in own:
            target.copy_(state[name])


def _targets_of(network: nn.Module, source: WeightSource | None) -> Iterator[tuple[str, Tensor]]:
    """Yield each name that the original has, with where its value goes; of a layer with choices, in each variant."""
    original = original_of(network)
    if original is not None:
        variants = getattr(network, "variants", None)
        for op in [network] if variants is None else variants.values():
            yield from _of_twin(op, original, source)
        return
    for name, own in [*network._parameters.items(), *network._buffers.items()]:
        if own is not None and name not in network._non_persistent_buffers_set:
            yield name, own
    for name, child in network._modules.items():
        if child is not None and name != NAME:
            yield from ((f"{name}.{key}", target) for key, target in _targets_of(child, source))


def _of_twin(op: Any, original: nn.Module, source: WeightSource | None) -> Iterator[tuple[str, Tensor]]:
    inside = op.module if isinstance(op, DynamicCall) else getattr(op, "norm", op)
    parameters = dict(original.named_parameters(recurse=False))
    for name, own in original.state_dict(keep_vars=True).items():
        if name not in parameters:
            yield name, inside.get_buffer(name)
            yield name, own
        elif source is None:
            yield name, parameters[name]
        elif op.site not in source.bases:
            raise ParamsError(
                f"Layer `{op.site}` has no base that `{name}` could be loaded into. Lift it with `base='given'` or "
                f"`base='learned'`."
            )
        else:
            yield name, source.bases.get_parameter(f"{op.site}.{name}")


def _check_names(ours: Sequence[str], theirs: Sequence[str]) -> None:
    missing, unknown = [one for one in ours if one not in theirs], [one for one in theirs if one not in ours]
    if missing or unknown:
        raise ParamsError(
            f"These are not the weights of the network that was lifted: {len(missing)} of its {len(ours)} names are "
            f"missing ({_some(missing)}), and {len(unknown)} of {len(theirs)} are none of its ({_some(unknown)})."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in islice(names, 3)) + ", ..." * (len(names) > 3) if names else "none"
