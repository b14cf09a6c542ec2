"""The quickstart's networks, without NNI: candidates, context encoder, static twin. Nothing here trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from nni_dynconv.ops import DynamicConv2d, DynamicDilConv, DynamicSepConv

CHANNELS = 6


class Ops(NamedTuple):
    """Makers of three kinds of convolution, with generated or learned weights; each is called (Cin, Cout, K)."""

    conv: Callable[..., nn.Module]
    dilated: Callable[..., nn.Module]
    separable: Callable[..., nn.Module]


def _same(kernel_size: int, dilation: int = 1) -> dict[str, Any]:
    return {"padding": dilation * (kernel_size // 2), "dilation": dilation}


def _static_depthwise(channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size, groups=channels, bias=False, **_same(kernel_size, dilation)),
        nn.Conv2d(channels, out_channels, 1, bias=False),
    )


DYNAMIC = Ops(
    conv=DynamicConv2d,
    dilated=lambda cin, cout, k: DynamicDilConv(cin, cout, k, norm=None),
    separable=lambda cin, cout, k: DynamicSepConv(cin, cout, k, norm=None),
)
STATIC = Ops(
    conv=nn.Conv2d,
    dilated=lambda cin, cout, k: _static_depthwise(cin, cout, k, dilation=2),
    separable=_static_depthwise,
)


def candidates(ops: Ops, frames: int, channels: int = CHANNELS) -> dict[str, dict[str, nn.Module]]:
    """Give the candidates of each choice; under `STATIC` every one has the structure of its dynamic namesake."""
    return {
        "filter": {
            "conv5": ops.conv(frames, 1, 5, **_same(5)),
            "conv7": ops.conv(frames, 1, 7, **_same(7)),
            "conv9": ops.conv(frames, 1, 9, **_same(9)),
            "dilated5": ops.conv(frames, 1, 5, **_same(5, 2)),
        },
        "first": {
            "conv3": ops.conv(frames, channels, 3, **_same(3)),
            "conv5": ops.conv(frames, channels, 5, **_same(5)),
            "dilated3": ops.conv(frames, channels, 3, **_same(3, 2)),
            "static5": nn.Conv2d(frames, channels, 5, **_same(5)),
        },
        "second": {
            "conv3": ops.conv(channels, channels, 3, **_same(3)),
            "separable5": ops.separable(channels, channels, 5),
            "dilated5": ops.dilated(channels, channels, 5),
            "static3": nn.Conv2d(channels, channels, 3, **_same(3)),
            "skip": nn.Identity(),
        },
    }


def combine(net: Any, frames: Tensor) -> Tensor:
    """``current + filter(frames) + head(relu(second(relu(first(frames)))))``: the space and its static twin share it.

    The filter is linear: with weights made for a sample it is that sample's own smoothing filter over space and time.
    """
    middle = frames.shape[1] // 2
    hidden = F.relu(net.second(F.relu(net.first(frames))))
    return frames[:, middle : middle + 1] + net.filter(frames) + net.head(hidden)


class FrameStatistics(nn.Module):
    """Context encoder: how strong the frames answer to learned filters, which tells noise, movement and texture apart.

    ``MLP(normalise(log(mean over places of (filters * frames)^2)))``. The output of a plain strided CNN with pooling
    hardly varies between samples at first, and the controller then ignores it for hundreds of steps.

    Parameters
    ----------
    in_channels
        Frames that are seen.
    dim
        Length of the context vector.
    filters, kernel_size, stride
        The learned filter bank; a stride keeps it cheap.
    """

    def __init__(self, in_channels: int, dim: int = 32, filters: int = 32, kernel_size: int = 5, stride: int = 4):
        super().__init__()
        self.in_channels, self.out_dim = in_channels, dim
        self.bank = nn.Conv2d(in_channels, filters, kernel_size, stride, bias=False)
        self.norm = nn.BatchNorm1d(filters)
        self.mlp = nn.Sequential(nn.Linear(filters, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, frames: Tensor) -> Tensor:  # B F H W -> B dim
        answers = self.bank(frames - frames.mean((1, 2, 3), keepdim=True))
        energy = answers.square().mean((2, 3))
        return self.mlp(self.norm((energy + 1e-6).log()))


class StaticTwin(nn.Module):
    """The searched structure with learned weights in the place of generated ones.

    Its frames hold all that a context holds here, so the context is taken and left alone.
    """

    def __init__(self, architecture: Mapping[str, str], frames: int, channels: int = CHANNELS):
        super().__init__()
        choices = candidates(STATIC, frames, channels)
        self.filter, self.first, self.second = (
            choices[label][architecture[label]] for label in ("filter", "first", "second")
        )
        self.head = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, frames: Tensor, context: Tensor | None = None) -> Tensor:
        return combine(self, frames)
