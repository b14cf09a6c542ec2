"""What is left of a controller whose contexts were clustered: a few sets of weights, and a map that says which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...settings import Nonlinearity, ScaleRule
from ...sites import Site
from .base import Controller
from .pieces import rows_of

__all__ = ["ClusteredController"]


class ClusteredController(Controller):
    r"""One of K stored sets of weights for each context: the one whose line is highest at its code.

    .. math:: k(c) = \mathrm{argmax}_j \, (V_j c + v_j)

    :func:`nni_dynconv.export.cluster` makes it out of a controller that has learned. Sets can be trained further; the
    map that picks them cannot, and starts with zeros here.

    Parameters
    ----------
    clusters
        How many sets.
    scale_rule, nonlinearity
        Of the controller that made them.
    """

    router: Tensor
    offsets: Tensor

    def __init__(self, clusters: int, scale_rule: ScaleRule = "hyperfan_in", nonlinearity: Nonlinearity = "linear"):
        super().__init__()
        self.clusters, self.scale_rule, self.nonlinearity = clusters, scale_rule, nonlinearity
        self.rows: dict[str, int] = {}

    def bind(self, sites: Sequence[Site], context_dim: int | None) -> None:
        self.rows = {site.name: row for row, site in enumerate(sites)}
        self.register_buffer("router", torch.zeros(self.clusters, context_dim or 0))
        self.register_buffer("offsets", torch.zeros(self.clusters))
        self.sets = nn.ParameterList(torch.zeros(self.clusters, site.num_generated) for site in sites)

    def which(self, context: Tensor) -> Tensor:  # ... dim -> ...
        """Return which set each code has."""
        return torch.addmm(self.offsets, context.reshape(-1, self.router.shape[1]), self.router.t()).argmax(-1)

    def generate(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:
        sets: list[Any] = [self.sets[self.rows[site.name]] for site in sites]
        if context is None:
            return [one[0] for one in sets]
        which = self.which(context)
        made = [one.index_select(0, which) for one in sets]
        return made if context.dim() == 2 else [one[0] for one in made]

    def select(self, sites: Sequence[Site]) -> None:
        every = range(self.clusters)
        self.sets = nn.ParameterList(rows_of(self.sets[self.rows[site.name]], every) for site in sites)
        self.rows = {site.name: row for row, site in enumerate(sites)}

    def extra_repr(self) -> str:
        return f"clusters={self.clusters}, sites={len(self.rows)}"
