"""A weight source in a network: its submodule ``weight_source``, and the hooks that open a scope around each forward.

So whoever owns the network calls it as ``network(x)``, trains its parameters and copies it, without knowing that its
weights are generated.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from ..errors import ContextError, SpaceError
from ..sites import batch_of, scope
from .calling import UNASKED, Call, is_unasked
from .decision import Decision
from .source import WeightSource

__all__ = ["NAME", "install", "uninstall"]

NAME = "weight_source"


def install(source: WeightSource, network: nn.Module) -> None:
    """Make a source the network's submodule ``weight_source``, and open a scope around each of its forwards.

    Raises
    ------
    SpaceError
        The network has one already.
    """
    if hasattr(network, NAME):
        raise SpaceError(f"{type(network).__name__} has a `{NAME}` already: one mutator owns one space.")
    network.add_module(NAME, source)
    opener = _Opener(source)
    network.register_forward_pre_hook(opener.before, prepend=True, with_kwargs=True)
    network.register_forward_hook(opener.after, always_call=True)


def uninstall(network: nn.Module) -> None:
    """Take the source of a network, or of its copy, out again, hooks and all."""
    delattr(network, NAME)
    for hooks in (network._forward_pre_hooks, network._forward_hooks):
        for key, hook in list(hooks.items()):
            if isinstance(getattr(hook, "__self__", None), _Opener):
                del hooks[key]


class _Opener:
    """Opens the scope of a network's forward, and closes it."""

    def __init__(self, source: WeightSource):
        self.source = source

    def before(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Open a scope, and sort the samples by the context that they share."""
        source = self.source
        args, kwargs, context, index = source.take_context(args, kwargs)
        outer = scope.current_of(source)
        if outer is not None:  # inside `using`
            decision = Decision(outer.sample, outer.gate, outer.sites, outer.shares)
            context = outer.context if context is None else context
        else:
            decision = source.decide() if source.decide is not None else Decision()
        if context is None and source.of_context is not None and len(args) > 1:
            raise ContextError(
                f"The context is missing: the {len(args)} positional arguments go to the network itself. Call "
                f"`mutator(x, context=c)`, or the space as `space((x, c))`."
            )
        source.remember(Call(args, kwargs, context, index))
        opened = source.open(decision, context, batch_of(*args, *kwargs.values()), index)
        opened.around = True
        scope.open_(opened)
        return (args, kwargs) if opened.blocks is None else opened.blocks.sort((args, kwargs))

    def after(self, network: nn.Module, args: Any, output: Any) -> Any:
        """Close it, also after an error, and sort the outputs back."""
        opened = scope.current()
        if opened is None or opened.owner is not self.source or not opened.around:
            return None
        error = sys.exc_info()[1]
        if error is not None and is_unasked(args, self.source.of_context):  # a hook cannot raise another one
            error.__notes__ = [*getattr(error, "__notes__", ()), UNASKED]
        scope.close(opened)
        return None if opened.blocks is None else opened.blocks.restore(output)
