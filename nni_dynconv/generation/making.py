"""Base and delta of all sites of a network: what the controller makes, and the tensors that come out of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..functional import Composed
from ..settings import Nonlinearity, Recipe, ScaleRule
from ..sites import Site, split
from .bases import Bases, values_of
from .controllers import Controller, ExpertsController, LowRankController, Mixing, Mixture
from .delta import asked_of, combine, combine_factored, combine_mixed, combine_scaled
from .factoring import multiplied
from .initialisation import base_of, stds_of

__all__ = ["WeightMaker"]

Rule = tuple[()] | tuple[ScaleRule, Nonlinearity]


class WeightMaker(nn.Module):
    """Makes the tensors of sites: ``base + scale * factor * delta``, where the controller makes the delta.

    Parameters
    ----------
    controller
        Not yet bound. It is told of what it has to make and of nothing else; where that is nothing, it is left out,
        and may be ``None``.
    sites
        Every place of the network where an op stands.
    recipes
        How the weights of each come about. Learned bases start as large as weights without a base; the learned factor
        of a site with a base and a delta starts at :data:`DELTA`.
    code_dim
        Length of the code that weights are made from; ``None`` where they depend on nothing.

    Attributes
    ----------
    sites, asked, recipes
        By name: what the op needs, what the controller is asked for instead, and how the one comes out of the other.
    own_sites
        The sites as ops announced them: those of a file may have been rescaled.
    """

    DELTA = 0.3
    controller: Controller | None
    factors: nn.Parameter | None

    def __init__(
        self, controller: Controller | None, sites: Sequence[Site], recipes: Sequence[Recipe], code_dim: int | None
    ):
        super().__init__()
        if controller is not None and controller.bound:
            raise ConfigError(f"This {type(controller).__name__} serves another mutator already. Make one each.")
        open_ = [site.name for site, recipe in zip(sites, recipes, strict=True) if recipe.delta == "auto"]
        if open_:
            raise ConfigError(
                f"The delta of site `{open_[0]}` is `auto`, which only a mutator that is given an example can decide. "
                f"Name one: `delta='low_rank', rank=4`."
            )
        self._rule: Rule = () if controller is None else (controller.scale_rule, controller.nonlinearity)
        self._set_sites(sites, recipes, [stds_of(site, *self._rule) for site in sites])
        self.own_sites = dict(self.sites)
        told = self._told(self.asked)
        self.controller = controller if told else None
        if self.controller is not None:
            self.controller.bound = True
            self.controller.bind(told, code_dim)
        based = [site for site in sites if self.recipes[site.name].has_base]
        self.bases = Bases(based, [split(base_of(site, *self._rule), site.specs) for site in based])
        factors = nn.Parameter(torch.full((len(self._factor_rows),), self.DELTA)) if self._factor_rows else None
        self.register_parameter("factors", factors)

    def _set_sites(self, sites: Sequence[Site], recipes: Sequence[Recipe], stds: Sequence[dict[str, float]]) -> None:
        self.sites = {site.name: site for site in sites}
        self.recipes = {site.name: recipe for site, recipe in zip(sites, recipes, strict=True)}
        self.asked = {name: asked_of(site, self.recipes[name]) for name, site in self.sites.items()}
        self._stds = {site.name: one for site, one in zip(sites, stds, strict=True)}
        self._factor_rows = _rows(name for name, recipe in self.recipes.items() if recipe.has_factor)

    def rescale(self, sites: Sequence[Site]) -> None:
        """Let all sites have other fans, as a file of an earlier version says: its tensors are scaled by those."""
        stds = [stds_of(site, *self._rule) for site in sites]
        self._set_sites(sites, [self.recipes[site.name] for site in sites], stds)
        if isinstance(self.controller, ExpertsController):
            self.controller.rescale(self._told(self.asked))

    def base_of(self, name: str) -> dict[str, Tensor] | None:
        """Return the base of a site, as its op has it; ``None`` where it has none."""
        return values_of(self.sites[name], self.bases.parameters_of(name)) if name in self.bases else None

    @torch.no_grad()
    def start_from_bases(self, names: Iterable[str]) -> None:
        """Let the deltas of some sites start at zero: their factors do."""
        if self.factors is not None:
            self.factors[[self._factor_rows[name] for name in names if name in self._factor_rows]] = 0.0

    def make(self, sites: Sequence[Site], code: Tensor | None) -> list[dict[str, Tensor]]:
        """Make the tensors of some sites.

        Parameters
        ----------
        sites
            Some of the network's; their names are looked up.
        code
            Of context and architecture: ``(dim,)`` for one shared set, ``(B, dim)`` for one set a sample, or ``None``.

        Returns
        -------
        Tensors by name for each site, ``(*shape)`` or ``(B, *shape)``; what is static has no ``B``.
        """
        names = [site.name for site in sites]
        told = self._told(names)
        made = self.controller.generate(told, code) if self.controller is not None and told else []
        deltas = dict(zip((site.name for site in told), made, strict=True))
        factors = self._factors_of(names)
        return [self._combine(name, deltas.get(name), factors.get(name)) for name in names]

    def make_factored(self, sites: Sequence[Site], code: Tensor | None) -> list[dict[str, Tensor | Composed]]:
        """Make the tensors of some sites; where samples have their own, products, scales and mixtures stay parts.

        A graph that is compiled or exported has scales only.

        Parameters
        ----------
        sites, code
            As of :meth:`make`, which gives the same weights whole.
        """
        if self.controller is None or code is None or code.dim() == 1:
            return [dict(one) for one in self.make(sites, code)]
        names = [site.name for site in sites]
        told = self._told(names)
        made = dict(zip((site.name for site in told), self._parts(told, code), strict=True))
        factors = self._factors_of(names)
        return [self._combine_factored(name, made.get(name), factors.get(name)) for name in names]

    def _parts(self, told: Sequence[Site], code: Tensor) -> list[tuple[Site, Tensor] | Mixture]:
        """Return for each site what the controller made: a mixture, or values, and what of.

        That is the site, or the factors of its tensors.
        """
        controller = self.controller
        if not told or controller is None:
            return []
        if not torch.compiler.is_compiling() and "generate" not in vars(controller):  # which is then watched
            if type(controller) is LowRankController:
                return list(controller.factors(told, code))
            if isinstance(controller, Mixing) and controller.mixes:
                return list(controller.mixtures(told, code))
        return list(zip(told, controller.generate(told, code), strict=True))

    def _combine_factored(
        self, name: str, part: tuple[Site, Tensor] | Mixture | None, factor: Tensor | None
    ) -> dict[str, Tensor | Composed]:
        site, asked, recipe = self.sites[name], self.asked[name], self.recipes[name]
        std, base = self._stds[name], self.base_of(name)
        if part is None:
            return dict(self._combine(name, None, factor))
        if isinstance(part, Mixture) and asked.specs == site.specs:
            return combine_mixed(site, part, std, base, factor)
        own, made = (asked, part.whole(asked)) if isinstance(part, Mixture) else part
        if own.specs != asked.specs and asked.specs != site.specs:  # the controller's factors of a delta's
            own, made = asked, multiplied(made, asked, own)
        if recipe.delta == "scale" and base is not None and factor is not None:
            return combine_scaled(site, asked, made, std, base, factor)
        if own.specs == site.specs or torch.compiler.is_compiling():
            return dict(self._combine(name, made, factor))
        return dict(combine_factored(site, own, made, std, base, factor))

    def _combine(self, name: str, made: Tensor | None, factor: Tensor | None) -> dict[str, Tensor]:
        site, asked, recipe = self.sites[name], self.asked[name], self.recipes[name]
        return combine(site, asked, recipe, made, self._stds[name], self.base_of(name), factor)

    def _factors_of(self, names: Sequence[str]) -> dict[str, Tensor]:
        known = [name for name in names if name in self._factor_rows]
        if self.factors is None or not known:
            return {}
        rows = [self._factor_rows[name] for name in known]
        return dict(zip(known, self.factors[rows].unbind(), strict=True))

    def _told(self, names: Iterable[str]) -> list[Site]:
        """Return what the controller is asked for at some sites, without static ones."""
        return [self.asked[name] for name in names if self.asked[name].specs]

    def _keep(self, names: Sequence[str]) -> None:
        """Forget all other sites."""
        sites, stds = [self.sites[name] for name in names], [self._stds[name] for name in names]
        factors, told = self._factors_of(names), self._told(names)
        if self.controller is not None and told:
            self.controller.select(told)
        else:
            self.controller = None
        self._set_sites(sites, [self.recipes[name] for name in names], stds)
        self.bases = self.bases.select(sites)
        learned = self.factors is not None and self.factors.requires_grad
        self.factors = nn.Parameter(torch.stack(list(factors.values())).detach(), learned) if factors else None


def _rows(names: Iterable[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}
