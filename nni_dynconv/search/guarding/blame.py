"""Which candidate or site a failed forward is to be blamed on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...ops import DynamicOp

__all__ = ["candidate_of", "first_not_finite", "module_of", "site_of", "stuck_in"]


def module_of(error: BaseException, network: nn.Module) -> str | None:
    """Return the name of the innermost module of a network that an error came through, or ``None``.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 2))
    >>> try:
    ...     network(torch.zeros(1, 2))
    ... except RuntimeError as error:
    ...     module_of(error, network)
    '1'
    """
    names = {id(module): name for name, module in network.named_modules()}
    found, trace = None, error.__traceback__
    while trace is not None:
        found = names.get(id(trace.tb_frame.f_locals.get("self")), found)
        trace = trace.tb_next
    return found


def site_of(error: BaseException) -> str | None:
    """Return the name of the innermost site that an error came through, also of a frozen copy, or ``None``."""
    found, trace = None, error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_locals.get("self")
        found = str(module.site) if isinstance(module, DynamicOp) and module.site is not None else found
        trace = trace.tb_next
    return found


def candidate_of(network: nn.Module, name: str) -> str:
    """Return a module in the words of the space: the candidates that it is in or is, and its name."""
    if not name:
        return "in the network itself"
    parts, words, module = name.split("."), [], network
    for part in parts:
        label = getattr(module, "label", None)
        if isinstance(label, str):
            words.append(f"candidate `{part}` of label `{label}`")
        module = getattr(module, part)
    return ", ".join([*words, f"module `{name}`"])


def first_not_finite(network: nn.Module, run: Callable[[], Any]) -> str:
    """Run a forward again and say, as a sentence, where numbers first stop being finite."""
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not _finite(output):
                given = "" if _finite(inputs) else ", which was given such"
                found.append(f" The first output that is not finite is that of {candidate_of(network, name)}{given}.")

        return look

    with ExitStack() as stack, torch.no_grad():
        for name, module in network.named_modules():
            stack.callback(module.register_forward_hook(watch(name)).remove)
        try:
            run()
        except Exception:  # what it said of itself is enough
            return ""
    return found[0] if found else " All outputs inside the network are finite, the loss itself is not."


def stuck_in(network: nn.Module, run: Callable[[], Tensor | None]) -> str | None:
    """Run a forward and its backward again; return the name of the module in whose backward it fails, or ``None``.

    It is the innermost one of those whose output a gradient reached last. No gradient is kept.

    Parameters
    ----------
    run
        Returns the loss.
    """
    reached: list[tuple[int, str]] = []  # an output, and the module that gave it: the innermost first

    def watch(name: str) -> Callable[..., None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            for one in pytree.tree_leaves(output):
                if isinstance(one, Tensor) and one.requires_grad:
                    one.register_hook(noting(id(one), name))

        return look

    def noting(output: int, name: str) -> Callable[[Tensor], None]:
        return lambda gradient: reached.append((output, name))

    wanted = [one for one in network.parameters() if one.requires_grad]
    with ExitStack() as stack, torch.enable_grad():
        for name, module in network.named_modules():
            stack.callback(module.register_forward_hook(watch(name)).remove)
        try:
            loss = run()
            torch.autograd.grad(loss, wanted, allow_unused=True) if loss is not None else None
        except Exception:  # which one it is was seen before
            return next((name for output, name in reached if output == reached[-1][0]), None) if reached else None
    return None


def _finite(values: Any) -> bool:
    tensors = [one for one in pytree.tree_leaves(values) if isinstance(one, Tensor) and one.is_floating_point()]
    return all(bool(one.isfinite().all()) for one in tensors)
