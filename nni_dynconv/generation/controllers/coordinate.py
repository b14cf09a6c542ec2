"""A controller in which a weight is a function of its coordinates: a sum of waves over channels and kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...settings import CoordinateSettings, Encoding, Nesting, Nonlinearity, ScaleRule, check_arguments
from ...sites import Site, WeightSpec
from .base import Controller
from .fourier import FEATURES, LARGEST, features_of
from .nesting import leaders_of
from .pieces import context_map, encode_positions, even, linear, rows_of
from .signs import Signs

__all__ = ["CoordinateController"]

TENSOR_DIM = 8
SPREAD = 9.0  # variance of an axis's angles: of two places that share no feature, the waves correlate by exp(-9)


class CoordinateController(Controller):
    r"""A weight is a function of its coordinates: output and input channel and place in the kernel.

    .. math::
        W[o, i, k] = \frac{1}{\sqrt{n}} \sum_{h=1}^{n} s_h(o) \, (a_h \cos(\theta_h) + b_h \sin(\theta_h)), \qquad
        \theta_h = u_h(o) + t_h(o) \, (v_h(i) + w_h(k))

    The angles :math:`u, v, w` are learned maps of Fourier features of the normalised coordinates. The amplitudes
    :math:`a, b` are an MLP of the site's embedding, the number of the tensor and the context. The signs :math:`s, t`
    are fixed at random for each site and output: amplitudes of different sites are much alike at first, and there are
    few. An angle is a sum, so its
    cosine is a product of what belongs to each axis: all values come from one matrix product of ``Cout x 2n`` and
    ``2n x rest``, and no network runs for each of them.

    Sites that differ in their kernels alone (:func:`~nni_dynconv.controllers.nesting.nest_of`) share their amplitudes;
    ``nesting`` says how their weights, before the scale by fan-in, are related.

    Parameters
    ----------
    waves
        The number n; a weight has rank ``2n`` at most.
    site_dim
        Length of the site's embedding.
    hidden
        Width of the MLP.
    nesting
        ``centre``: a 3x3 is the centre of the 5x5 and the 7x7. ``transform``: a learned matrix of ``taps x taps`` on
        that centre, one for each site whose kernel is smaller than 7, the identity at the start. ``free``: nothing is
        shared.
    scale_rule, encoding, nonlinearity
        As of :class:`~nni_dynconv.controllers.ChunkedController`.

    Raises
    ------
    ConfigError
        There is no such ``nesting``, ``scale_rule`` or ``encoding``, or a setting has another type or range.

    Notes
    -----
    Angles vary fast over channels and taps at the start, so that neighbours are nearly uncorrelated and weights have
    unit variance. Kernels of odd and of even size share amplitudes, but lie half a tap apart.
    Once-for-all transforms the 7x7 to the 5x5 and that to the 3x3; here each is made from its own centre of the 7x7, so
    that a frozen network needs the matrix of its own kernel only.

    References
    ----------
    Sitzmann et al., Implicit neural representations with periodic activation functions, NeurIPS 2020; Tancik et al.,
    Fourier features let networks learn high frequency functions in low dimensional domains, NeurIPS 2020; Cai et al.,
    Once-for-all, ICLR 2020 (kernels that lie in each other, and the transform).

    Examples
    --------
    >>> names = {"body/conv3": 3, "body/conv5": 5}
    >>> sites = [Site(n, "DynamicConv2d", (WeightSpec("weight", (8, 4, k, k), 4 * k * k),)) for n, k in names.items()]
    >>> controller = CoordinateController(nesting="centre")
    >>> controller.bind(sites, context_dim=None)
    >>> small, large = controller.generate(sites, None)
    >>> torch.allclose(small.view(8, 4, 3, 3), large.view(8, 4, 5, 5)[:, :, 1:4, 1:4], atol=1e-5)
    True
    """

    leaders: Tensor  # row of the embedding for each site
    codes: Tensor  # of the tensor's number
    features: Tensor  # FEATURES, of all axes of all tensors

    def __init__(
        self,
        waves: int = 64,
        site_dim: int = 16,
        hidden: int = 128,
        nesting: Nesting = "centre",
        scale_rule: ScaleRule = "hyperfan_in",
        encoding: Encoding = "layer_norm",
        nonlinearity: Nonlinearity = "linear",
    ):
        super().__init__()
        check_arguments(self, CoordinateSettings(waves, site_dim, hidden, nesting, scale_rule, encoding, nonlinearity))
        self.waves, self.site_dim, self.hidden, self.nesting = waves, site_dim, hidden, nesting
        self.scale_rule, self.nonlinearity, self.encoding = scale_rule, nonlinearity, encoding

    def bind(self, sites: Sequence[Site], context_dim: int | None) -> None:
        leaders = leaders_of(sites) if self.nesting != "free" else list(range(len(sites)))
        self.register_buffer("leaders", torch.tensor(leaders, dtype=torch.long))
        self.embedding = nn.Parameter(torch.randn(len(sites), self.site_dim))
        self._set_sites(sites)
        self.signs = Signs([_outputs(site.specs) for site in sites], 2 * self.waves, before=0)
        self.signs.select(leaders)
        self.transforms = nn.ParameterList(torch.eye(taps) for taps in self._transformed(sites).values())
        self.outs, self.ins, self.taps = (linear(FEATURES, self.waves, SPREAD, bias=False) for _ in range(3))
        sources = 2 if context_dim is None else 3
        self.from_site = linear(self.site_dim, self.hidden, gain=1 / sources)
        self.from_tensor = linear(TENSOR_DIM, self.hidden, gain=1 / sources, bias=False)
        seen = self.encoding, self.architecture_dim
        self.from_context = context_map(context_dim, self.hidden, 1 / sources, *seen)
        self.middle = linear(self.hidden, self.hidden, gain=2.0)
        self.amplitudes = even(self.hidden, 2 * self.waves)

    def generate(self, sites: Sequence[Site], context: Tensor | None) -> list[Tensor]:
        amplitudes = self._amplitudes(sites, context)  # ... n 2 waves, over all tensors of all sites
        shapes = [spec.shape for site in sites for spec in site.specs]
        places = [place for site in sites for place in self._places_of(site)]
        flat: dict[int, Tensor] = {}
        for shape in dict.fromkeys(shapes):  # tensors of one shape in one product
            alike = [number for number, one in enumerate(shapes) if one == shape]
            own = amplitudes[..., alike, :] if len(alike) < len(shapes) else amplitudes
            signs = self.signs.rows([places[number] for number in alike])
            flat |= dict(zip(alike, self._sum_waves(own, shape, signs).unbind(-2), strict=True))
        made = iter(flat[number] for number in range(len(shapes)))
        return [self._joined(site, [next(made) for _ in site.specs], amplitudes) for site in sites]

    def _amplitudes(self, sites: Sequence[Site], context: Tensor | None) -> Tensor:
        device = self.embedding.device
        rows = [self.rows[site.name] for site in sites for _ in site.specs]
        leaders = self.leaders.index_select(0, torch.tensor(rows, dtype=torch.long, device=device))
        numbers = torch.tensor([n for site in sites for n in range(len(site.specs))], dtype=torch.long, device=device)
        hidden = self.from_site(self.embedding.index_select(0, leaders))
        hidden = hidden + self.from_tensor(self.codes).index_select(0, numbers)
        if self.from_context is not None and context is not None:
            hidden = hidden + self.from_context(context).unsqueeze(-2)
        hidden = F.rms_norm(self.middle(hidden.relu()).relu(), (self.hidden,), eps=1e-6)
        return self.amplitudes(hidden) * self.waves**-0.5

    def _places_of(self, site: Site) -> list[tuple[int, int, int]]:
        """Return where each tensor's signs are: one row for each output."""
        row, start = self.rows[site.name], 0
        places = []
        for spec in site.specs:
            places.append((row, start, spec.shape[0]))
            start += spec.shape[0]
        return places

    def _sum_waves(self, amplitudes: Tensor, shape: tuple[int, ...], signs: Tensor) -> Tensor:
        """Return tensors of one shape, ``(..., n, N)``, of amplitudes ``(..., n, 2 waves)`` and signs."""
        a, b = amplitudes.unsqueeze(-2).chunk(2, dim=-1)
        first = self.outs(self._features(0, shape[0]))  # Cout waves
        cos, sin = first.cos(), first.sin()
        left = torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)  # ... n Cout 2 waves
        left = left * signs.unflatten(0, left.shape[-3:-1])
        rest = self._angles_of_rest(shape)
        right = torch.cat([rest.cos(), rest.sin()], dim=-1)
        return (left @ right.t()).flatten(-2)

    def _angles_of_rest(self, shape: tuple[int, ...]) -> Tensor:  # rest waves
        angles = self.embedding.new_zeros(1, self.waves)
        if len(shape) > 1:
            angles = self.ins(self._features(1, shape[1]))
        for axis, size in enumerate(shape[2:], start=2):
            angles = (angles.unsqueeze(-2) + self.taps(self._features(axis, size))).flatten(0, -2)
        return angles

    def _features(self, axis: int, size: int) -> Tensor:  # size FEATURES
        start = self.starts[axis, size]
        return self.features[start : start + size]

    def _joined(self, site: Site, tensors: list[Tensor], like: Tensor) -> Tensor:
        for number, spec in enumerate(site.specs):
            place = self.places.get((site.name, number))
            if place is not None:
                taps = math.prod(spec.shape[2:])
                tensors[number] = (tensors[number].unflatten(-1, (-1, taps)) @ self.transforms[place].t()).flatten(-2)
        if len(tensors) == 1:
            return tensors[0]
        return torch.cat(tensors, dim=-1) if tensors else like.new_zeros(*like.shape[:-2], 0)

    def _set_sites(self, sites: Sequence[Site]) -> None:
        self.rows = {site.name: row for row, site in enumerate(sites)}
        self.places = {key: place for place, key in enumerate(self._transformed(sites))}
        codes = encode_positions(max(len(site.specs) for site in sites), TENSOR_DIM)
        self.register_buffer("codes", codes.to(self.embedding), persistent=False)
        axes = sorted({one for site in sites for spec in site.specs for one in enumerate(spec.shape)})
        self.starts = dict(zip(axes, accumulate((size for _, size in axes), initial=0), strict=False))
        features = torch.cat([features_of(axis, size) for axis, size in axes])
        self.register_buffer("features", features.to(self.embedding), persistent=False)

    def _transformed(self, sites: Sequence[Site]) -> dict[tuple[str, int], int]:
        """Return the tensors that have a matrix, and its size."""
        tensors = {(site.name, number): spec for site in sites for number, spec in enumerate(site.specs)}
        return {key: math.prod(spec.shape[2:]) for key, spec in tensors.items() if self._has_matrix(spec)}

    def _has_matrix(self, spec: WeightSpec) -> bool:
        taps = math.prod(spec.shape[2:])
        return self.nesting == "transform" and taps > 1 and all(size < LARGEST for size in spec.shape[2:])

    def select(self, sites: Sequence[Site]) -> None:
        rows = [self.rows[site.name] for site in sites]
        leaders = [int(self.leaders[row]) for row in rows]
        self.transforms = nn.ParameterList(self.transforms[self.places[key]] for key in self._transformed(sites))
        self.embedding = rows_of(self.embedding, leaders)
        self.leaders = self.leaders.new_tensor([leaders.index(leader) for leader in leaders])
        self._set_sites(sites)
        self.signs.select(rows)

    def extra_repr(self) -> str:
        return f"waves={self.waves}, nesting={self.nesting!r}, sites={len(self.rows)}"


def _outputs(specs: Sequence[WeightSpec]) -> int:
    return sum(spec.shape[0] for spec in specs)
