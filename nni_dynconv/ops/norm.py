"""Normalisations whose affine map is generated; their running statistics are ordinary state."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from .. import functional
from ..errors import ShapeError
from ..sites import WeightSpec
from .base import DynamicOp
from .reading import Readable
from .static import filled

__all__ = [
    "DynamicBatchNorm1d",
    "DynamicBatchNorm2d",
    "DynamicBatchNorm3d",
    "DynamicGroupNorm",
    "DynamicInstanceNorm1d",
    "DynamicInstanceNorm2d",
    "DynamicInstanceNorm3d",
    "DynamicLayerNorm",
]


class _Norm(Readable, DynamicOp):
    r"""What normalisations share: the affine map.

    .. math:: y = (1 + \mathrm{scale}) \cdot \mathrm{norm}(x) + \mathrm{shift}

    What is generated is the distance from the identity, so that small values, which controllers make at the start,
    leave a plain normalisation.

    References
    ----------
    Perez et al., FiLM: Visual reasoning with a general conditioning layer, AAAI 2018; Peebles and Xie, Scalable
    diffusion models with transformers, ICCV 2023 (the same map, and its words scale and shift).
    """

    norm: nn.Module  # torch's own, without an affine map

    def _shape(self) -> tuple[int, ...]:
        """Return the shape of one scale."""
        raise NotImplementedError

    def weight_specs(self) -> tuple[WeightSpec, ...]:
        scale, shift = (WeightSpec(kind, self._shape(), 1, kind) for kind in ("scale", "shift"))
        return (scale, shift) if self.has_bias else (scale,)

    def compute(self, x: Tensor, weights: Mapping[str, Tensor], counts: Sequence[int] | None = None) -> Tensor:
        return functional.affine(self.norm(x), 1 + weights["scale"], weights.get("shift"), counts=counts)

    def _filled(self, weights: Mapping[str, Tensor], *args: Any, **options: Any) -> nn.Module:
        """Return torch's layer with an affine map, and with the running statistics."""
        own = {"weight": 1 + weights["scale"], **({"bias": weights["shift"]} if self.has_bias else {})}
        layer = filled(type(self.norm), own, *args, **options)
        for name, buffer in self.norm.named_buffers():
            layer.register_buffer(name, buffer.detach().clone())
        return layer


