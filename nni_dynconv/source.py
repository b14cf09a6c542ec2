"""What makes the weights of one network: controller, context encoder and bases, with the hook that opens the scope.

It is installed in the network as the submodule ``weight_source``, so that whoever owns the network calls it as
``network(x)``, trains its parameters and copies it, without knowing that its weights are generated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from . import scope
from .batch import Blocks, batch_of, blocks_of
from .controllers import Controller
from .errors import ConfigError, ContextError, ScopeError, SpaceError
from .ops import DynamicOp
from .scope import Gate, Scope
from .spec import Site, split

__all__ = ["NAME", "Base", "Decision", "WeightSource", "site_of"]

NAME = "weight_source"
Base = Literal["none", "learned"]

# Values made in one call of the controller. Many at a time save calls, which is nearly all that a few sets of weights
# cost; few at a time stay in the cache and live shorter, which is what many sets want. Sixteen sites of 8 to 32
# channels took 0.26 to 0.35 of the time site by site with 1 set, 0.56 to 0.91 with 32 sets; of 16 channels with 64 sets
# 0.91, and all at once 1.05. The next power of two was within the spread of the runs.
TOGETHER = 1 << 17


class Decision(NamedTuple):
    """What runs in a forward.

    Parameters
    ----------
    sample
        The architecture, where there is just one.
    gate
        What a label lets run; ``None`` where no choice is left, or where NNI's strategy decides.
    sites
        The sites that run, in order, as far as they are known.
    """

    sample: Mapping[str, Any] | None = None
    gate: Callable[[str], Gate] | None = None
    sites: Sequence[Site] = ()


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
        check_base(base)
        self.controller, self.encoder, self.base = controller, encoder, base
        if controller.bound:
            raise ConfigError(f"This {type(controller).__name__} serves another mutator already. Make one each.")
        self.code_dim = _out_dim(encoder)
        controller.bound = True
        self.controller.bind(sites, self.code_dim)
        self.sites: dict[str, Site] = {}
        self.decide: Callable[[], Decision] | None = None  # the mutator's word on what runs; a copy has none
        self._set_sites(sites, [_scale(site) for site in sites])
        if base == "learned":
            self.bases = nn.ParameterList(nn.Parameter(_initial_base(site)) for site in sites)
            self.factors = nn.Parameter(torch.full((len(sites),), self.DELTA))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "decide": None}

    def _set_sites(self, sites: Sequence[Site], scales: Sequence[Tensor]) -> None:
        self.sites = {site.name: site for site in sites}
        self._rows = {site.name: row for row, site in enumerate(sites)}
        for row, scale in enumerate(scales):
            self.register_buffer(f"scale_{row}", scale, persistent=False)

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
        rows = [self._rows[site.name] for site in sites]
        scales = [getattr(self, f"scale_{row}") for row in rows]
        if self.base == "none":
            weights = [scale * delta for scale, delta in zip(scales, made, strict=True)]
        else:
            parts = zip((self.bases[row] for row in rows), scales, self.factors[rows].unbind(), made, strict=True)
            weights = [torch.addcmul(base, scale * factor, delta) for base, scale, factor, delta in parts]
        return [split(flat, site.specs) for flat, site in zip(weights, sites, strict=True)]

    def open(self, decision: Decision, context: Any, batch: int | None, index: Any = None) -> Scope:
        """Return the scope of one forward: the context is encoded, and nothing is made before an op asks.

        Parameters
        ----------
        decision
            What runs.
        context
            As the encoder takes it, or ``None``.
        batch
            Samples in the input, where that is known.
        index
            ``(B,)``, which context each sample has; ``None``: its own, or the only one.

        Raises
        ------
        ContextError
            The context is missing, not wanted, or of another batch size.
        """
        self._check_context(context, index)
        blocks = None
        if index is not None:
            total = batch_of(*pytree.tree_leaves(context)) or 0
            blocks = blocks_of(index, total, len(index) if batch is None else batch)
            context, batch = blocks.contexts(context, total), len(blocks.used)
        code = self._encode(context, batch)
        if blocks is not None and _sets(code) != batch:
            raise ContextError(
                f"`index` picks {batch} contexts, but the encoder gave {_sets(code)}. Give the contexts as rows of one "
                f"tensor: the first axis counts them."
            )
        opened = self._scope(decision, context, lambda: code, blocks)
        opened.again = lambda: self._scope(decision, context, self._once(context, batch), blocks)
        return opened

    def using(self, decision: Decision, context: Any) -> Scope:
        """Return a scope whose context may still come: from a forward inside it, or before an op asks."""
        return self._scope(decision, context, self._once(context, None))

    def _once(self, context: Any, batch: int | None) -> Callable[[], Tensor | None]:
        """Return what encodes a context when it is first asked to."""
        code: list[Tensor | None] = []

        def encoded() -> Tensor | None:
            if not code:
                self._check_context(context)
                code.append(self._encode(context, batch))
            return code[0]

        return encoded

    def _scope(
        self, decision: Decision, context: Any, encoded: Callable[[], Tensor | None], blocks: Blocks | None = None
    ) -> Scope:
        runs: dict[str, list[Site]] = {}  # of the plan, by site

        def make(name: str, alone: bool) -> dict[str, dict[str, Tensor]]:
            if name not in self.sites:
                raise ScopeError(f"Site `{name}` is none of this network's {len(self.sites)} sites.")
            code = encoded()
            if not runs and not alone:
                runs.update({site.name: run for run in runs_of(decision.sites, _sets(code)) for site in run})
            own = [self.sites[name]]
            sites = own if alone else runs.get(name, own)
            return {site.name: made for site, made in zip(sites, self.make(sites, code), strict=True)}

        sample, gate, sites = decision
        return Scope(self, make, gate, sample, sites, context, blocks)

    def _check_context(self, context: Any, index: Any = None) -> None:
        if context is None and index is not None:
            raise ContextError(
                "`index` says which context each sample has, but there is no context. Call "
                "`mutator(x, context=c, index=i)`."
            )
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
        if self.encoder is None:
            return None
        code = self._run_encoder(self.encoder, context)
        if code.dim() != 2 or code.shape[1] != self.code_dim:
            raise ContextError(
                f"{type(self.encoder).__name__} must give (B, {self.code_dim}), but gave {tuple(code.shape)}."
            )
        if len(code) == 1:
            return code[0]
        if batch is not None and len(code) != batch:
            raise ContextError(
                f"The context has {len(code)} samples, but the input has {batch}. Give one context a sample, one for "
                f"the whole batch, or say which context each sample has: `mutator(x, context=c, index=i)`."
            )
        return code

    @staticmethod
    def _run_encoder(encoder: nn.Module, context: Any) -> Tensor:
        try:
            return encoder(context)
        except (RuntimeError, ValueError) as error:
            own = next((one.dtype for one in encoder.parameters() if one.is_floating_point()), None)
            if own is None or not isinstance(context, Tensor) or context.dtype == own:
                raise
            raise ContextError(
                f"The context is {context.dtype}, but its encoder {type(encoder).__name__} is {own}. Give "
                f"`context.to({own})`."
            ) from error

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
        args, kwargs, context, index = self.take_context(args, kwargs)
        outer = scope.current_of(self)
        if outer is not None:  # inside `using`
            decision = Decision(outer.sample, outer.gate, outer.sites)
            context = outer.context if context is None else context
        else:
            decision = self.decide() if self.decide is not None else Decision()
        if context is None and self.encoder is not None and len(args) > 1:
            raise ContextError(
                f"The context is missing: the {len(args)} positional arguments go to the network itself. Call "
                f"`mutator(x, context=c)`, or the space as `space((x, c))`."
            )
        opened = self.open(decision, context, batch_of(*args, *kwargs.values()), index)
        opened.around = True
        scope.open_(opened)
        return (args, kwargs) if opened.blocks is None else opened.blocks.sort((args, kwargs))

    def _after(self, network: nn.Module, args: Any, output: Any) -> Any:
        opened = scope.current()
        if opened is None or opened.owner is not self or not opened.around:
            return None
        scope.close(opened)
        return None if opened.blocks is None else opened.blocks.restore(output)

    def take_context(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        """Find context and index in ``network(x, context=c, index=i)`` or ``network((x, c))``."""
        own = {key: value for key, value in kwargs.items() if key not in ("context", "index")}
        paired = len(args) == 1 and isinstance(args[0], (tuple, list)) and len(args[0]) == 2
        if "context" not in kwargs and self.encoder is not None and paired:
            return (args[0][0],), own, args[0][1], kwargs.get("index")
        return args, own, kwargs.get("context"), kwargs.get("index")

    def restricted(self, sites: Sequence[Site]) -> WeightSource:
        """Return a copy that knows these sites only."""
        kept = copy.deepcopy(self)
        rows = [self._rows[site.name] for site in sites]
        scales = [getattr(kept, f"scale_{row}") for row in rows]
        kept.controller.select(sites)
        for row in range(len(self.sites)):
            delattr(kept, f"scale_{row}")
        kept._set_sites(sites, scales)
        if self.base == "learned":
            kept.bases = nn.ParameterList(kept.bases[row] for row in rows)
            kept.factors = nn.Parameter(kept.factors.detach()[rows].clone())
        return kept


def runs_of(sites: Sequence[Site], sets: int) -> list[list[Site]]:
    """Cut a plan into runs of sites that are made in one call: up to ``TOGETHER`` values, and at least one site.

    Examples
    --------
    >>> from nni_dynconv.spec import WeightSpec
    >>> sites = [Site(name, "DynamicLinear", (WeightSpec("weight", (100, 10), 10),)) for name in "abc"]
    >>> [[site.name for site in run] for run in runs_of(sites, sets=50)]
    [['a', 'b'], ['c']]
    """
    runs: list[list[Site]] = []
    room = 0
    for site in sites:
        values = sets * site.num_generated
        if not runs or values > room:
            runs.append([])
            room = TOGETHER
        runs[-1].append(site)
        room -= values
    return runs


def _sets(code: Tensor | None) -> int:
    return 1 if code is None or code.dim() == 1 else len(code)


def check_base(base: Any) -> None:
    """Refuse what is no base."""
    if base not in ("none", "learned"):
        raise ConfigError(f"`base` is {base!r}, but must be 'none' or 'learned'.")


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
    """Standard deviation of each value at the start, ``(N,)``: LeCun's for weights, torch's for biases, else 0.1."""
    divisors = {"weight": 1.0, "bias": 3.0, "scale": 100.0, "shift": 100.0}
    return torch.cat([torch.full((spec.numel,), (divisors[spec.kind] * spec.fan_in) ** -0.5) for spec in site.specs])


def _initial_base(site: Site) -> Tensor:
    """Draw as torch's layers do: uniform within ``1 / sqrt(fan_in)``; an affine map is the identity."""
    reach = [0.0 if spec.kind in ("scale", "shift") else spec.fan_in**-0.5 for spec in site.specs]
    return torch.cat([r * torch.empty(spec.numel).uniform_(-1, 1) for r, spec in zip(reach, site.specs, strict=True)])
