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

__all__ = ["Layers", "last_layer", "made_in_blocks", "norm_of", "size_of"]

VALUES = 1 << 18  # of a layer in a block: of half and of twice as many a step took within a tenth of the time
LITTLE = 1e-6  # is added to norms


class Layers(NamedTuple):
    """The layers behind the first: what they multiply by and add, and of which lines of a table the signs are."""

    middle: Tensor  # hidden hidden
    middle_bias: Tensor  # hidden
    out: Tensor  # chunk hidden
    bias: Tensor  # chunk
    table: Tensor  # ... hidden
    lines: Tensor  # K n


def size_of(hidden: int) -> float:
    """Return the norm that features are brought to."""
    return float((hidden / 2) ** 0.5)


def norm_of(features: Tensor) -> Tensor:
    """Return the norm that features have, never 0."""
    exact = torch.promote_types(features.dtype, torch.float32)  # also under autocast
    return torch.linalg.vector_norm(features, dim=-1, keepdim=True, dtype=exact) + LITTLE


def made_in_blocks(rows: Tensor, codes: Tensor, layers: Layers) -> Tensor:
    """Return all chunks, ``(B, K, n, chunk)``: K sets of each sample's, out of the same features with other signs.

    Parameters
    ----------
    rows, codes
        ``(n, hidden)`` and ``(B, hidden)``: what places and contexts give to the first layer.
    """
    made: Tensor = _InBlocks.apply(rows, codes, *layers)
    return made


def last_layer(features: Tensor, signs: Tensor, out: Tensor, bias: Tensor) -> Tensor:  # ... n hidden -> ... n chunk
    """Run the last layer on features of one norm, with signs; the norm divides what comes out, which is smaller."""
    made = F.linear(features * signs, out)
    return torch.addcdiv(bias, made, norm_of(features).to(bias), value=size_of(features.shape[-1]))


def _at_once(rows: Tensor, codes: Tensor, *layers: Tensor) -> Tensor:
    """Compute the same in operators that autograd follows."""
    own = Layers(*layers)
    hidden = (rows + codes.unsqueeze(1)).relu()
    features = F.linear(hidden, own.middle, own.middle_bias).relu()
    return last_layer(features.unsqueeze(1), own.table[own.lines], own.out, own.bias)


