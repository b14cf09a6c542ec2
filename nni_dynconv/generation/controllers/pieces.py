"""The pieces of which controllers are made: maps of unit variance, codes of contexts and positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...functional import is_exporting
from ...settings import Encoding
from ..parts import Upgrading

__all__ = ["CodeInput", "ContextMap", "context_map", "encode_positions", "even", "linear", "repeat_rows", "rows_of"]

BESIDE = 2  # numbers that tell the size of a code
LITTLE = 0.1  # a size beside which smaller ones are alike
FEW = 4  # numbers that make a code which is no longer small
WAVES = (1, 2, 4)


class CodeInput(nn.Module):
    r"""Bring a context's code to unit mean square, whatever its size: what a controller makes depends on it.

    ``layer_norm``: standardised over its length, with what that takes away beside it, in two numbers:

    .. math:: [\mu / r, \; \tfrac{1}{2} \ln r] \qquad r = \mathrm{rms}(c) + 0.1

    where :math:`\mu` is the code's mean. So also a code of two numbers, of which standardising leaves a sign, tells
    contexts apart, and one that doubles changes the last number by 0.35, whatever its size. A code of length one stays
    as it is. One of less than four numbers has waves of each beside it, :math:`\sqrt{2} \, [\sin(k c), \cos(k c)]` for
    k of 1, 2 and 4, for it has few ways to differ.
    ``magnitude_invariant``: :math:`\sqrt{2} [\cos(\pi s / 2), \sin(\pi s / 2)]` with :math:`s = \mathrm{sigmoid}(c)`,
    twice as long, and of the same norm for every code, with the same waves beside a short one, which keep that.

    Parameters
    ----------
    dim
        Length of the code.
    encoding
        Which of the two.
    architecture
        How many of its last numbers are of an architecture. Both parts are standardised then, each by itself and with
        its size beside it, so that neither drowns the other.

    Notes
    -----
    Ortiz et al. encode inputs that are within 0 and 1; a code has no bounds, so it goes through a sigmoid first. They
    divide by no length, and their second half, a learned base that the output is added to, is ``base="learned"`` here.

    References
    ----------
    Ortiz, Guttag and Dalca, Magnitude invariant parametrizations improve hypernetwork learning, 2023 (ICLR 2024),
    section 4; Ba et al., Layer normalization, 2016 (what stands beside it is ours); Tancik et al., Fourier features let
    networks learn high frequency functions in low dimensional domains, NeurIPS 2020 (waves).

    Examples
    --------
    >>> CodeInput(2, "magnitude_invariant")(torch.tensor([[0.0, 0.0], [50.0, -50.0]])).square().mean(1)
    tensor([1., 1.])
    >>> CodeInput(2)(torch.tensor([[1.0, 3.0], [1.0, 5.0]]))[:, :2]
    tensor([[-1.0000,  1.0000],
            [-1.0000,  1.0000]])
    """

    def __init__(self, dim: int, encoding: Encoding = "layer_norm", architecture: int = 0):
        super().__init__()
        self.dim, self.encoding, self.architecture = dim, encoding, architecture
        self.parts = [one for one in (dim - architecture, architecture) if one]
        self.is_invariant = encoding == "magnitude_invariant"
        self.is_sized = not self.is_invariant or bool(architecture)
        waves = sum(2 * len(WAVES) * one for one in self.parts if one < FEW)
        self.beside = waves + (BESIDE * len(self.parts) if self.is_sized else 0)
        self.out_dim = self.beside + (2 * dim if self.is_invariant else dim)

    def forward(self, code: Tensor) -> Tensor:  # (B) dim -> (B) out_dim
        if not self.is_sized:
            return torch.cat([_as_angles(code), *_waves_of(code)], dim=-1)
        parts = code.split(self.parts, dim=-1)
        kept = torch.cat([_standardised(one) for one in parts], dim=-1) if len(parts) > 1 else _standardised(code)
        kept = _as_angles(kept) if self.is_invariant else _standardised(kept) if len(parts) > 1 else kept
        return torch.cat([kept, *(one for part in parts for one in (*_size_of(part), *_waves_of(part)))], dim=-1)

    def widened(self, weight: Tensor) -> Tensor:
        """Return a map of codes of an earlier version, which saw no sizes, as one that sees them and heeds none."""
        missing = self.out_dim - weight.shape[-1]
        return F.pad(weight, (0, missing)) if missing == self.beside else weight

    def extra_repr(self) -> str:
        return f"{self.dim}, {self.encoding}"


def _standardised(code: Tensor) -> Tensor:
    return F.layer_norm(code, code.shape[-1:]) if code.shape[-1] > 1 else code


def _as_angles(code: Tensor) -> Tensor:
    angle = code.sigmoid() * (math.pi / 2)
    return math.sqrt(2.0) * torch.cat([angle.cos(), angle.sin()], dim=-1)


def _size_of(code: Tensor) -> tuple[Tensor, Tensor]:  # ... dim -> twice ... 1
    exact = code.float() if code.dtype in (torch.float16, torch.bfloat16) else code  # for its square may be too large
    size = torch.linalg.vector_norm(exact, dim=-1, keepdim=True) * code.shape[-1] ** -0.5 + LITTLE
    numbers = exact.mean(-1, keepdim=True) / size, size.log() / 2
    return numbers if exact is code else (numbers[0].to(code), numbers[1].to(code))


def _waves_of(code: Tensor) -> list[Tensor]:  # ... dim -> each ... dim
    if code.shape[-1] >= FEW:
        return []
    exact = code.float() if code.dtype in (torch.float16, torch.bfloat16) else code
    waves = [wave for k in WAVES for wave in ((k * exact).sin(), (k * exact).cos())]
    return [(math.sqrt(2.0) * wave).to(code.dtype) for wave in waves]


def linear(inputs: int, outputs: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """Make a linear map whose output has variance ``gain`` for inputs of unit mean square; 2 behind a ReLU.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> 0.9 < linear(100, 1000, gain=4.0)(torch.ones(100)).std() / 2 < 1.1
    tensor(True)
    """
    made = nn.Linear(inputs, outputs, bias)
    nn.init.normal_(made.weight, std=math.sqrt(gain / inputs))
    if bias:
        nn.init.zeros_(made.bias)
    return made


def even(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """Make a linear map as :func:`linear` does, whose outputs are also uncorrelated, and of one size, whatever it sees.

    For the last layer, which all sites share: what is uneven in it would be uneven in all weights, in the same way.

    Examples
    --------
    >>> made = even(4, 4, gain=9.0)
    >>> torch.allclose(made.weight @ made.weight.T, 9 * torch.eye(4), atol=1e-5)
    True
    """
    made = linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, (gain * max(1.0, outputs / inputs)) ** 0.5)
    return made


class ContextMap(Upgrading, nn.Linear):
    """The part of a controller's first layer that sees the context: a linear map of :class:`CodeInput`.

    Parameters
    ----------
    context_dim
        Length of the code.
    outputs
        Width of the layer.
    gain
        Variance of what it gives, for any code.
    encoding, architecture
        Of :class:`CodeInput`.
    """

    def __init__(
        self, context_dim: int, outputs: int, gain: float, encoding: Encoding = "layer_norm", architecture: int = 0
    ):
        code = CodeInput(context_dim, encoding, architecture)
        super().__init__(code.out_dim, outputs, bias=False)
        nn.init.normal_(self.weight, std=math.sqrt(gain / code.out_dim))
        self.code = code

    def forward(self, code: Tensor) -> Tensor:  # (B) context_dim -> (B) outputs
        return super().forward(self.code(code))

    def upgrade(self, state: dict[str, Any], prefix: str) -> None:
        if f"{prefix}weight" in state:
            state[f"{prefix}weight"] = self.code.widened(state[f"{prefix}weight"])


def context_map(context_dim: int | None, *settings: Any) -> ContextMap | None:
    """Make a :class:`ContextMap`, or nothing where there is no context."""
    return None if context_dim is None else ContextMap(context_dim, *settings)


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


def repeat_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:  # R D -> sum(counts) D
    """Repeat each row as often as its count says.

    Examples
    --------
    >>> repeat_rows(torch.tensor([[1.0], [2.0]]), [2, 1]).flatten().tolist()
    [1.0, 1.0, 2.0]
    """
    if is_exporting():  # the ONNX exporter takes no repeats whose number is known beforehand
        return torch.cat([row.expand(count, -1) for row, count in zip(rows, counts, strict=True)])
    times = torch.tensor(counts, device=rows.device)
    return rows.repeat_interleave(times, 0, output_size=sum(counts))


def rows_of(parameter: nn.Parameter, rows: Sequence[int]) -> nn.Parameter:
    """Return some rows of a parameter as one of its own, which learns where that did.

    Examples
    --------
    >>> rows_of(nn.Parameter(torch.eye(3), requires_grad=False), [1])
    Parameter containing:
    tensor([[0., 1., 0.]])
    """
    return nn.Parameter(parameter.detach()[list(rows)].clone(), parameter.requires_grad)
