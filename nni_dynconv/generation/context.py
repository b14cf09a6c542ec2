"""Context encoders: what the controller looks at, as one vector a sample. Any module with ``out_dim`` is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ContextError, ShapeError, SpaceError
from ..settings import (
    FeatureMapContextSettings,
    OwnInputContextSettings,
    PatchContextSettings,
    SequenceContextSettings,
    VectorContextSettings,
    check_arguments,
)
from .parts import Gathered, Standardise, Upgrading

__all__ = ["FeatureMapContext", "OwnInputContext", "PatchContext", "SequenceContext", "VectorContext"]


def _expect(context: Tensor, axes: str, size: int, encoder: nn.Module) -> None:
    names = axes.split()
    axis = next(index for index, name in enumerate(names) if name == "D")
    if not isinstance(context, Tensor):
        raise ContextError(
            f"{type(encoder).__name__} takes a context ({', '.join(names)}), a tensor, but was given a "
            f"{type(context).__name__}. For an array: `torch.as_tensor(context)`."
        )
    if context.dim() != len(names) or context.shape[axis] != size:
        raise ContextError(
            f"{type(encoder).__name__} takes a context ({', '.join(names)}) with D = {size}, "
            f"but was given {tuple(context.shape)}."
        )


FEW = 4
"""Numbers that make a code which is no longer small."""


class Straight(Upgrading):
    """An encoder that has linear maps beside it where its codes are small.

    All of few ReLUs may be silent, and codes alike then. Earlier versions had no such maps.

    Attributes
    ----------
    straight
        By what they see.
    """

    straight: nn.ModuleDict

    def beside(self, code: Tensor, **seen: Tensor) -> Tensor:
        """Return a code with what the linear maps say."""
        for name, own in self.straight.items():
            code = code + own(seen[name])
        return code

    def upgrade(self, state: dict[str, Any], prefix: str) -> None:
        for name, own in self.straight.named_parameters():
            state.setdefault(f"{prefix}straight.{name}", torch.zeros_like(own))


def straight_maps(dim: int, **inputs: int) -> nn.ModuleDict:
    """Make the linear maps of an encoder, by what they see; none where its codes are not small."""
    return nn.ModuleDict({name: even_map(size, dim) for name, size in inputs.items()} if dim < FEW else {})


def even_map(inputs: int, outputs: int, bias: bool = False) -> nn.Linear:
    """Make a linear map whose few outputs are of variance one for inputs of variance one, in ways of their own.

    A code of one number so varies with its context as much as one of many, and no unlucky draw makes it a constant.

    Examples
    --------
    >>> even_map(1, 1).weight.abs().item()
    1.0
    """
    made = nn.Linear(inputs, outputs, bias)
    if outputs < FEW:
        nn.init.orthogonal_(made.weight, gain=max(1.0, outputs / inputs) ** 0.5)
    return made


class VectorContext(Straight):
    """A vector through a small MLP; codes of less than four numbers have a linear map beside it.

    It is standardised by what was seen in training (:class:`~nni_dynconv.generation.parts.Gathered`).

    Parameters
    ----------
    in_features
        Length ``D`` of the vector.
    dim
        Length of the code.

    Raises
    ------
    ConfigError
        A size is no whole number of 1 or more.
    ContextError
        When it is called with a context that is not ``(B, D) or (D,)``.

    Examples
    --------
    >>> VectorContext(3, dim=8)(torch.zeros(5, 3)).shape
    torch.Size([5, 8])
    """

    def __init__(self, in_features: int, dim: int):
        super().__init__()
        check_arguments(self, VectorContextSettings(in_features, dim))
        self.in_features, self.dim, self.out_dim = in_features, dim, dim
        self.norm = Gathered(in_features)
        self.mlp = nn.Sequential(nn.Linear(in_features, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.straight = straight_maps(dim, vector=in_features)

    def forward(self, context: Tensor) -> Tensor:  # B D, or D for a context that the batch shares -> B dim
        if isinstance(context, Tensor) and context.dim() == 1:
            context = context[None]
        _expect(context, "B D", self.in_features, self)
        context = self.norm(context)
        return self.beside(self.mlp(context), vector=context)


class FeatureMapContext(Straight):
    """A feature map, or a stack of frames, through two strided convolutions and the strength of their answers.

    Its channels are standardised by what was seen in training (:class:`~nni_dynconv.generation.parts.Gathered`). The
    code is an MLP of the standardised mean and log-variance over places; codes of less than four numbers have linear
    maps of these and of the channels' means beside it. The plain mean of a convolution hardly
    varies between samples at first, and a controller then ignores it for hundreds of steps.

    Parameters
    ----------
    in_channels
        Channels ``D`` of the map.
    dim
        Length of the code.

    Raises
    ------
    ConfigError
        A size is no whole number of 1 or more.
    ContextError
        When it is called with a context that is not ``(B, D, H, W)``.

    Examples
    --------
    >>> FeatureMapContext(3, dim=8)(torch.rand(5, 3, 16, 16)).shape
    torch.Size([5, 8])
    """

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        check_arguments(self, FeatureMapContextSettings(in_channels, dim))
        self.in_channels, self.dim, self.out_dim = in_channels, dim, dim
        self.input_norm = Gathered(in_channels, axis=1)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, dim, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 3, stride=2, padding=1)
        )
        self.norm = Standardise(2 * dim)
        self.mlp = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.straight = straight_maps(dim, answers=2 * dim, means=in_channels)

    def forward(self, context: Tensor) -> Tensor:  # B D H W -> B dim
        _expect(context, "B D H W", self.in_channels, self)
        context = self.input_norm(context)
        places = self.features(context).flatten(2)  # B dim places
        mean, spread = places.mean(2), places.var(2, correction=0)
        answers = self.norm(torch.cat([mean, (spread + 1e-6).log()], dim=1))
        return self.beside(self.mlp(answers), answers=answers, means=context.mean((2, 3)))


class PatchContext(FeatureMapContext):
    """A feature map, or frames, as :class:`FeatureMapContext` sees it, patch by patch: a map of codes.

    A :class:`~nni_dynconv.DynamicPatchConv2d` gets a set of weights for each patch of its own grid, made from the mean
    of the codes there. Every other op gets one for each sample, made from the mean of all.

    Parameters
    ----------
    in_channels
        Channels ``D`` of the map.
    dim
        Length of a code.
    grid
        Codes along its height, and along its width.

    Raises
    ------
    ConfigError
        A size is no whole number of 1 or more.
    ContextError
        When it is called with a context that is not ``(B, D, H, W)``.

    References
    ----------
    Nirkin et al., HyperSeg: Patch-wise hypernetwork for real-time semantic segmentation, CVPR 2021.

    Examples
    --------
    >>> PatchContext(3, dim=8, grid=4)(torch.rand(5, 3, 16, 16)).shape
    torch.Size([5, 8, 4, 4])
    """

    def __init__(self, in_channels: int, dim: int, grid: int):
        check_arguments(self, PatchContextSettings(in_channels, dim, grid))
        super().__init__(in_channels, dim)
        self.grid = grid

    def forward(self, context: Tensor) -> Tensor:  # B D H W -> B dim grid grid
        _expect(context, "B D H W", self.in_channels, self)
        context = self.input_norm(context)
        places = self.features(context)
        mean = self._pooled(places)
        spread = (self._pooled(places.square()) - mean.square()).relu()
        answers = self.norm(torch.cat([mean, (spread + 1e-6).log()], dim=1).movedim(1, -1).flatten(0, 2))
        means = self._pooled(context).movedim(1, -1).flatten(0, 2)
        codes = self.beside(self.mlp(answers), answers=answers, means=means)
        return codes.unflatten(0, (-1, self.grid, self.grid)).movedim(-1, 1)

    def _pooled(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.grid)


class SequenceContext(Straight):
    """A sequence through a gated recurrent unit; the code is its last state.

    Its elements are standardised by what was seen in training (:class:`~nni_dynconv.generation.parts.Gathered`). Codes
    of less than four numbers have a linear map of their mean beside it.

    Parameters
    ----------
    in_features
        Length ``D`` of one element.
    dim
        Length of the code.

    Raises
    ------
    ConfigError
        A size is no whole number of 1 or more.
    ContextError
        When it is called with a context that is not ``(B, T, D)``.

    Examples
    --------
    >>> SequenceContext(3, dim=8)(torch.zeros(5, 7, 3)).shape
    torch.Size([5, 8])
    """

    def __init__(self, in_features: int, dim: int):
        super().__init__()
        check_arguments(self, SequenceContextSettings(in_features, dim))
        self.in_features, self.dim, self.out_dim = in_features, dim, dim
        self.norm = Gathered(in_features)
        self.gru = nn.GRU(in_features, dim, batch_first=True)
        self.straight = straight_maps(dim, mean=in_features)

    def forward(self, context: Tensor) -> Tensor:  # B T D -> B dim
        _expect(context, "B T D", self.in_features, self)
        context = self.norm(context)
        return self.beside(self.gru(context)[1][-1], mean=context.mean(1))


class OwnInputContext(nn.Module):
    """The input of each layer itself: its mean over positions, standardised, through a linear map of the layer's own.

    So each sample, at each layer, has the weights that its features ask for, and ``mutator(x)`` takes no context.
    Weights are made when the layer is reached, a layer at a time. Each site has a map of ``in_channels x dim`` numbers.

    Parameters
    ----------
    dim
        Length of the code.

    Raises
    ------
    ConfigError
        A size is no whole number of 1 or more.

    Notes
    -----
    The mean of features varies little between samples beside its own size, and a controller would ignore it at first:
    so it is standardised by running statistics, which samples of a training batch share.

    References
    ----------
    Yang et al., CondConv: Conditionally parameterized convolutions for efficient inference, NeurIPS 2019; Chen et al.,
    Dynamic convolution: Attention over convolution kernels, CVPR 2020. There the code mixes stored kernels, which
    :class:`~nni_dynconv.controllers.Controller` says here.

    Examples
    --------
    >>> encoder = OwnInputContext(8)
    >>> encoder.bind({"conv": (3, 1)})
    >>> encoder("conv", torch.rand(5, 3, 16, 16)).shape
    torch.Size([5, 8])
    """

    def __init__(self, dim: int):
        super().__init__()
        check_arguments(self, OwnInputContextSettings(dim))
        self.dim = self.out_dim = dim
        self.inputs: dict[str, tuple[int, int]] = {}

    @property
    def bound(self) -> bool:
        """Whether a mutator has it already."""
        return bool(self.inputs)

    def bind(self, inputs: Mapping[str, tuple[int, int]]) -> None:
        """Tell the encoder which sites there are: number of channels of the input, and which axis they are.

        Raises
        ------
        ConfigError
            Another mutator has it already.
        """
        if self.bound:
            raise ConfigError("This OwnInputContext serves another mutator already. Make one each.")
        self._set(inputs)
        self.norms = nn.ModuleList(Standardise(channels) for channels, _ in self.inputs.values())
        self.maps = nn.ModuleList(even_map(channels, self.dim, bias=True) for channels, _ in self.inputs.values())

    def _set(self, inputs: Mapping[str, tuple[int, int]]) -> None:
        self.inputs = {site: (channels, axis) for site, (channels, axis) in inputs.items()}
        self._rows = {site: row for row, site in enumerate(self.inputs)}

    def select(self, sites: Iterable[str]) -> None:
        """Forget other sites."""
        kept = [site for site in sites if site in self.inputs]
        rows = [self._rows[site] for site in kept]
        self.norms = nn.ModuleList(self.norms[row] for row in rows)
        self.maps = nn.ModuleList(self.maps[row] for row in rows)
        self._set({site: self.inputs[site] for site in kept})

    def forward(self, site: str, x: Tensor) -> Tensor:  # B ... -> B dim
        """Encode the input of a site's op.

        Raises
        ------
        ShapeError
            It has other channels than the op takes.
        ContextError
            It is of another type than the encoder.
        """
        (channels, axis), row = self.inputs[site], self._rows[site]
        if x.dim() < 2 or x.shape[axis] != channels:
            place = "last" if axis < 0 else "second"
            raise ShapeError(
                f"Site `{site}`: the input must be a batch with {channels} channels on its {place} axis, but is "
                f"{tuple(x.shape)}."
            )
        places = [one for one in range(1, x.dim()) if one != axis % x.dim()]
        try:
            return self.maps[row](self.norms[row](x.mean(places) if places else x))
        except RuntimeError as error:
            own = self.maps[row].weight.dtype
            if x.dtype == own:
                raise
            raise ContextError(
                f"Site `{site}`: the input is {x.dtype}, but what makes its weights is {own}. Give `x.to({own})`."
            ) from error

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


def channels_of(op: nn.Module, site: str) -> tuple[int, int]:
    """Return how many channels the input of an op has, and which axis they are.

    Raises
    ------
    SpaceError
        The op does not tell.
    """
    for name, axis in (("in_channels", 1), ("num_features", 1), ("num_channels", 1), ("in_features", -1)):
        if isinstance(getattr(op, name, None), int):
            return getattr(op, name), axis
    shape = getattr(op, "normalized_shape", None)
    if isinstance(shape, tuple):
        return shape[-1], -1
    raise SpaceError(
        f"`OwnInputContext` must know how many channels the input of site `{site}` has, but {type(op).__name__} has no "
        f"`in_channels` or the like. Give it one, or make the site static (`delta='none'`)."
    )
