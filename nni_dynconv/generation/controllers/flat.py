"""The controller that comes to mind first, for comparison: a head of its own for every weight of every site."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...settings import Encoding, FlatSettings, Nonlinearity, ScaleRule, check_arguments
from ...sites import Site
from .base import Controller
from .pieces import context_map, linear

__all__ = ["FlatController"]


class FlatController(Controller):
    """One MLP gives all values at once: a trunk that sees the context, and a linear head for each site.

    It is the baseline. It has ``hidden + 1`` parameters for each weight that it makes, so it grows with kernels, widths
    and candidates: 33 times as many parameters as the supernet of ``benchmarks/quality/controller_sizes.py`` has
    weights, where the others, but for :class:`~nni_dynconv.controllers.ExpertsController`, have fewer.

    Parameters
    ----------
    hidden
        Width of the trunk.
    scale_rule, encoding, nonlinearity
        As of :class:`~nni_dynconv.controllers.ChunkedController`.

    Raises
    ------
    ConfigError
        There is no such ``scale_rule``, ``encoding`` or ``nonlinearity``, or a setting has another type or lies outside
        of its range.

    Notes
    -----
    A head sums over its features, each of which is normalised to unit mean square first: the output has unit variance
    for every context, however narrow the trunk.

    References
    ----------
    Chang et al., Principled weight initialization for hypernetworks, ICLR 2020 (of these they wrote).

    Examples
    --------
    >>> from nni_dynconv.spec import WeightSpec
    >>> controller = FlatController(hidden=10)
    >>> controller.bind([Site("conv", "DynamicConv2d", (WeightSpec("weight", (8, 8, 3, 3), 72),))], context_dim=None)
    >>> sum(one.numel() for one in controller.heads.parameters()) == 11 * 576
    True
    """

    def __init__(
        self,
        hidden: int = 32,
        scale_rule: ScaleRule = "hyperfan_in",
        encoding: Encoding = "layer_norm",
        nonlinearity: Nonlinearity = "linear",
    ):
        super().__init__()
        check_arguments(self, FlatSettings(hidden, scale_rule, encoding, nonlinearity))
        self.hidden, self.encoding = hidden, encoding
        self.scale_rule, self.nonlinearity = scale_rule, nonlinearity
        self.rows: dict[str, int] = {}

    def bind(self, sites: Sequence[Site], context_dim: int | None) -> None:
        self.rows = {site.name: row for row, site in enumerate(sites)}
        sources = 1 if context_dim is None else 2
        self.start = nn.Parameter(torch.randn(self.hidden) * sources**-0.5)
        seen = self.encoding, self.architecture_dim
        self.from_context = context_map(context_dim, self.hidden, 1 / sources, *seen)
        self.middle = linear(self.hidden, self.hidden, gain=2.0)
        self.heads = nn.ModuleList(linear(self.hidden, site.num_generated) for site in sites)

    def generate(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:
        hidden: Tensor = self.start
        if self.from_context is not None and context is not None:
            hidden = hidden + self.from_context(context)
        hidden = F.rms_norm(self.middle(hidden.relu()).relu(), (self.hidden,), eps=1e-6)
        return [self.heads[self.rows[site.name]](hidden) for site in sites]

    def select(self, sites: Sequence[Site]) -> None:
        self.heads = nn.ModuleList(self.heads[self.rows[site.name]] for site in sites)
        self.rows = {site.name: row for row, site in enumerate(sites)}

    def extra_repr(self) -> str:
        return f"hidden={self.hidden}, sites={len(self.rows)}"
