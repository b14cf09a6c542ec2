"""A controller that makes each weight as a product of two thin matrices, which an MLP makes chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ...settings import Encoding, LowRankSettings, Nonlinearity, ScaleRule, check_arguments
from ...sites import Site
from ..factoring import factors_of, multiplied
from .base import Controller
from .chunked import ChunkedController

__all__ = ["LowRankController"]


class LowRankController(Controller):
    r"""Each weight is a product, :math:`W = A B / \sqrt{r}`, of exactly the shape that is asked for.

    ``A (Cout, r)`` and ``B (r, rest)`` come from a :class:`~nni_dynconv.controllers.ChunkedController`, the core, with
    ``rest`` all axes but the first, whatever the kernel. It makes ``r (Cout + rest)`` values instead of ``Cout rest``:
    few where a weight is large. A tensor of which A and B would be no smaller is made whole; so are biases, affine maps
    and depthwise kernels, whose channels would else share ``r`` kernels.

    Parameters
    ----------
    rank
        Of each weight, at most.
    chunk, site_dim, position_dim, hidden, scale_rule, encoding, nonlinearity
        Of the core.

    Raises
    ------
    ConfigError
        There is no such ``scale_rule``, ``encoding`` or ``nonlinearity``, or a setting has another type or lies outside
        of its range.

    Notes
    -----
    For A and B of unit variance the product over :math:`\sqrt{r}` has unit variance too.

    References
    ----------
    Ha et al., HyperNetworks, ICLR 2017; Hu et al., LoRA, ICLR 2022 (a product as the change of a weight).

    Examples
    --------
    >>> import torch
    >>> from nni_dynconv.spec import WeightSpec
    >>> sites = [Site("conv", "DynamicConv2d", (WeightSpec("weight", (64, 64, 5, 5), 1600),))]
    >>> controller = LowRankController(rank=8)
    >>> controller.bind(sites, context_dim=None)
    >>> made = controller.generate(sites, None)[0]
    >>> made.shape, int(torch.linalg.matrix_rank(made.view(64, 1600)))
    (torch.Size([102400]), 8)
    """

    def __init__(
        self,
        rank: int = 8,
        chunk: int = 32,
        site_dim: int = 16,
        position_dim: int = 16,
        hidden: int = 128,
        scale_rule: ScaleRule = "hyperfan_in",
        encoding: Encoding = "layer_norm",
        nonlinearity: Nonlinearity = "linear",
    ):
        super().__init__()
        widths = chunk, site_dim, position_dim, hidden
        check_arguments(self, LowRankSettings(rank, *widths, scale_rule, encoding, nonlinearity))
        self.rank, self.chunk, self.site_dim = rank, chunk, site_dim
        self.position_dim, self.hidden = position_dim, hidden
        self.scale_rule, self.nonlinearity, self.encoding = scale_rule, nonlinearity, encoding

    def bind(self, sites: Sequence[Site], context_dim: int | None) -> None:
        widths = self.chunk, self.site_dim, self.position_dim, self.hidden
        self.core = ChunkedController(*widths, encoding=self.encoding)
        self.core.architecture_dim = self.architecture_dim
        self.core.bind(self._factored(sites), context_dim)

    def generate(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:
        made = zip(sites, self.factors(sites, context), strict=True)
        return [multiplied(flat, site, own) for site, (own, flat) in made]

    def factors(self, sites: Sequence[Site], context: Tensor | None) -> list[tuple[Site, Tensor]]:
        """Make what :meth:`generate` multiplies: for each site its factors, as one, and their values."""
        asked = [self.asked[site.name] for site in sites]
        return list(zip(asked, self.core.generate(asked, context), strict=True))

    def select(self, sites: Sequence[Site]) -> None:
        self.core.select(self._factored(sites))

    def _factored(self, sites: Sequence[Site]) -> list[Site]:
        """Note what the core is asked for at each of these sites, and return it."""
        specs = [tuple(factor for spec in site.specs for factor in factors_of(spec, self.rank)) for site in sites]
        self.asked = {site.name: replace(site, specs=own) for site, own in zip(sites, specs, strict=True)}
        return list(self.asked.values())

    def extra_repr(self) -> str:
        return f"rank={self.rank}"
