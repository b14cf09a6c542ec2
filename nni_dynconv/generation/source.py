"""What makes the weights of one network when it runs: codes for the controller, and the scope of a forward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ContextError, ScopeError, ShapeError
from ..functional import Composed, form_all, is_exporting
from ..settings import Recipe
from ..sites import Blocks, Scope, Site, blocks_of, count_of
from .architecture import FixedArchitecture, Shares
from .calling import Call, Example, pair_of, remembered
from .codes import check_context, dim_of, encode, is_shared, join, sets_of
from .context import OwnInputContext
from .controllers import Controller, Mixing
from .decision import Decision, runs_of
from .making import WeightMaker
from .parts import code_of_all, codes_of_patches, has_places, in_patches

__all__ = ["Made", "WeightSource"]

Made = Mapping[str, Mapping[str, Tensor]]
"""Tensors by name, of each site."""


class WeightSource(WeightMaker):
    """Makes the weights of a network that runs: it encodes what they are made from, and opens the scope of a forward.

    Parameters
    ----------
    controller, sites, recipes
        As of :class:`~nni_dynconv.generation.making.WeightMaker`.
    encoder
        Turns a context into ``(B, out_dim)``, or ``None`` where there is no context.
    architecture
        Turns shares of candidates into a code, joined with the context's; ``None``: weights do not depend on the
        architecture that they stand in.

    Attributes
    ----------
    context_dim, code_dim
        Lengths of the context's code, and of the code that weights are made from; ``None`` where there is none.
    seen
        What its network was last called with, by shape.
    """

    architecture: Any  # a module, or None

    def __init__(
        self,
        controller: Controller | None,
        encoder: nn.Module | None,
        sites: Sequence[Site],
        recipes: Sequence[Recipe],
        architecture: nn.Module | None = None,
    ):
        context_dim, own = dim_of(encoder), dim_of(architecture)
        code_dim = context_dim if own is None else own + (context_dim or 0)
        if controller is not None and not controller.bound:
            controller.architecture_dim = own or 0
        super().__init__(controller, sites, recipes, code_dim)
        self.encoder, self.architecture = encoder, architecture
        self.context_dim, self.code_dim = context_dim, code_dim
        self.caller = "mutator"  # what errors tell to call
        self.decide: Callable[[], Decision] | None = None  # the mutator's word on what runs; a copy has none
        self.seen: Example | None = None  # what its network was last called with, by shape

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "decide": None}

    @property
    def own_input(self) -> OwnInputContext | None:
        """The encoder, where it encodes the input of each op."""
        return self.encoder if isinstance(self.encoder, OwnInputContext) else None

    @property
    def of_context(self) -> nn.Module | None:
        """The encoder, where it encodes contexts that are given."""
        return None if isinstance(self.encoder, OwnInputContext) else self.encoder

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
            total = count_of(context) or 0
            blocks = blocks_of(index, total, index.shape[0] if batch is None else batch)
            context, batch = blocks.contexts(context, total), blocks.used.shape[0]
        code = self._code(decision, context, batch)
        if blocks is not None and sets_of(code) != batch:
            raise ContextError(
                f"`index` picks {batch} contexts, but the encoder gave {sets_of(code)}. Give the contexts as rows of "
                f"one tensor: the first axis counts them."
            )
        opened = self._scope(decision, context, lambda: code, blocks)
        opened.again = lambda: self._scope(decision, context, self._once(decision, context, batch), blocks)
        return opened

    def using(self, decision: Decision, context: Any) -> Scope:
        """Return a scope whose context may still come: from a forward inside it, or before an op asks."""
        return self._scope(decision, context, self._once(decision, context, None))

    def make_all(self, context: Any) -> Made:
        """Make the tensors of all sites, once, for one context; of a network of one architecture.

        Parameters
        ----------
        context
            One, with or without a first axis of 1; ``None`` where weights depend on none.

        Raises
        ------
        ContextError
            There are several, one is missing or not wanted, or weights are made from each layer's own input.
        """
        if self.own_input is not None:
            raise ContextError(
                "Weights that are made from each layer's own input (OwnInputContext) cannot be made beforehand: there "
                "is no context to give."
            )
        self._check_context(context)
        self.need_weights()
        sites = tuple(self.sites.values())
        code = self._code(Decision(sites=sites), context, None)
        if code is not None and not is_shared(code):
            if code.shape[0] != 1:
                raise ContextError(
                    f"Weights are fixed for one context, but {code.shape[0]} were given. Give one, `context[:1]`."
                )
            code = code[0]
        return {site.name: made for site, made in zip(sites, self._formed(sites, code), strict=True)}

    def need_contexts(self) -> None:
        """Refuse where weights are made from no context that is given.

        Raises
        ------
        ContextError
            They are made from each layer's own input, or from nothing.
        """
        if self.of_context is None:
            origin = "nothing that is given" if self.own_input is None else "each layer's own input (OwnInputContext)"
            raise ContextError(f"These weights are made from {origin}: there are no contexts to look at.")

    def need_weights(self) -> None:
        """Refuse where a module stands in for an op, for which no weights are made.

        Raises
        ------
        ContextError
            It does.
        """
        for name in self.sites if self.hands_over else ():
            if self.module_for(name) is not None:
                raise ContextError(
                    f"At site `{name}` {type(self.controller).__name__} hands over a module, so that there are no "
                    f"weights to be kept. Call the network with its context, or export it as `dynamic`."
                )

    @property
    def hands_over(self) -> bool:
        """Whether the controller may have modules that stand in for ops."""
        return self.controller is not None and type(self.controller).module_for is not Controller.module_for

    def module_for(self, name: str) -> nn.Module | None:
        """Return what stands in for the op of a site; ``None`` where weights are made for it.

        Raises
        ------
        ConfigError
            Something does, but the site has a base, which would be nothing's.
        """
        if self.controller is None or not self.hands_over or not self.asked[name].specs:
            return None
        module = self.controller.module_for(self.asked[name])
        if module is not None and self.recipes[name].has_base:
            raise ConfigError(
                f"{type(self.controller).__name__} hands over a module at site `{name}`, which has a base "
                f"({self.recipes[name].base!r}) that nobody would use. Give the site none: "
                f'`per_site={{"{name}": {{"base": None}}}}`.'
            )
        return module

    def codes(self, context: Any) -> Tensor:
        """Return what the controller looks at for each of several contexts, ``(B, code_dim)``.

        Raises
        ------
        ContextError
            One is missing or not wanted, or weights are made from none that is given.
        """
        self.need_contexts()
        self.need_weights()
        self._check_context(context)
        code = self._code(Decision(sites=tuple(self.sites.values())), context, None)
        assert code is not None  # there is an encoder
        if has_places(code):
            raise ContextError(
                "These contexts give a map of codes, for weights of each patch of an image: no context has one code to "
                "look at."
            )
        return code if code.dim() == 2 else code[None]

    def put(self, controller: Controller) -> None:
        """Let another controller make the same in the place of the one that does: it is bound here."""
        controller.architecture_dim = dim_of(self.architecture) or 0
        controller.bind(self._told(self.asked), self.code_dim)
        controller.bound, self.controller = True, controller

    def given(self, made: Made) -> Scope:
        """Return the scope of a forward whose weights are made already, the same for all samples."""
        return Scope(self, lambda name, alone: {name: made[name]}, sites=tuple(self.sites.values()))

    def _code(self, decision: Decision, context: Any, batch: int | None) -> Tensor | None:
        encoder = self.of_context
        code = None if encoder is None else encode(encoder, self.context_dim, context, batch, self.caller)
        return join(code, None if self.architecture is None else self.architecture(decision.shares))

    def _once(self, decision: Decision, context: Any, batch: int | None) -> Callable[[], Tensor | None]:
        """Return what encodes context and architecture when it is first asked to."""
        code: list[Tensor | None] = []

        def encoded() -> Tensor | None:
            if not code:
                self._check_context(context)
                code.append(self._code(decision, context, batch))
            return code[0]

        return encoded

    def _scope(
        self, decision: Decision, context: Any, encoded: Callable[[], Tensor | None], blocks: Blocks | None = None
    ) -> Scope:
        runs: dict[str, list[Site]] = {}  # of the plan, by site

        def make(name: str, alone: bool) -> dict[str, dict[str, Tensor | Composed]]:
            self._check_site(name)
            code = encoded()
            if not runs and not alone:
                together = [one for one in decision.sites if one.patch_grid is None or not has_places(code)]
                runs.update({site.name: run for run in self._runs(together, sets_of(code)) for site in run})
            own = [self.sites[name]]
            sites = own if alone else runs.get(name, own)
            return {site.name: made for site, made in zip(sites, self._made(sites, code), strict=True)}

        def from_input(name: str, x: Tensor) -> dict[str, Tensor | Composed]:
            self._check_site(name)
            return self._make_from(name, x, encoded())

        def batch() -> int | None:
            code = None if self.own_input is not None else encoded()
            if code is None or is_shared(code):
                return None
            return code.shape[0] if blocks is None or blocks.counts is None else sum(blocks.counts)

        def ready(name: str, x: Tensor) -> Tensor | None:
            self._check_site(name)
            module = self.module_for(name)
            return None if module is None else module(x, self._code_at(name, x, encoded(), blocks))

        sample, gate, sites, shares = decision
        own_input = None if self.own_input is None else from_input
        stands_in = ready if self.hands_over else None
        return Scope(self, make, gate, sample, sites, context, blocks, shares, own_input, batch, stands_in)

    def _code_at(self, name: str, x: Tensor, code: Tensor | None, blocks: Blocks | None) -> Tensor | None:
        """Return what a module at a site is called with beside its input: a code for each sample, or for all."""
        if self.own_input is not None:
            own = self.own_input(name, x)
            return join(own[0] if own.shape[0] == 1 else own, code)
        code = code_of_all(code) if code is not None and has_places(code) else code
        if code is None or code.dim() == 1:
            return code
        if blocks is not None and blocks.counts is not None:
            code = code.repeat_interleave(torch.tensor(blocks.counts, device=code.device), 0)
        if code.shape[0] != x.shape[0]:
            raise ShapeError(
                f"`{name}`: its input has {x.shape[0]} samples, but the forward {code.shape[0]}, and the module that "
                f"stands there is told of no repeats. Give it the samples of the forward."
            )
        return code

    def _made(self, sites: Sequence[Site], code: Tensor | None) -> list[dict[str, Tensor | Composed]]:
        """Make the tensors of some sites; of codes that have places, one set for each patch where an op takes that."""
        if code is None or not has_places(code):
            return self.make_factored(sites, code)
        others = [site for site in sites if site.patch_grid is None]
        made = dict(zip([site.name for site in others], self.make_factored(others, code_of_all(code)), strict=True))
        for site in sites:
            if site.patch_grid is not None:
                lead = () if is_shared(code) else (-1,)
                made[site.name] = self._in_patches(site, codes_of_patches(code, site.patch_grid), lead)
        return [made[site.name] for site in sites]

    def _in_patches(self, site: Site, codes: Tensor, lead: Sequence[int]) -> dict[str, Tensor | Composed]:
        made = form_all(self.make_factored([site], codes)[0])
        return dict(in_patches(made, site.specs, lead, site.patch_grid or (1, 1)))

    def _formed(self, sites: Sequence[Site], code: Tensor | None) -> list[Mapping[str, Tensor]]:
        return [form_all(one) for one in self._made(sites, code)]

    def _make_from(self, name: str, x: Tensor, architecture: Tensor | None) -> dict[str, Tensor | Composed]:
        """Make the tensors of a site from the input of its op."""
        code, site = None, self.sites[name]
        if self.own_input is not None and self.asked[name].specs:
            if site.patch_grid is not None and x.dim() == 4:
                own = self.own_input(name, codes_of_patches(x, site.patch_grid))
                return self._in_patches(site, join(own, architecture), (-1,))  # type: ignore[arg-type]
            own = self.own_input(name, x)
            code = join(own[0] if own.shape[0] == 1 else own, architecture)
        return self.make_factored([site], code)[0]

    def _check_site(self, name: str) -> None:
        if name not in self.sites:
            raise ScopeError(f"Site `{name}` is none of this network's {len(self.sites)} sites.")

    def _check_context(self, context: Any, index: Any = None) -> None:
        if self.own_input is not None and (context is not None or index is not None):
            raise ContextError(
                "A context or an `index` was given, but these weights are made from each layer's own input "
                f"(OwnInputContext). Call `{self.caller}(x)`."
            )
        check_context(self.of_context, context, index, self.caller)

    def _runs(self, sites: Sequence[Site], sets: int) -> list[list[Site]]:
        """Cut a plan into runs by what is made of it, which is nothing of static ones.

        Of an op's tensors that is all, where there is one set; where samples have their own, their parts. What all
        samples mix is made once.
        """
        names = [site.name for site in sites if not self.hands_over or self.module_for(site.name) is None]
        if is_exporting() or sets == 1:  # to compare a dynamic batch with a number would bind it
            return runs_of([(self.sites if self.asked[name].specs else self.asked)[name] for name in names], 1)
        mixes = isinstance(self.controller, Mixing) and self.controller.mixes
        return runs_of([self.asked[name] for name in names], 1 if mixes else sets)

    def remember(self, call: Call) -> None:
        """Keep what the network is called with, by shape; not where it is compiled, as graphs would depend on it."""
        if not torch.compiler.is_compiling():
            self.seen = remembered(call, self.seen)

    def take_context(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Find context and index in ``network(x, context=c, index=i)`` or ``network((x, c))``."""
        return pair_of(args, kwargs, self.of_context is not None)

    def restricted(self, sites: Sequence[Site], shares: Shares | None = None) -> WeightSource:
        """Return a copy that knows these sites only, by name.

        Parameters
        ----------
        shares
            Of the one architecture that is left; its code is kept.
        """
        kept = copy.deepcopy(self)
        names = [site.name for site in sites]
        kept._keep(names)
        if kept.own_input is not None:
            kept.own_input.select(names)
        if self.architecture is not None:
            kept.architecture = FixedArchitecture(self.architecture(shares))
        return kept
