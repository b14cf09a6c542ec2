"""A controller whose size does not depend on the sizes of the weights: it makes them chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..spec import Site
from .base import Controller

__all__ = ["ChunkedController"]


class ChunkedController(Controller):
    """One MLP makes every weight, ``chunk`` values at a time: ``MLP(site embedding, chunk position, context)``.

    The position is encoded (sines and cosines of the chunk's number) and not looked up, so that a larger kernel adds no
    parameter; a further candidate adds one row of ``site_dim`` numbers.

    Parameters
    ----------
    chunk
        Values made at a time.
    site_dim, position_dim
        Lengths of the site's embedding and of the encoded position.
    hidden
        Width of the MLP.

    Notes
    -----
    At the start each source (site, position, context) contributes equally to the first layer and the output has unit
    variance, whatever the widths: with the scale by fan-in that follows, this is hyperfan-in initialisation. The
    context is layer-normalised, as that scheme needs its variance to be known.

    References
    ----------
    Ha et al., HyperNetworks, ICLR 2017; von Oswald et al., Continual learning with hypernetworks, ICLR 2020 (chunks);
    Chang et al., Principled weight initialization for hypernetworks, ICLR 2020.

    Examples
    --------
    >>> from nni_dynconv.spec import WeightSpec
    >>> sites = [Site(f"conv{k}", "DynamicConv2d", (WeightSpec("weight", (8, 8, k, k), 8 * k * k),)) for k in (3, 7)]
    >>> controller = ChunkedController(hidden=32)
    >>> controller.bind(sites, context_dim=4)
    >>> [tuple(made.shape) for made in controller.generate(sites, torch.zeros(2, 4))]
    [(2, 576), (2, 3136)]
    """

    numbers: Tensor  # 0, 1, 2, ...
    positions: Tensor

    def __init__(self, chunk: int = 32, site_dim: int = 16, position_dim: int = 16, hidden: int = 128):
        super().__init__()
        self.chunk, self.site_dim, self.position_dim, self.hidden = chunk, site_dim, position_dim, hidden
        self.rows: dict[str, int] = {}

    def bind(self, sites: Sequence[Site], context_dim: int | None) -> None:
        self._set_sites(sites)
        self.register_buffer("positions", encode_positions(len(self.numbers), self.position_dim), persistent=False)
        self.embedding = nn.Parameter(torch.randn(len(sites), self.site_dim))
        sources = 2 if context_dim is None else 3
        self.from_site = _linear(self.site_dim, self.hidden, gain=1 / sources)
        self.from_position = _linear(self.position_dim, self.hidden, gain=1 / sources, bias=False)
        self.from_context = None
        if context_dim is not None:
            self.norm = nn.LayerNorm(context_dim, elementwise_affine=False) if context_dim > 1 else nn.Identity()
            self.from_context = _linear(context_dim, self.hidden, gain=1 / sources, bias=False)
        self.middle = _linear(self.hidden, self.hidden, gain=2.0)
        self.out = _linear(self.hidden, self.chunk, gain=2.0)

    def generate(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:
        hidden = self._first_layer(sites, context)  # ... n hidden, over all chunks of all sites
        rows = hidden.relu_().flatten(0, -2)  # in place before it is a view: autograd copies around a view
        chunks = self.out(self.middle(rows).relu_()).view(*hidden.shape[:-1], self.chunk)  # ... n chunk
        sizes = [size for site in sites for size in (site.num_generated, -site.num_generated % self.chunk)]
        return list(chunks.flatten(-2).split(sizes, dim=-1)[::2])  # without what last chunks have too much

    def _first_layer(self, sites: Sequence[Site], context: Tensor | None) -> Tensor:
        counts = [self.counts[site.name] for site in sites]
        own = torch.tensor([self.rows[site.name] for site in sites], device=self.numbers.device)
        times = torch.tensor(counts, device=self.numbers.device)
        from_site = self.from_site(self.embedding.index_select(0, own))  # of these sites only: there may be hundreds
        position = torch.cat([self.numbers[:count] for count in counts])
        hidden = from_site.repeat_interleave(times, 0, output_size=sum(counts))
        hidden = hidden + self.from_position(self.positions).index_select(0, position)
        if self.from_context is None or context is None:
            return hidden
        return hidden + self.from_context(self.norm(context)).unsqueeze(-2)

    def _set_sites(self, sites: Sequence[Site]) -> None:
        self.rows = {site.name: row for row, site in enumerate(sites)}
        self.counts = {site.name: math.ceil(site.num_generated / self.chunk) for site in sites}
        self.register_buffer("numbers", torch.arange(max(self.counts.values(), default=0)), persistent=False)

    def select(self, sites: Sequence[Site]) -> None:
        kept = self.embedding.detach()[[self.rows[site.name] for site in sites]].clone()
        self.embedding = nn.Parameter(kept)
        self._set_sites(sites)
        self.numbers, self.positions = self.numbers.to(kept.device), self.positions[: len(self.numbers)].clone()

    def extra_repr(self) -> str:
        return f"chunk={self.chunk}, sites={len(self.rows)}"


def encode_positions(count: int, dim: int) -> Tensor:
    """Encode the numbers ``0 .. count - 1`` by sines and cosines of falling frequency, with unit mean square.

    References
    ----------
    Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.5.

    Examples
    --------
    >>> encode_positions(5, 8).square().mean(1)
    tensor([1., 1., 1., 1., 1.])
    """
    frequencies = torch.exp(-math.log(1000.0) * torch.arange(dim // 2) / max(dim // 2, 1))
    angles = torch.arange(count)[:, None] * frequencies
    return math.sqrt(2.0) * torch.cat([angles.sin(), angles.cos()], dim=1)


def _linear(inputs: int, outputs: int, gain: float, bias: bool = True) -> nn.Linear:
    """Make a linear map whose output has variance ``gain`` for inputs of unit mean square (2 behind a ReLU)."""
    linear = nn.Linear(inputs, outputs, bias)
    nn.init.normal_(linear.weight, std=math.sqrt(gain / inputs))
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
