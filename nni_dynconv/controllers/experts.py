"""A controller that mixes weights which it stores: a few sets for each site, in shares that the context decides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..initialisation import Scales, scale_of
from ..parts import Encoding, ExpertsSettings, Routing, ScaleRule, check_arguments
from ..spec import Site
from .base import Controller
from .pieces import CodeInput, rows_of

__all__ = ["ExpertsController"]

SPREAD = 4.0  # variance of the logits of a sigmoid or a softmax at the start


class ExpertsController(Controller):
    r"""A site's weight is a mixture of ``experts`` learned ones: :math:`W = \sum_e r_e W_e`.

    The routing :math:`r` is a linear map of the context for each site, as it is or through a sigmoid or a softmax.
    Without context each site has one learned routing.

    It departs from the rule that a controller's size does not depend on the sizes of the weights: it has ``experts``
    parameters for each weight of each candidate. In return making weights costs next to nothing.

    Parameters
    ----------
    experts
        Sets of weights for each site.
    routing
        ``sigmoid``: experts add up; ``softmax``: they compete; ``linear``: shares have a sign, so that a context may
        take an expert away, as suits a delta to a learned base.
    scale_rule, encoding
        As of :class:`~nni_dynconv.controllers.ChunkedController`.

    Raises
    ------
    ConfigError
        There is no such ``routing``, ``scale_rule`` or ``encoding``, a setting has another type or range, or a single
        expert has a linear routing.

    Notes
    -----
    The shares of a site are divided by their norm, which the papers do not do: a mixture of experts of one variance
    then has that variance for every context, and no site has an unlucky routing that makes its weights small.

    Experts are stored as large as the weights that come out of them without a base, as a layer stores its own: at a
    learning rate that suits a layer, steps of an optimizer such as Adam would hardly change values of unit variance.

    References
    ----------
    Yang et al., CondConv: Conditionally parameterized convolutions for efficient inference, NeurIPS 2019 (sigmoid);
    Chen et al., Dynamic convolution: Attention over convolution kernels, CVPR 2020 (softmax). There the context is the
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
        scale_rule: ScaleRule = "hyperfan_in",
        encoding: Encoding = "layer_norm",
    ):
        super().__init__()
        check_arguments(self, ExpertsSettings(experts, routing, scale_rule, encoding))
        if routing == "linear" and experts < 2:
            raise ConfigError(
                f"`experts` in `ExpertsController` is {experts}, but `routing` 'linear' divides shares by their norm, "
                "which leaves nothing but the sign of a single one. Take 2 experts or more, or another routing."
            )
        self.experts, self.routing = experts, routing
        self.scale_rule, self.encoding = scale_rule, encoding
        self.rows: dict[str, int] = {}

    def bind(self, sites: Sequence[Site], context_dim: int | None) -> None:
        self.rows = {site.name: row for row, site in enumerate(sites)}
        self.scales = Scales([scale_of(site, self.scale_rule) for site in sites])
        self.stored = nn.ParameterList(torch.randn(self.experts, len(scale)) * scale for scale in self.scales)
        even, spread = (self.experts**-0.5, 1 / self.experts) if self.routing == "linear" else (0.0, SPREAD)
        self.logits = nn.Parameter(torch.full((len(sites), self.experts), even))
        self.router = None
        if context_dim is not None:
            self.code = CodeInput(context_dim, self.encoding)
            router = torch.randn(len(sites), self.experts, self.code.out_dim) * (spread / self.code.out_dim) ** 0.5
            self.router = nn.Parameter(router)
            self.logits.data -= router @ self.code(torch.zeros(context_dim))  # a context of zeros routes evenly

    def generate(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:
        rows = [self.rows[site.name] for site in sites]
        own = torch.tensor(rows, device=self.logits.device)
        logits = self.logits.index_select(0, own)  # site expert
        if self.router is not None and context is not None:
            router = self.router.index_select(0, own)
            seen = self.code(context) @ router.flatten(0, 1).t()  # of all sites at once
            logits = logits + seen.unflatten(-1, logits.shape)  # ... site expert
        shares = self._route(logits).unbind(-2)
        return [share @ self.stored[row] / self.scales[row] for share, row in zip(shares, rows, strict=True)]

    def _route(self, logits: Tensor) -> Tensor:
        if self.routing != "linear":
            logits = logits.sigmoid() if self.routing == "sigmoid" else logits.softmax(-1)
        return F.normalize(logits, dim=-1)

    def experts_of(self, site: Site) -> Tensor:  # expert N
        """Return the sets of weights that a site mixes, flat, of unit variance."""
        row = self.rows[site.name]
        return self.stored[row] / self.scales[row]

    def select(self, sites: Sequence[Site]) -> None:
        rows = [self.rows[site.name] for site in sites]
        self.stored = nn.ParameterList(self.stored[row] for row in rows)
        self.scales = Scales([self.scales[row] for row in rows])
        self.logits = rows_of(self.logits, rows)
        if self.router is not None:
            self.router = rows_of(self.router, rows)
        self.rows = {site.name: row for row, site in enumerate(sites)}

    def extra_repr(self) -> str:
        return f"experts={self.experts}, routing={self.routing!r}, sites={len(self.rows)}"
