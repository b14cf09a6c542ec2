"""The contenders: one architecture with generated, conditioned or static weights, and a U-Net. Nothing here trains.

All look at the same three noisy frames. Those with a context have them once more through the same encoder,
``FrameStatistics``, so that no contender knows what another does not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.video_denoising.data import FRAMES
from examples.video_denoising.networks import FrameStatistics, Ops, StaticTwin, candidates, combine
from examples.video_denoising.space import DenoisingSpace
from examples.video_denoising.training import multiply_adds
from nni_dynconv import ChunkedController, DynamicWeightMutator, functional
from nni_dynconv.generation.controllers import Controller, ExpertsController
from nni_dynconv.samplers import RandomSampler, Sampler

__all__ = [
    "DYNAMIC", "DYNAMICS", "PAIRS", "RIVALS", "architectures", "cost", "make", "matched_width", "parameters", "supernet"
]  # fmt: skip

Sample = Mapping[str, str]
CODE, FILTERS = 32, 8
EXPERTS = 8  # of the rival, as in its paper: on validation shots it loses 3 dB with 16, whose sigmoids add up
CONDITIONED = {"static5": "conv5", "static3": "conv3"}  # rivals with a context may use it at every convolution


DYNAMIC = "dynamic"
DYNAMICS: dict[str, tuple[Callable[[], Controller], str]] = {  # controller and delta
    DYNAMIC: (lambda: ExpertsController(32, routing="linear", shares="row", scale_rule="torch"), "full"),
    "dynamic_chunked": (lambda: ChunkedController(scale_rule="torch"), "low_rank"),
}


class FilmConv2d(nn.Module):
    """A static convolution whose output channels are scaled and shifted by linear maps of the code.

    References
    ----------
    Perez et al., FiLM: Visual reasoning with a general conditioning layer, AAAI 2018.
    """

    code: Tensor  # B CODE, set by the network

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, **options)
        self.affine = nn.Linear(CODE, 2 * out_channels)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor) -> Tensor:  # B Cin H W -> B Cout H W
        scale, shift = self.affine(self.code)[:, :, None, None].chunk(2, dim=1)
        return self.conv(x) * (1 + scale) + shift


class MixtureConv2d(nn.Module):
    """A convolution whose weights are a sum of learned ones, each times a sigmoid of a linear map of the code.

    References
    ----------
    Yang et al., CondConv: Conditionally parameterized convolutions for efficient inference, NeurIPS 2019.
    """

    code: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options: int):
        super().__init__()
        layers = [nn.Conv2d(in_channels, out_channels, kernel_size, **options) for _ in range(EXPERTS)]
        self.shape, self.options = layers[0].weight.shape, options
        flat = [torch.cat([one.weight.detach().flatten(), one.bias.detach()]) for one in layers]
        self.experts = nn.Parameter(torch.stack(flat))
        self.routing = nn.Linear(CODE, EXPERTS)

    def forward(self, x: Tensor) -> Tensor:  # B Cin H W -> B Cout H W
        mixed = self.routing(self.code).sigmoid() @ self.experts
        weight, bias = mixed.split([math.prod(self.shape), self.shape[0]], dim=1)
        return functional.conv2d(x, weight.unflatten(1, self.shape), bias, **self.options)


Layer = type[FilmConv2d] | type[MixtureConv2d]


def _depthwise(layer: Layer, dilation: int) -> Callable[..., nn.Module]:
    def build(channels: int, out_channels: int, kernel_size: int) -> nn.Module:
        place = {"padding": dilation * (kernel_size // 2), "dilation": dilation}
        depthwise = layer(channels, channels, kernel_size, groups=channels, **place)
        return nn.Sequential(nn.ReLU(), depthwise, layer(channels, out_channels, 1))

    return build


class Conditioned(nn.Module):
    """The searched structure with static convolutions that a code of the context changes."""

    def __init__(self, layer: Layer, sample: Sample, width: int):
        super().__init__()
        choices = candidates(Ops(layer, _depthwise(layer, 2), _depthwise(layer, 1)), FRAMES, width)
        names = {label: CONDITIONED.get(name, name) for label, name in sample.items()}
        self.filter, self.first, self.second = (choices[label][names[label]] for label in choices)
        self.head = layer(width, 1, 3, padding=1)
        self.encoder = FrameStatistics(FRAMES, CODE, FILTERS)

    def forward(self, frames: Tensor, context: Tensor) -> Tensor:
        code = self.encoder(context)
        for module in self.modules():
            if isinstance(module, FilmConv2d | MixtureConv2d):
                module.code = code
        return combine(self, frames)


class UNet(nn.Module):
    """Three scales of two 3x3 convolutions each, of ``width``, twice and four times ``width``; added to the frame.

    References
    ----------
    Ronneberger et al., U-Net: Convolutional networks for biomedical image segmentation, MICCAI 2015.
    """

    def __init__(self, width: int):
        super().__init__()
        widths = [FRAMES, width, 2 * width, 4 * width]
        self.down = nn.ModuleList(_block(*pair) for pair in itertools.pairwise(widths))
        self.up = nn.ModuleList(_block(3 * narrow, narrow) for narrow in (2 * width, width))
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, frames: Tensor, context: Tensor | None = None) -> Tensor:
        first = self.down[0](frames)
        second = self.down[1](F.avg_pool2d(first, 2))
        x = self.down[2](F.avg_pool2d(second, 2))
        for block, skipped in zip(self.up, (second, first), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), skipped], dim=1))
        middle = frames.shape[1] // 2
        return frames[:, middle : middle + 1] + self.head(x)


def _block(channels: int, out_channels: int) -> nn.Module:
    """Two convolutions; their ReLUs leak, for a U-Net of three channels may otherwise die at the first step."""
    pairs = ((channels, out_channels), (out_channels, out_channels))
    return nn.Sequential(*(part for pair in pairs for part in (nn.Conv2d(*pair, 3, padding=1), nn.LeakyReLU(0.1))))


def supernet(width: int, sampler: Sampler, contender: str = DYNAMIC) -> DynamicWeightMutator:
    """Make the searched space at a width, with the controller of a dynamic contender.

    Settings were chosen on validation shots: for the chunked controller rank 8 instead of 4 brought 0.2 dB there at
    width 10, weights as small at the start as torch's another 0.1 (0.2 at width 5). At width 5 shares for each row
    brought 0.3 dB to 8 experts, 32 experts another 0.2, and 64 no more.
    """
    space, encoder = DenoisingSpace(channels=width), FrameStatistics(FRAMES, CODE, FILTERS)
    controller, delta = DYNAMICS[contender]
    return DynamicWeightMutator(
        space, sampler=sampler, controller=controller(), context=encoder, base="learned", delta=delta, rank=8
    )


def architectures() -> Iterator[dict[str, str]]:
    """Give every architecture of the space."""
    choices = supernet(2, RandomSampler(seed=0)).choices
    for names in itertools.product(*(choice.candidates for choice in choices.values())):
        yield dict(zip(choices, names, strict=True))


MATCHED = (
    "static_equal_macs",
    "film",
    "mixture",
    "unet_equal_macs",
)  # as wide as the dynamic one's multiply-adds allow
RIVALS = ("static_twin", *MATCHED, "unet_equal_parameters")
# a dynamic network, which is a budget at each width, and who is compared at it
PAIRS = tuple((dynamic, contender) for dynamic in DYNAMICS for contender in (dynamic, *RIVALS))


def make(contender: str, sample: Sample, width: int) -> nn.Module:
    """Make a contender with random weights: ``net(frames, context)``; a U-Net has no use for the sample."""
    if contender in DYNAMICS:
        return supernet(width, RandomSampler(seed=0), contender).freeze(dict(sample))
    if contender.startswith("unet"):
        return UNet(width)
    if contender.startswith("static"):
        return StaticTwin(sample, FRAMES, width)
    return Conditioned({"film": FilmConv2d, "mixture": MixtureConv2d}[contender], sample, width)


def cost(contender: str, sample: Sample, width: int) -> int:
    """Count the multiply-adds of a tile: encoder and what makes or conditions weights once, for one context."""
    with functional.without_kernels():  # torch counts its own operators
        return multiply_adds(make(contender, sample, width), FRAMES)


def parameters(contender: str, sample: Sample, width: int) -> int:
    """Count a contender's parameters."""
    return sum(one.numel() for one in make(contender, sample, width).parameters())


def matched_width(contender: str, sample: Sample, width: int, own: str = DYNAMIC) -> int:
    """Give the narrowest width at which a rival has at least a dynamic network's multiply-adds, or parameters."""
    if contender == "static_twin":
        return width
    measure = parameters if contender.endswith("parameters") else cost
    least = measure(own, sample, width)
    return next(wide for wide in itertools.count(1) if measure(contender, sample, wide) >= least)
