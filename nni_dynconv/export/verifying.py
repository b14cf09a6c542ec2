"""A network that was read back is compared with the one that was saved, before it is written for good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..generation import Call, DynamicNetwork, Example
from ..keeping import generators
from .values import is_record, items_of

__all__ = ["fitting", "leaves_of", "outcome_of", "verify"]

SAMPLES = 2
"""How many are enough to tell them apart."""
TOLERANCE = 1e-5
"""Of the largest value of each tensor."""


def fitting(network: DynamicNetwork, example: Example) -> Call:
    """Return inputs like those of a call, few of them where the network takes them.

    Raises
    ------
    ExportError
        It does not run, or gives no finite number.
    """
    for batch in (SAMPLES, None):
        tried = example.drawn(batch)
        outcome = outcome_of(network.eval(), tried)
        if outcome is not None and _has_numbers(outcome):
            return tried
    raise ExportError(
        f"{_name(network)} cannot be saved: on inputs of the shapes that it was called with it does not run, or gives "
        f"no finite number. Give an example: `export.save(network, folder, example=(x, context))`."
    )


def verify(network: nn.Module, read: Callable[[], nn.Module], call: Call) -> None:
    """Run a network and what is read back of it, in both modes, and compare: outputs, gradients, buffers.

    Parameters
    ----------
    network
        It is not needed any more.
    read
        Reads it back.
    call
        What it is called with, as :func:`fitting` returns it; in evaluation, one sample is tried too.

    Raises
    ------
    ExportError
        They are not the same, or cannot be run.
    """
    again = read()
    for tried in (call, Example.of(call).drawn(1)):
        _compare(network.eval(), again.eval(), tried, learns=False)
    if not _compare(network.train(), again.train(), call, learns=True):
        raise ExportError(
            f"{_name(network)} cannot be saved: in training mode it does not run on inputs of the shapes that it was "
            f"called with. Give an example: `export.save(network, folder, example=(x, context))`."
        )


def _compare(network: nn.Module, again: nn.Module, call: Call, learns: bool) -> bool:
    """Compare what two networks do; return whether the first does anything with these inputs.

    Raises
    ------
    ExportError
        They are not the same.
    """
    ours = outcome_of(network, call, learns)
    if ours is None:
        return False
    try:
        theirs = _run(again, call, learns)
    except Exception as error:  # whatever the one that was read back raises
        raise ExportError(
            f"{_name(network)} cannot be saved: read back it raises {type(error).__name__} where the network itself "
            f"does not: {error}"
        ) from error
    mode = "training" if learns else "evaluation"
    for place, one in ours.items():
        if not _is_same(one, theirs.get(place)):
            raise ExportError(
                f"{_name(network)} cannot be saved: read back it is another network. In {mode}, {place} is "
                f"{_shown(one)}, and {_shown(theirs.get(place))} of the one that was read back."
            )
    if set(theirs) != set(ours):
        raise ExportError(f"{_name(network)} cannot be saved: read back, {min(set(theirs) - set(ours))} is new.")
    return True


def _has_numbers(outcome: dict[str, Any]) -> bool:
    return any(isinstance(one, Tensor) and bool(torch.isfinite(one).any()) for one in outcome.values())


def outcome_of(network: nn.Module, call: Call, learns: bool = False) -> dict[str, Any] | None:
    """Return what a network does, by what it is; ``None`` where it does not take that."""
    try:
        return _run(network, call, learns)
    except Exception:  # a batch that it does not take is none that it has to be compared on
        return None


def _run(network: nn.Module, call: Call, learns: bool) -> dict[str, Any]:
    """Return outputs, and after a step of learning gradients and buffers, by what they are."""
    options = dict(call.kwargs)
    options |= {name: one for name, one in (("context", call.context), ("index", call.index)) if one is not None}
    network.zero_grad()
    before = {name: one.clone() for name, one in network.named_buffers()} if learns else {}
    with generators.untouched(), torch.set_grad_enabled(learns):
        generators.seed(0)
        outputs = dict(leaves_of(network(*call.args, **options), "the output"))
    if not learns:
        return outputs
    losses = [_loss(one) for one in outputs.values() if isinstance(one, Tensor) and one.requires_grad]
    if losses:
        torch.stack(losses).sum().backward()
    gradients = {f"the gradient of `{name}`": one.grad for name, one in network.named_parameters()}
    found = {place: one for place, one in gradients.items() if one is not None and bool(one.count_nonzero())}
    after = {name: one.clone() for name, one in network.named_buffers()}
    changed = {f"the buffer `{name}`": one for name, one in after.items() if not _is_still(one, before.get(name))}
    return {**outputs, **found, **changed}


def _is_still(one: Tensor, before: Tensor | None) -> bool:
    return before is not None and one.shape == before.shape and torch.equal(one, before)


def _loss(one: Tensor) -> Tensor:
    flat = one.abs().flatten() if one.is_complex() else one.flatten().float()
    return (flat * torch.linspace(0.5, 1.5, flat.numel())).nan_to_num(0.0, 0.0, 0.0).mean()


def leaves_of(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield what is in an output, in order, with its place: also of records and mappings of a class of one's own."""
    if is_record(value) or isinstance(value, dict):
        for key, one in items_of(value).items():
            yield from leaves_of(one, f"{place}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        for number, one in enumerate(value):
            yield from leaves_of(one, f"{place}[{number}]")
    else:
        yield place, value


def _is_same(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and one == other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not (one.is_floating_point() or one.is_complex()):
        return torch.equal(one, other)
    largest = one.detach().abs().nan_to_num(0.0, 0.0, 0.0).max().item() if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=TOLERANCE * max(1.0, largest), equal_nan=True)


def _shown(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    return f"{tuple(value.shape)} {value.dtype}, {value.detach().flatten()[:3].tolist()} ..."


def _name(network: nn.Module) -> str:
    return (network.network if isinstance(network, DynamicNetwork) else network)._get_name()