class _InBlocks(torch.autograd.Function):
    """All layers, and all gradients; a second backward by torch's operators."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, codes: Tensor, *layers: Tensor) -> Tensor:
        ctx.save_for_backward(rows, codes, *layers)
        own = Layers(*layers)
        made, scratch = rows.new_empty(len(codes), *own.lines.shape, len(own.bias)), _Scratch(rows, own)
        for samples, places, signs in _blocks(len(codes), own):
            hidden, features = scratch.features(rows[places], codes[samples], own)
            norm = _norm(features)
            for number, of_set in enumerate(signs):
                signed = torch.mul(features, of_set, out=hidden)
                chunks = torch.mm(signed.flatten(0, 1), own.out.t(), out=scratch.chunks_of(norm).flatten(0, 1))
                to = made[samples, number, places]
                torch.addcdiv(own.bias, chunks.view(to.shape), norm, out=to)
        return made

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        rows, codes, *layers = ctx.saved_tensors
        if torch.is_grad_enabled() or not torch._C._has_storage(given):  # create_graph=True, or a batch of gradients
            return _by_autograd(given, ctx.saved_tensors, ctx.needs_input_grad)
        return *_gradients(given, rows, codes, Layers(*layers)), None, None


def _by_autograd(given: Tensor, inputs: tuple[Tensor, ...], wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():
        asked = [one for one, wants in zip(inputs, wanted, strict=True) if wants]
        found = iter(torch.autograd.grad(_at_once(*inputs), asked, given, create_graph=True))
    return tuple(next(found) if wants else None for wants in wanted)


def _gradients(given: Tensor, rows: Tensor, codes: Tensor, own: Layers) -> list[Tensor]:
    """Return the gradients of rows, codes, and the layers but for the signs."""
    to_rows, to_codes, to_middle, to_middle_bias, to_out, to_bias = [
        torch.zeros_like(one) for one in (rows, codes, *own[:4])
    ]
    scratch, more = _Scratch(rows, own), _Scratch(rows, own)
    for samples, places, signs in _blocks(len(codes), own):
        hidden, features = scratch.features(rows[places], codes[samples], own)
        norm, spare = _norm(features), more.hidden_of(hidden)
        back = more.between_of(hidden).zero_()
        for number, of_set in enumerate(signs):
            to = given[samples, number, places]
            to_bias += to.sum((0, 1))
            chunks = torch.div(to, norm, out=scratch.chunks_of(norm)).flatten(0, 1)
            to_out.addmm_(chunks.t(), torch.mul(features, of_set, out=spare).flatten(0, 1))
            back.addcmul_(torch.mm(chunks, own.out, out=spare.flatten(0, 1)).view_as(back), of_set)
        along = torch.mul(back, features, out=spare).sum(-1, keepdim=True)  # what the norm takes away
        back.addcmul_(features, along.div_(norm).div_(norm.sub_(LITTLE).clamp_min_(1e-30)), value=-1)
        flat = _behind_relu(back, features)
        to_middle_bias += flat.sum(0)
        to_middle.addmm_(flat.t(), hidden.flatten(0, 1))
        first = torch.mm(flat, own.middle, out=spare.flatten(0, 1)).view_as(hidden)
        _behind_relu(first, hidden)
        to_rows[places] += first.sum(0)
        to_codes[samples] += first.sum(1)
    return [to_rows, to_codes, to_middle, to_middle_bias, to_out, to_bias]


class _Scratch:
    """Memory of one block, which the next one uses again."""

    def __init__(self, like: Tensor, own: Layers):
        rows = max(1, VALUES // like.shape[1])
        self.hidden, self.between = like.new_empty(rows, like.shape[1]), like.new_empty(rows, like.shape[1])
        self.chunks = like.new_empty(rows, len(own.bias))

    def features(self, rows: Tensor, codes: Tensor, own: Layers) -> tuple[Tensor, Tensor]:  # each B n hidden
        hidden = _cut(self.hidden, len(codes), len(rows))
        torch.add(rows, codes.unsqueeze(1), out=hidden).relu_()
        between = torch.addmm(
            own.middle_bias, hidden.flatten(0, 1), own.middle.t(), out=_cut(self.between, 1, len(codes) * len(rows))[0]
        )
        return hidden, between.relu_().view_as(hidden)

    def hidden_of(self, like: Tensor) -> Tensor:
        return _cut(self.hidden, *like.shape[:2])

    def between_of(self, like: Tensor) -> Tensor:
        return _cut(self.between, *like.shape[:2])

    def chunks_of(self, like: Tensor) -> Tensor:
        return _cut(self.chunks, *like.shape[:2])


def _cut(memory: Tensor, samples: int, places: int) -> Tensor:
    return memory[: samples * places].view(samples, places, -1)


def _blocks(samples: int, own: Layers) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield samples and places of each block, and its signs, ``(K, places, hidden)``, as large as features will be."""
    places, most = own.lines.shape[1], max(1, VALUES // own.out.shape[1])  # rows
    deep, long = max(1, most // max(1, places)), min(most, max(1, places))
    for place in range(0, places, long):
        there = slice(place, place + long)
        signs = own.table[own.lines[:, there]] * size_of(own.out.shape[1])
        for sample in range(0, samples, deep):
            yield slice(sample, sample + deep), there, signs


def _norm(features: Tensor) -> Tensor:
    return torch.linalg.vector_norm(features, dim=-1, keepdim=True).add_(LITTLE)


def _behind_relu(gradient: Tensor, made: Tensor) -> Tensor:  # B n hidden, in place -> B*n hidden
    return torch.ops.aten.threshold_backward.grad_input(gradient, made, 0, grad_input=gradient).flatten(0, 1)
