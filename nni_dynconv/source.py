"""What makes the weights of one network: controller, context encoder and bases, with the hook that opens the scope.

It is installed in the network as the submodule ``weight_source``, so that whoever owns the network calls it as
``network(x)``, trains its parameters and copies it, without knowing that its weights are generated.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import scope
from .controllers import Controller
from .errors import ConfigError, ContextError, ScopeError, SpaceError
from .ops import DynamicOp
from .scope import Gate, Scope
from .spec import Site, split

__all__ = ["NAME", "Base", "WeightSource", "site_of"]

NAME = "weight_source"
Base = Literal["none", "learned"]
Decision = tuple[Mapping[str, Any] | None, Callable[[str], Gate] | None]


def site_of(op: DynamicOp) -> Site:
    """Return the site of an op that has a name."""
    return Site(str(op.site), type(op).__name__, op.weight_specs())


class WeightSource(nn.Module):
    """Makes weights: ``base + scale * delta``, where the controller makes the delta and each tensor's fan-in its scale.

    Parameters
    ----------
    controller
        Not yet bound.
    encoder
        Turns a context into ``(B, out_dim)``, or ``None`` where there is no context.
    sites
        Every place of the network where an op stands.
    base
        ``none``: weights are made altogether. ``learned``: each site has a learned base, initialised as torch does, and
        a learned factor of the delta, which starts at :data:`DELTA`.
    """

    DELTA = 0.3

    def __init__(self, controller: Controller, encoder: nn.Module | None, sites: Sequence[Site], base: Base = "none"):
        super().__init__()
        if base not in ("none", "learned"):
            raise ConfigError(f"`base` is {base!r}, but must be 'none' or 'learned'.")
        self.controller, self.encoder, self.base = controller, encoder, base
        if controller.bound:
            raise ConfigError(f"This {type(controller).__name__} serves another mutator already. Make one each.")
        self.code_dim = _out_dim(encoder)
        controller.bound = True
        self.controller.bind(sites, self.code_dim)
        self.sites: dict[str, Site] = {}
        self.decide: Callable[[], Decision] | None = None  # the mutator's word on what runs; a copy has none
        self._set_sites(sites)
        if base == "learned":
            self.bases = nn.ParameterList(nn.Parameter(_initial_base(site)) for site in sites)
            self.factors = nn.Parameter(torch.full((len(sites),), self.DELTA))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "decide": None}

    def _set_sites(self, sites: Sequence[Site]) -> None:
        self.sites = {site.name: site for site in sites}
        self._rows = {site.name: row for row, site in enumerate(sites)}
        for row, site in enumerate(sites):
            self.register_buffer(f"scale_{row}", _scale(site), persistent=False)

    # Making weights

    def make(self, sites: Sequence[Site], code: Tensor | None) -> list[dict[str, Tensor]]:
        """Make the tensors of some sites.

        Parameters
        ----------
        code
            The encoded context: ``(dim,)`` for one shared set, ``(B, dim)`` for one set a sample, or ``None``.

        Returns
        -------
        Tensors by name for each site, ``(*shape)`` or ``(B, *shape)``.
        """
        made = self.controller.generate(sites, code)
        return [split(self._weight(site, delta), site.specs) for site, delta in zip(sites, made, strict=True)]

    def _weight(self, site: Site, delta: Tensor) -> Tensor:
        row = self._rows[site.name]
        scale = getattr(self, f"scale_{row}")
        if self.base == "none":
            return scale * delta
        return torch.addcmul(self.bases[row], scale * self.factors[row], delta)

    def open(self, decision: Decision, context: Any, batch: int | None) -> Scope:
        """Return the scope of one forward: the context is encoded, and nothing is made before an op asks.

        Parameters
        ----------
        decision
            The sample and what its labels let run.
        context
            As the encoder takes it, or ``None``.
        batch
            Samples in the input, where that is known.

        Raises
        ------
        ContextError
            The context is missing, not wanted, or of another batch size.
        """
        code = self._encode(context, batch)
        opened = self._scope(decision, context, lambda: code)
        opened.again = lambda: self.using(decision, context, batch)
        return opened

    def using(self, decision: Decision, context: Any, batch: int | None = None) -> Scope:
        """Return a scope whose context may still come: from a forward inside it, or before an op asks."""
        code: list[Tensor | None] = []

        def encoded() -> Tensor | None:
            if not code:
                code.append(self._encode(context, batch))
            return code[0]

        return self._scope(decision, context, encoded)

    def _scope(self, decision: Decision, context: Any, encoded: Callable[[], Tensor | None]) -> Scope:
        def make(name: str) -> dict[str, Tensor]:
            if name not in self.sites:
                raise ScopeError(f"Site `{name}` is none of this network's {len(self.sites)} sites.")
            return self.make([self.sites[name]], encoded())[0]

        sample, gate = decision
        return Scope(owner=self, make=make, gate=gate, sample=sample, context=context)

    def _check_context(self, context: Any) -> None:
        if self.encoder is None and context is not None:
            raise ContextError(
                "A context was given, but the mutator has no context encoder. Give it one: "
                "`DynamicWeightMutator(space, context=VectorContext(D, dim))`, or leave the context out."
            )
        if self.encoder is not None and context is None:
            raise ContextError(
                f"The context is missing: this network's weights are made from one "
                f"({type(self.encoder).__name__}). Call `mutator(x, context=c)`, or the space as `space((x, c))`."
            )

    def _encode(self, context: Any, batch: int | None) -> Tensor | None:
        self._check_context(context)
        if self.encoder is None:
            return None
        code = self.encoder(context)
        if code.dim() != 2 or code.shape[1] != self.code_dim:
            raise ContextError(
                f"{type(self.encoder).__name__} must give (B, {self.code_dim}), but gave {tuple(code.shape)}."
            )
        if len(code) == 1:
            return code[0]
        if batch is not None and len(code) != batch:
            raise ContextError(
                f"The context has {len(code)} samples, but the input has {batch}. Give one context a sample, or one "
                f"for the whole batch."
            )
        return code

    # Living in a network

    def install(self, network: nn.Module) -> None:
        """Become the network's submodule ``weight_source`` and open a scope around each of its forwards."""
        if hasattr(network, NAME):
            raise SpaceError(f"{type(network).__name__} has a `{NAME}` already: one mutator owns one space.")
        network.add_module(NAME, self)
        network.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True)
        network.register_forward_hook(self._after, always_call=True)

    @staticmethod
    def uninstall(network: nn.Module) -> None:
        """Take the source of a network, or of its copy, out again, hooks and all."""
        delattr(network, NAME)
        for hooks in (network._forward_pre_hooks, network._forward_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(getattr(hook, "__self__", None), WeightSource):
                    del hooks[key]

    def _before(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs, context = self.take_context(args, kwargs)
        outer = scope.current_of(self)
        if outer is not None:  # inside `using`
            decision = outer.sample, outer.gate
            context = outer.context if context is None else context
        else:
            decision = self.decide() if self.decide is not None else (None, None)
        opened = self.open(decision, context, batch_of(args, kwargs))
        opened.token = scope.open_(opened)
        return args, kwargs

    def _after(self, network: nn.Module, args: Any, output: Any) -> None:
        opened = scope.current()
        if opened is not None and opened.owner is self and opened.token is not None:
            scope.close(opened, opened.token)

    def take_context(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Find the context in ``network(x, context=c)`` or ``network((x, c))``."""
        if "context" in kwargs:
            return args, {key: value for key, value in kwargs.items() if key != "context"}, kwargs["context"]
        if self.encoder is not None and len(args) == 1 and isinstance(args[0], (tuple, list)) and len(args[0]) == 2:
            return (args[0][0],), kwargs, args[0][1]
        return args, kwargs, None

    def restricted(self, sites: Sequence[Site]) -> WeightSource:
        """Return a copy that knows these sites only."""
        kept = copy.deepcopy(self)
        rows = [self._rows[site.name] for site in sites]
        kept.controller.select(sites)
        for row in range(len(self.sites)):
            delattr(kept, f"scale_{row}")
        kept._set_sites(sites)
        if self.base == "learned":
            kept.bases = nn.ParameterList(kept.bases[row] for row in rows)
            kept.factors = nn.Parameter(kept.factors.detach()[rows].clone())
        return kept


def batch_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """Return the number of samples in the first tensor among the arguments."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.dim():
            return value.shape[0]
    return None


def _out_dim(encoder: nn.Module | None) -> int | None:
    if encoder is None:
        return None
    dim = getattr(encoder, "out_dim", None)
    if not isinstance(dim, int):
        raise ConfigError(
            f"The context encoder {type(encoder).__name__} has no `out_dim`: set it to the length of the vectors that "
            f"its forward gives, (B, out_dim)."
        )
    return dim


def _scale(site: Site) -> Tensor:
    """Standard deviation of each value at the start, ``(N,)``: LeCun's for weights, torch's own for biases."""
    thirds = {"weight": 1.0, "bias": 3.0}
    return torch.cat([torch.full((spec.numel,), (thirds[spec.kind] * spec.fan_in) ** -0.5) for spec in site.specs])


def _initial_base(site: Site) -> Tensor:
    """Draw as torch's layers do: uniform within ``1 / sqrt(fan_in)``."""
    return torch.cat([torch.empty(spec.numel).uniform_(-1, 1) / math.sqrt(spec.fan_in) for spec in site.specs])
