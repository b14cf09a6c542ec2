"""A controller whose size does not depend on the sizes of the weights: it makes them chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...functional import PLAIN, is_imagined, is_transformed
from ...settings import ChunkedSettings, Encoding, Nonlinearity, ScaleRule, check_arguments
from ...sites import Site
from .base import Controller
from .blockwise import Layers, last_layer, made_in_blocks, norm_of, size_of
from .pieces import context_map, encode_positions, even, linear, repeat_rows, rows_of
from .signs import Signs

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
        Lengths of the site's embedding and of the encoded position, which is even: half sines, half cosines.
    hidden
        Width of the MLP.
    scale_rule
        How what is made is scaled: :func:`~nni_dynconv.generation.initialisation.scale_of`.
    encoding
        How the context is brought to one size: :class:`~nni_dynconv.controllers.pieces.CodeInput`.
    signs
        Whether the last features have one norm, and signs of each site's and position's own. In version 0.1.0 they had
        not.
    nonlinearity
        What stands between layers, for the scale too.

    Raises
    ------
    ConfigError
        There is no such ``scale_rule``, ``encoding`` or ``nonlinearity``, or a setting has another type or lies outside
        of its range.

    Notes
    -----
    At the start each source (site, position, context) contributes equally to the first layer and the output has unit
    variance, whatever the widths: with the scale by fan-in that follows, this is hyperfan-in initialisation.

    The features of the last layer are brought to one norm, so that no context and no position makes larger weights than
    another, and multiplied by signs, fixed at random for each position of each site
    (:class:`~nni_dynconv.generation.controllers.signs.Signs`). Without signs chunks are much alike, for the features of
    a ReLU are all positive, and an output that sums over several chunks is up to seven times too large behind a ReLU
    (version 0.1.0 in ``benchmarks/quality/initialisation.json``). With them chunks are uncorrelated, which is what the
    scale by fan-in supposes, and so are sites, as layers are that are initialised one by one: with signs of the
    position alone sites of one shape started nearly alike, and a residual path summed the same change again and again.

    References
    ----------
    Ha et al., HyperNetworks, ICLR 2017; von Oswald et al., Continual learning with hypernetworks, ICLR 2020 (chunks);
    Chang et al., Principled weight initialization for hypernetworks, ICLR 2020. The signs are ours.

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
    sign_rows: Signs | None

    def __init__(
        self,
        chunk: int = 64,
        site_dim: int = 16,
        position_dim: int = 16,
        hidden: int = 128,
        scale_rule: ScaleRule = "hyperfan_in",
        encoding: Encoding = "layer_norm",
        signs: bool = True,
        nonlinearity: Nonlinearity = "linear",
    ):
        super().__init__()
        widths = chunk, site_dim, position_dim, hidden
        check_arguments(self, ChunkedSettings(*widths, scale_rule, encoding, signs, nonlinearity))
        self.chunk, self.site_dim, self.position_dim, self.hidden = chunk, site_dim, position_dim, hidden
        self.scale_rule, self.nonlinearity = scale_rule, nonlinearity
        self.encoding, self.signs = encoding, signs
        self.rows: dict[str, int] = {}

    def bind(self, sites: Sequence[Site], context_dim: int | None) -> None:
        self._set_sites(sites)
        count = len(self.numbers)
        self.register_buffer("positions", encode_positions(count, self.position_dim), persistent=False)
        counts = list(self.counts.values())
        self.sign_rows = Signs(counts, self.hidden, before=self.hidden) if self.signs else None
        self.embedding = nn.Parameter(torch.randn(len(sites), self.site_dim))
        sources = 2 if context_dim is None else 3
        self.from_site = linear(self.site_dim, self.hidden, gain=1 / sources)
        self.from_position = linear(self.position_dim, self.hidden, gain=1 / sources, bias=False)
        seen = self.encoding, self.architecture_dim
        self.from_context = context_map(context_dim, self.hidden, 1 / sources, *seen)
        self.middle = linear(self.hidden, self.hidden, gain=2.0)
        self.out = even(self.hidden, self.chunk, gain=2.0)

    def generate(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:
        several = context is not None and context.dim() > 1 and self.from_context is not None
        if several and self.sign_rows is not None and self.goes_in_blocks:
            lines = self.sign_rows.lines_of(self._wanted(sites)).unsqueeze(0)
            return self.cut(self.in_blocks(sites, context, self.sign_rows, lines).squeeze(1), sites)
        features = self.features(sites, context)
        chunks = self.out(features) if self.sign_rows is None else self.signed(features, self._signs_of(sites))
        return self.cut(chunks, sites)

    @property
    def goes_in_blocks(self) -> bool:
        """Whether nobody follows or changes what layers compute."""
        if torch.compiler.is_compiling() or is_transformed() or self.numbers.is_meta:
            return False
        if torch.is_autocast_enabled(self.numbers.device.type):
            return False
        if is_imagined():
            return True
        traced = torch._C._len_torch_dispatch_stack() or torch._C._get_tracing_state() is not None
        return not traced and all(type(layer.weight) in PLAIN for layer in (self.middle, self.out))  # not quantized

    def in_blocks(self, sites: Sequence[Site], context: Tensor | None, signs: Signs, lines: Tensor) -> Tensor:
        """Return chunks as :meth:`signed` does of :meth:`features`, ``(B, K, n, chunk)``; B is 1 of a single context.

        Parameters
        ----------
        lines
            ``(K, n)``, whose signs K sets have.
        """
        rows = self._places(sites)
        codes = rows.new_zeros(1, self.hidden)
        if self.from_context is not None and context is not None:
            codes = torch.atleast_2d(self.from_context(context))
        layers = self.middle.weight, self.middle.bias, self.out.weight, self.out.bias
        return made_in_blocks(rows, codes, Layers(*layers, signs.table, lines))

    def features(self, sites: Sequence[Site], context: Tensor | None) -> Tensor:
        """Return what the last layer sees of each chunk of some sites: ``(..., n, hidden)``."""
        hidden = self._places(sites)
        if self.from_context is not None and context is not None:
            hidden = hidden + self.from_context(context).unsqueeze(-2)  # ... n hidden
        rows = hidden.relu_().flatten(0, -2)  # in place before it is a view: autograd copies around a view
        rows = self.middle(rows).relu_()
        return rows.view(hidden.shape)

    def cut(self, chunks: Tensor, sites: Sequence[Site]) -> list[Tensor]:  # ... n chunk -> each ... N
        """Return the values of each site, without what last chunks have too much."""
        flat = chunks.flatten(-2)
        if len(sites) == 1 and flat.shape[-1] == sites[0].num_generated:
            return [flat]
        sizes = [size for site in sites for size in (site.num_generated, -site.num_generated % self.chunk)]
        return list(flat.split(sizes, dim=-1)[::2])

    def _places(self, sites: Sequence[Site]) -> Tensor:  # n hidden, over all chunks of all sites
        """Return what sites and positions give to the first layer."""
        counts = [self.counts[site.name] for site in sites]
        own = torch.tensor([self.rows[site.name] for site in sites], device=self.numbers.device)
        from_site = self.from_site(self.embedding.index_select(0, own))  # of these sites only: there may be hundreds
        reached = self.positions[: max(counts)]  # one large site of the space would make all others dear
        position = torch.cat([self.numbers[:count] for count in counts])
        return repeat_rows(from_site, counts) + self.from_position(reached).index_select(0, position)

    def _signs_of(self, sites: Sequence[Site]) -> Tensor:  # n hidden
        assert self.sign_rows is not None
        return self.sign_rows.rows(self._wanted(sites))

    def _wanted(self, sites: Sequence[Site]) -> list[tuple[int, int, int]]:
        return [(self.rows[site.name], 0, self.counts[site.name]) for site in sites]

    def signed(self, features: Tensor, signs: Tensor) -> Tensor:  # ... n hidden -> ... n chunk
        """Run the last layer on features of one norm, with signs."""
        weight: Any = self.out.weight
        if isinstance(weight, Tensor):
            return last_layer(features, signs, weight, self.out.bias)
        return self.out(features * signs * (size_of(self.hidden) / norm_of(features)).to(features))

    def _set_sites(self, sites: Sequence[Site]) -> None:
        self.rows = {site.name: row for row, site in enumerate(sites)}
        self.counts = {site.name: math.ceil(site.num_generated / self.chunk) for site in sites}
        self.register_buffer("numbers", torch.arange(max(self.counts.values(), default=0)), persistent=False)

    def select(self, sites: Sequence[Site]) -> None:
        rows = [self.rows[site.name] for site in sites]
        self.embedding = rows_of(self.embedding, rows)
        self._set_sites(sites)
        self.numbers = self.numbers.to(self.embedding.device)
        self.positions = self.positions[: len(self.numbers)].clone()
        if self.sign_rows is not None:
            self.sign_rows.select(rows)

    def extra_repr(self) -> str:
        return f"chunk={self.chunk}, sites={len(self.rows)}"
