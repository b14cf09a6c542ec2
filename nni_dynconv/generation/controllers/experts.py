"""A controller that mixes weights which it stores: a few sets for each site, in shares that the context decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError
from ...settings import Encoding, ExpertsSettings, Nonlinearity, Routing, ScaleRule, Shares, check_arguments
from ...sites import Site
from ..initialisation import Scales, scale_of, stds_of
from ..parts import Upgrading
from .mixing import Blocks, Mixing, Mixture, blocks_of, mixed
from .pieces import CodeInput, rows_of

__all__ = ["ExpertsController"]

SPREAD = 4.0  # variance of the logits of a sigmoid or a softmax at the start


class Place(NamedTuple):
    """Where a site stands in a controller."""

    number: int  # of its experts
    rows: range  # of its shares
    blocks: Blocks


class ExpertsController(Upgrading, Mixing):
    r"""A site's weight is a mixture of ``experts`` learned ones: :math:`W = \sum_e r_e W_e`.

    The routing :math:`r` is a linear map of the context for each site, as it is or through a sigmoid or a softmax.
    Without context each site has one learned routing. It may differ from row to row of a weight.

    It departs from the rule that a controller's size does not depend on the sizes of the weights: it has ``experts``
    parameters for each weight of each candidate, and as many times the code's length for each site, or row. In return
    making weights costs next to nothing.

    Parameters
    ----------
    experts
        Sets of weights for each site.
    routing
        ``sigmoid``: experts add up; ``softmax``: they compete; ``linear``: shares have a sign, so that a context may
        take an expert away, as suits a delta to a learned base.
    shares
        ``site``: one mixture of whole sets; ``row``: each row of a weight, along its first axis, is mixed by shares of
        its own, so that each output channel of a convolution has its own mixture, and a vector has one. Many experts
        pay then.
    scale_rule, encoding, nonlinearity
        As of :class:`~nni_dynconv.controllers.ChunkedController`.

    Raises
    ------
    ConfigError
        There is no such ``routing``, ``shares``, ``scale_rule`` or ``encoding``, a setting has another type or range,
        or a single expert has a linear routing.

    Notes
    -----
    Shares are divided by their norm, which the papers do not do: a mixture of experts of one variance then has that
    variance for every context, and no site has an unlucky routing that makes its weights small. Rows of one site start
    with the same shares, for which its experts are whole kernels, and grow apart.

    Experts are stored as large as the weights that come out of them without a base, as a layer stores its own: at a
    learning rate that suits a layer, steps of an optimizer such as Adam would hardly change values of unit variance.

    References
    ----------
    Yang et al., CondConv: Conditionally parameterized convolutions for efficient inference, NeurIPS 2019 (sigmoid);
    Chen et al., Dynamic convolution: Attention over convolution kernels, CVPR 2020 (softmax); Ma et al., WeightNet:
    Revisiting the design space of weight networks, ECCV 2020 (shares for each output channel). There the context is the
    layer's own input.

    Examples
    --------
    >>> from nni_dynconv.spec import WeightSpec
    >>> sites = [Site("conv", "DynamicConv2d", (WeightSpec("weight", (8, 8, 3, 3), 72),))]
    >>> controller = ExpertsController(experts=3)
    >>> controller.bind(sites, context_dim=4)
    >>> controller.experts_of(sites[0]).shape, controller.generate(sites, torch.zeros(2, 4))[0].shape
    (torch.Size([3, 576]), torch.Size([2, 576]))
    """

    def __init__(
        self,
        experts: int = 4,
        routing: Routing = "sigmoid",
        shares: Shares = "site",
        scale_rule: ScaleRule = "hyperfan_in",
        encoding: Encoding = "layer_norm",
        nonlinearity: Nonlinearity = "linear",
    ):
        super().__init__()
        check_arguments(self, ExpertsSettings(experts, routing, shares, scale_rule, encoding, nonlinearity))
        if routing == "linear" and experts < 2:
            raise ConfigError(
                f"`experts` in `ExpertsController` is {experts}, but `routing` 'linear' divides shares by their norm, "
                "which leaves nothing but the sign of a single one. Take 2 experts or more, or another routing."
            )
        self.experts, self.routing, self.shares = experts, routing, shares
        self.scale_rule, self.nonlinearity, self.encoding = scale_rule, nonlinearity, encoding
        self.places: dict[str, Place] = {}

    def bind(self, sites: Sequence[Site], context_dim: int | None) -> None:
        self.places = self._place(sites)
        self.rescale(sites)
        self.stored = nn.ParameterList(torch.randn(self.experts, len(scale)) * scale for scale in self.scales)
        even, spread = (self.experts**-0.5, 1 / self.experts) if self.routing == "linear" else (0.0, SPREAD)
        rows = [place.number for place in self.places.values() for _ in place.rows]
        self.logits = nn.Parameter(torch.full((len(rows), self.experts), even))
        self.router = None
        if context_dim is not None:
            self.code = CodeInput(context_dim, self.encoding, self.architecture_dim)
            router = torch.randn(len(sites), self.experts, self.code.out_dim) * (spread / self.code.out_dim) ** 0.5
            self.router = nn.Parameter(router[rows])
            self.logits.data -= self.router.data @ self.code(torch.zeros(context_dim))  # that context routes evenly

    def rescale(self, sites: Sequence[Site]) -> None:
        """Let experts be stored as large as the specs of these sites say, all that there are."""
        self.scales = Scales([scale_of(site, self.scale_rule, self.nonlinearity) for site in sites])
        self.stds = {site.name: stds_of(site, self.scale_rule, self.nonlinearity) for site in sites}

    def _place(self, sites: Sequence[Site]) -> dict[str, Place]:
        places, start = {}, 0
        for number, site in enumerate(sites):
            blocks = blocks_of(site, self.shares)
            rows = range(start, start + sum(count for count, _ in blocks))
            places[site.name], start = Place(number, rows, blocks), rows.stop
        return places

    @property
    def mixes(self) -> bool:  # type: ignore[override]
        return self.shares == "site"

    def mixtures(self, sites: Sequence[Site], context: Tensor) -> list[Mixture]:
        places = [self.places[site.name] for site in sites]
        pairs = zip(sites, places, self._shares(places, context), strict=True)
        return [Mixture(own.squeeze(-2), self.stored[place.number], self.stds[site.name]) for site, place, own in pairs]

    def generate(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:
        places = [self.places[site.name] for site in sites]
        pairs = zip(sites, self._shares(places, context), strict=True)
        return [mixed(own, self.experts_of(site), self.places[site.name].blocks) for site, own in pairs]

    def _shares(self, places: Sequence[Place], context: Tensor | None) -> tuple[Tensor, ...]:  # each ... row expert
        own = torch.tensor([row for place in places for row in place.rows], device=self.logits.device)
        logits = self.logits.index_select(0, own)  # row expert
        if self.router is not None and context is not None:
            router = self.router.index_select(0, own)
            seen = self.code(context) @ router.flatten(0, 1).t()  # of all sites at once
            logits = logits + seen.unflatten(-1, logits.shape)  # ... row expert
        return self._route(logits).split([len(place.rows) for place in places], dim=-2)

    def _route(self, logits: Tensor) -> Tensor:
        if self.routing != "linear":
            logits = logits.sigmoid() if self.routing == "sigmoid" else logits.softmax(-1)
        return F.normalize(logits, dim=-1)

    def experts_of(self, site: Site) -> Tensor:  # expert N
        """Return the sets of weights that a site mixes, flat, of unit variance."""
        number = self.places[site.name].number
        return self.stored[number] / self.scales[number]

    def select(self, sites: Sequence[Site]) -> None:
        places = [self.places[site.name] for site in sites]
        rows = [row for place in places for row in place.rows]
        self.stored = nn.ParameterList(self.stored[place.number] for place in places)
        self.scales = Scales([self.scales[place.number] for place in places])
        self.stds = {site.name: self.stds[site.name] for site in sites}
        self.logits = rows_of(self.logits, rows)
        if self.router is not None:
            self.router = rows_of(self.router, rows)
        self.places = self._place(sites)

    def upgrade(self, state: dict[str, Any], prefix: str) -> None:
        if self.router is not None and f"{prefix}router" in state:
            state[f"{prefix}router"] = self.code.widened(state[f"{prefix}router"])

    def extra_repr(self) -> str:
        return f"experts={self.experts}, routing={self.routing!r}, shares={self.shares!r}, sites={len(self.places)}"