class _ChannelNorm(_Norm):
    """Of the channels, with running statistics: torch's arguments except ``affine``, which is always generated."""

    torchs: ClassVar[type[nn.Module]]
    tracks: ClassVar[bool]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        track_running_stats: bool | None = None,
    ):
        super().__init__()
        _check_whole(num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.track_running_stats = self.tracks if track_running_stats is None else track_running_stats
        self.norm = self.torchs(num_features, eps, momentum, False, self.track_running_stats)

    def _shape(self) -> tuple[int, ...]:
        return (self.num_features,)

    def static_layer(self, weights: Mapping[str, Tensor]) -> nn.Module:
        return self._filled(weights, self.num_features, self.eps, self.momentum, True, self.track_running_stats)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class DynamicBatchNorm1d(_ChannelNorm):
    """:class:`torch.nn.BatchNorm1d` with a generated affine map, ``(1 + scale) * norm(x) + shift``.

    In training the statistics are those of the whole batch, in which samples meet, whatever their affine maps are.

    Parameters
    ----------
    num_features, eps, momentum, track_running_stats
        As in torch.

    Examples
    --------
    >>> DynamicBatchNorm1d(8).num_generated
    16
    """

    torchs, tracks = nn.BatchNorm1d, True


class DynamicBatchNorm2d(_ChannelNorm):
    """:class:`torch.nn.BatchNorm2d` with a generated affine map; as :class:`DynamicBatchNorm1d`.

    Parameters
    ----------
    num_features, eps, momentum, track_running_stats
        As in torch.

    Examples
    --------
    >>> import torch
    >>> norm = DynamicBatchNorm2d(1, eps=0.0).eval()
    >>> norm(torch.ones(2, 1, 1, 1), {"scale": torch.tensor([[0.0], [1.0]]), "shift": torch.zeros(1)}).flatten()
    tensor([1., 2.])
    """

    torchs, tracks = nn.BatchNorm2d, True


class DynamicBatchNorm3d(_ChannelNorm):
    """:class:`torch.nn.BatchNorm3d` with a generated affine map; as :class:`DynamicBatchNorm1d`.

    Parameters
    ----------
    num_features, eps, momentum, track_running_stats
        As in torch.

    Examples
    --------
    >>> DynamicBatchNorm3d(8).num_generated
    16
    """

    torchs, tracks = nn.BatchNorm3d, True


class DynamicInstanceNorm1d(_ChannelNorm):
    """:class:`torch.nn.InstanceNorm1d` with a generated affine map: with a context, adaptive instance normalisation.

    Parameters
    ----------
    num_features, eps, momentum, track_running_stats
        As in torch.

    References
    ----------
    Huang and Belongie, Arbitrary style transfer in real-time with adaptive instance normalization, ICCV 2017.

    Examples
    --------
    >>> DynamicInstanceNorm1d(8).num_generated
    16
    """

    torchs, tracks = nn.InstanceNorm1d, False


class DynamicInstanceNorm2d(_ChannelNorm):
    """:class:`torch.nn.InstanceNorm2d` with a generated affine map; as :class:`DynamicInstanceNorm1d`.

    Parameters
    ----------
    num_features, eps, momentum, track_running_stats
        As in torch.

    Examples
    --------
    >>> DynamicInstanceNorm2d(8).num_generated
    16
    """

    torchs, tracks = nn.InstanceNorm2d, False


class DynamicInstanceNorm3d(_ChannelNorm):
    """:class:`torch.nn.InstanceNorm3d` with a generated affine map; as :class:`DynamicInstanceNorm1d`.

    Parameters
    ----------
    num_features, eps, momentum, track_running_stats
        As in torch.

    Examples
    --------
    >>> DynamicInstanceNorm3d(8).num_generated
    16
    """

    torchs, tracks = nn.InstanceNorm3d, False


class DynamicGroupNorm(_Norm):
    """:class:`torch.nn.GroupNorm` with a generated affine map, ``(1 + scale) * norm(x) + shift``.

    Parameters
    ----------
    num_groups, num_channels, eps
        As in torch.

    Raises
    ------
    ValueError
        Torch's own: ``num_groups`` does not divide ``num_channels``.

    Examples
    --------
    >>> DynamicGroupNorm(2, 8).num_generated
    16
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        super().__init__()
        _check_whole(num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ShapeError(f"`num_channels` is {num_channels}, which `num_groups`, {num_groups}, does not divide.")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.norm = nn.GroupNorm(num_groups, num_channels, eps, affine=False)

    def _shape(self) -> tuple[int, ...]:
        return (self.num_channels,)

    def static_layer(self, weights: Mapping[str, Tensor]) -> nn.Module:
        return self._filled(weights, self.num_groups, self.num_channels, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"


class DynamicLayerNorm(_Norm):
    """:class:`torch.nn.LayerNorm` with a generated affine map, ``(1 + scale) * norm(x) + shift``.

    Parameters
    ----------
    normalized_shape, eps
        As in torch.
    bias
        Whether a shift is made.

    Examples
    --------
    >>> DynamicLayerNorm((4, 3)).num_generated
    24
    """

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, bias: bool = True):
        super().__init__()
        shape = tuple(normalized_shape) if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        _check_whole(**{f"normalized_shape[{axis}]": one for axis, one in enumerate(shape)})
        self.normalized_shape, self.eps, self.bias = shape, eps, bias
        self.norm = nn.LayerNorm(shape, eps, elementwise_affine=False)

    def _shape(self) -> tuple[int, ...]:
        return self.normalized_shape

    def compute(self, x: Tensor, weights: Mapping[str, Tensor], counts: Sequence[int] | None = None) -> Tensor:
        scale, shift = 1 + weights["scale"], weights.get("shift")
        return functional.affine(self.norm(x), scale, shift, self.normalized_shape, counts=counts)

    def static_layer(self, weights: Mapping[str, Tensor]) -> nn.Module:
        return self._filled(weights, self.normalized_shape, self.eps, bias=self.has_bias)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, bias={self.has_bias}"


def _check_whole(**given: Any) -> None:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
            raise ShapeError(f"`{name}` is {value!r}, but must be a whole number of 1 or more.")
