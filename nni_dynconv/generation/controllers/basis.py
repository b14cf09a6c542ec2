"""A controller whose size does not depend on the sizes of the weights, and which makes a few sets of them a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...settings import BasisSettings, Encoding, Nonlinearity, ScaleRule, Shares, check_arguments
from ...sites import Site
from .chunked import ChunkedController
from .mixing import Blocks, Mixing, Mixture, blocks_of, mixed
from .pieces import context_map, encode_positions, linear
from .signs import Signs

__all__ = ["BasisController"]


class BasisController(Mixing):
    r"""Mixes a basis of ``basis`` sets of weights, which another network makes: :math:`W = \sum_k r_k(c) \, B_k`.

    The basis depends on the site and the architecture and not on the context, so that it is made once a step for all
    samples; the context only mixes it, at ``basis`` multiply-adds a value and sample. No parameter grows with the
    weights: a site adds one row of ``site_dim`` numbers.

    Parameters
    ----------
    basis
        Sets of weights for each site.
    shares
        ``site``: one mixture of whole sets; ``row``: each row of a weight, along its first axis, is mixed by shares of
        its own, and a vector has one.
    chunk, site_dim, position_dim, hidden
        Of the network that makes the basis, a :class:`~nni_dynconv.controllers.ChunkedController`; ``hidden`` is also
        the width of the one that makes shares.
    scale_rule, encoding, nonlinearity
        As of :class:`~nni_dynconv.controllers.ChunkedController`.

    Raises
    ------
    ConfigError
        There is no such ``shares``, ``scale_rule``, ``encoding`` or ``nonlinearity``, or a setting has another type or
        lies outside of its range.

    Notes
    -----
    The sets of a site are made from the same features, each with signs of its own
    (:class:`~nni_dynconv.generation.controllers.signs.Signs`), by which they are uncorrelated. Shares have a sign and
    are divided by their norm: sets of unit variance then mix to unit variance for every context.

    References
    ----------
    Ha et al., HyperNetworks, ICLR 2017 (a basis that the other network makes); Yang et al., CondConv, NeurIPS 2019, and
    Ma et al., WeightNet, ECCV 2020 (mixtures of sets that are stored). That a network makes the sets is ours.

    Examples
    --------
    >>> from nni_dynconv.spec import WeightSpec
    >>> sites = [Site(f"conv{k}", "DynamicConv2d", (WeightSpec("weight", (8, 8, k, k), 8 * k * k),)) for k in (3, 7)]
    >>> controller = BasisController(basis=4, hidden=32)
    >>> controller.bind(sites, context_dim=4)
    >>> [tuple(made.shape) for made in controller.generate(sites, torch.zeros(2, 4))]
    [(2, 576), (2, 3136)]
    """

    positions: Tensor

    def __init__(
        self,
        basis: int = 8,
        shares: Shares = "site",
        chunk: int = 64,
        site_dim: int = 16,
        position_dim: int = 16,
        hidden: int = 128,
        scale_rule: ScaleRule = "hyperfan_in",
        encoding: Encoding = "layer_norm",
        nonlinearity: Nonlinearity = "linear",
    ):
        super().__init__()
        widths = chunk, site_dim, position_dim, hidden
        check_arguments(self, BasisSettings(basis, shares, *widths, scale_rule, encoding, nonlinearity))
        self.basis, self.shares, self.chunk, self.site_dim = basis, shares, chunk, site_dim
        self.position_dim, self.hidden = position_dim, hidden
        self.scale_rule, self.nonlinearity, self.encoding = scale_rule, nonlinearity, encoding
        self.rows: dict[str, int] = {}
        self.blocks: dict[str, Blocks] = {}

    @property
    def mixes(self) -> bool:  # type: ignore[override]
        return self.shares == "site"

    def bind(self, sites: Sequence[Site], context_dim: int | None) -> None:
        widths = self.chunk, self.site_dim, self.position_dim, self.hidden
        self.core = ChunkedController(*widths, encoding=self.encoding, signs=False)
        self.core.architecture_dim = self.architecture_dim
        self.core.bind(sites, self.architecture_dim or None)
        counts = [self.basis * self.core.counts[site.name] for site in sites]
        self.sign_rows = Signs(counts, self.hidden, before=0)
        sources = 1 + (context_dim is not None) + (self.shares == "row")
        self.from_site = linear(self.site_dim, self.hidden, gain=1 / sources)
        self.from_row = None
        if self.shares == "row":
            self.from_row = linear(self.position_dim, self.hidden, gain=1 / sources, bias=False)
        seen = self.encoding, self.architecture_dim
        self.from_context = context_map(context_dim, self.hidden, 1 / sources, *seen)
        self.to_shares = linear(self.hidden, self.basis, gain=2.0)
        self._set_sites(sites)

    def generate(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:
        pairs = zip(sites, self._shares(sites, context), self._banks(sites, context), strict=True)
        return [mixed(own, bank, self.blocks[site.name]) for site, own, bank in pairs]

    def mixtures(self, sites: Sequence[Site], context: Tensor) -> list[Mixture]:
        pairs = zip(self._shares(sites, context), self._banks(sites, context), strict=True)
        return [Mixture(own.squeeze(-2), bank) for own, bank in pairs]

    def _banks(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:  # each basis N
        own = None
        if self.architecture_dim and context is not None:  # which all contexts share
            one = context if context.dim() == 1 else context[0] if len(context) else context.new_zeros(context.shape[1])
            own = one[-self.architecture_dim :]
        counts = [(self.rows[site.name], self.core.counts[site.name]) for site in sites]
        places = [(row, number * count, count) for number in range(self.basis) for row, count in counts]
        if self.core.goes_in_blocks:
            lines = self.sign_rows.lines_of(places).view(self.basis, -1)
            return self.core.cut(self.core.in_blocks(sites, own, self.sign_rows, lines)[0], sites)
        features = self.core.features(sites, own)  # n hidden
        signs = self.sign_rows.rows(places).view(self.basis, *features.shape)
        return self.core.cut(self.core.signed(features, signs), sites)

    def _shares(self, sites: Sequence[Site], context: Tensor | None) -> tuple[Tensor, ...]:  # each ... row basis
        counts = [sum(rows for rows, _ in self.blocks[site.name]) for site in sites]
        own = [self.rows[site.name] for site, count in zip(sites, counts, strict=True) for _ in range(count)]
        hidden = self.from_site(self.core.embedding)[torch.tensor(own, device=self.positions.device)]
        if self.from_row is not None:
            hidden = hidden + torch.cat([self.from_row(self.positions[:count]) for count in counts])
        if self.from_context is not None and context is not None:
            hidden = hidden + self.from_context(context).unsqueeze(-2)
        return F.normalize(self.to_shares(hidden.relu()), dim=-1).split(counts, dim=-2)

    def _set_sites(self, sites: Sequence[Site]) -> None:
        self.rows = {site.name: row for row, site in enumerate(sites)}
        self.blocks = {site.name: blocks_of(site, self.shares) for site in sites}
        most = max((sum(rows for rows, _ in one) for one in self.blocks.values()), default=0)
        positions = encode_positions(most, self.position_dim).to(self.core.embedding.device)
        self.register_buffer("positions", positions, persistent=False)

    def select(self, sites: Sequence[Site]) -> None:
        rows = [self.rows[site.name] for site in sites]
        self.core.select(sites)
        self.sign_rows.select(rows)
        self._set_sites(sites)

    def extra_repr(self) -> str:
        return f"basis={self.basis}, shares={self.shares!r}, sites={len(self.rows)}"
