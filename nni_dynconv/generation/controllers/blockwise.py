"""The layers of a chunked controller behind the first, block by block: what one block needs stays in the cache.

Of what lies between the layers nothing is kept: the backward computes it again, block by block, too. Memory grows with
the weights that are made, and not with the width of the layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LITTLE", "Layers", "last_layer", "made_in_blocks"]

VALUES = 1 << 18  # of a layer in a block: of half and of twice as many a step took within a tenth of the time, at once twice
LITTLE = 1e-6  # is added to norms
Block = tuple[slice, slice]  # of samples, and of places


class Layers(NamedTuple):
    """The layers behind the first: what they multiply by and add."""

    middle: Tensor  # hidden hidden
    middle_bias: Tensor  # hidden
    out: Tensor  # chunk hidden
    bias: Tensor  # chunk
    signs: Tensor  # n hidden

    @property
    def size(self) -> float:
        """The norm that features are brought to."""
        return float((self.out.shape[1] / 2) ** 0.5)


def made_in_blocks(rows: Tensor, codes: Tensor, layers: Layers) -> Tensor:
    """Return all chunks, ``(B, n, chunk)``.

    Parameters
    ----------
    rows, codes
        ``(n, hidden)`` and ``(B, hidden)``: what places and contexts give to the first layer.
    """
    made: Tensor = _InBlocks.apply(rows, codes, *layers)
    return made


def last_layer(features: Tensor, own: Layers) -> Tensor:  # ... n hidden -> ... n chunk
    """Run the last layer on features of one norm, with signs; the norm divides what comes out, which is smaller."""
    exact = torch.promote_types(features.dtype, torch.float32)  # also under autocast
    norm = torch.linalg.vector_norm(features, dim=-1, keepdim=True, dtype=exact) + LITTLE
    made = F.linear(features * own.signs, own.out)
    return torch.addcdiv(own.bias, made, norm.to(own.bias), value=own.size)


def _at_once(rows: Tensor, codes: Tensor, *layers: Tensor) -> Tensor:
    """Compute the same in operators that autograd follows."""
    own = Layers(*layers)
    hidden = (rows + codes.unsqueeze(1)).relu()
    return last_layer(F.linear(hidden, own.middle, own.middle_bias).relu(), own)


class _InBlocks(torch.autograd.Function):
    """All layers, and all gradients; a second backward by torch's operators."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, codes: Tensor, *layers: Tensor) -> Tensor:
        ctx.save_for_backward(rows, codes, *layers)
        own = Layers(*layers)
        made, scratch, signs = rows.new_empty(len(codes), len(rows), len(own.bias)), _Scratch(rows, own), _sized(own)
        for samples, places in _blocks(*made.shape[:2], rows.shape[1]):
            _, features = scratch.features(rows[places], codes[samples], own)
            norm = _norm(features)
            signed = features.mul_(signs[places]).flatten(0, 1)
            chunks = torch.mm(signed, own.out.t(), out=scratch.chunks[: len(signed)])
            torch.addcdiv(own.bias, chunks.view(*features.shape[:2], -1), norm, out=made[samples, places])
        return made

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        rows, codes, *layers = ctx.saved_tensors
        if torch.is_grad_enabled() or not torch._C._has_storage(given):  # create_graph=True, or a batch of gradients
            return _by_autograd(given, ctx.saved_tensors, ctx.needs_input_grad)
        return *_gradients(given, rows, codes, Layers(*layers)), None


def _by_autograd(given: Tensor, inputs: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():
        asked = [one for one, wants in zip(inputs, wanted, strict=True) if wants]
        found = iter(torch.autograd.grad(_at_once(*inputs), asked, given, create_graph=True))
    return tuple(next(found) if wants else None for wants in wanted)


def _gradients(given: Tensor, rows: Tensor, codes: Tensor, own: Layers) -> list[Tensor]:
    """Return the gradients of rows, codes, and the layers but for the signs."""
    to_rows, to_codes, *to_own = [torch.zeros_like(one) for one in (rows, codes, *own[:4])]
    scratch, more, signs = _Scratch(rows, own), _Scratch(rows, own), _sized(own)
    for samples, places in _blocks(*given.shape[:2], rows.shape[1]):
        hidden, features = scratch.features(rows[places], codes[samples], own)
        norm, own_signs, count = _norm(features), signs[places], hidden.shape[0] * hidden.shape[1]
        chunks = torch.div(given[samples, places], norm, out=scratch.chunks[:count].view(*norm.shape[:2], -1))
        to_own[3] += given[samples, places].sum((0, 1))
        signed = torch.mul(features, own_signs, out=more.hidden[:count].view_as(hidden))
        to_own[2].addmm_(chunks.flatten(0, 1).t(), signed.flatten(0, 1))
        back = torch.mm(chunks.flatten(0, 1), own.out, out=more.between[:count]).view_as(hidden).mul_(own_signs)
        along = torch.mul(back, features, out=signed).sum(-1, keepdim=True)  # what the norm takes away
        back.addcmul_(features, along.div_(norm).div_(norm.sub_(LITTLE).clamp_min_(1e-30)), value=-1)
        _behind_relu(back, features)
        to_own[1] += back.sum((0, 1))
        to_own[0].addmm_(back.flatten(0, 1).t(), hidden.flatten(0, 1))
        first = torch.mm(back.flatten(0, 1), own.middle, out=more.hidden[:count]).view_as(hidden)
        _behind_relu(first, hidden)
        to_rows[places] += first.sum(0)
        to_codes[samples] += first.sum(1)
    return [to_rows, to_codes, *to_own]


class _Scratch:
    """Memory of one block, which the next one uses again."""

    def __init__(self, like: Tensor, own: Layers):
        rows = max(1, VALUES // like.shape[1])
        self.hidden, self.between = like.new_empty(rows, like.shape[1]), like.new_empty(rows, like.shape[1])
        self.chunks = like.new_empty(rows, len(own.bias))

    def features(self, rows: Tensor, codes: Tensor, own: Layers) -> tuple[Tensor, Tensor]:  # each B n hidden
        shape, count = (len(codes), *rows.shape), len(codes) * len(rows)
        hidden = torch.add(rows, codes.unsqueeze(1), out=self.hidden[:count].view(shape)).relu_()
        between = torch.addmm(own.middle_bias, hidden.flatten(0, 1), own.middle.t(), out=self.between[:count])
        return hidden, between.relu_().view(shape)


def _blocks(samples: int, places: int, width: int) -> Iterator[Block]:
    most = max(1, VALUES // width)  # rows
    deep, long = max(1, most // max(1, places)), min(most, max(1, places))
    for sample in range(0, samples, deep):
        for place in range(0, places, long):
            yield slice(sample, sample + deep), slice(place, place + long)


def _norm(features: Tensor) -> Tensor:
    return torch.linalg.vector_norm(features, dim=-1, keepdim=True).add_(LITTLE)


def _sized(own: Layers) -> Tensor:
    return own.signs * own.size


def _behind_relu(gradient: Tensor, made: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(gradient, made, 0, grad_input=gradient)
