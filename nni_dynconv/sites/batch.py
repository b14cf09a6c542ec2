"""The samples of a batch and the contexts they belong to: sorted, so that samples of one context are neighbours."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

from ..errors import ContextError

__all__ = ["Blocks", "batch_of", "blocks_of", "count_of"]

Tree = TypeVar("Tree")
SEEN = (Tensor, PackedSequence, bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
"""Types in which samples are found, and those that have none."""
WHOLE_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Blocks(NamedTuple):
    """Blocks of samples that share a context.

    Parameters
    ----------
    used
        ``(D,)``, the contexts that have samples, one for each block.
    counts
        Samples in each block; ``None`` where all samples are in one, or each in its own.
    order
        ``(B,)``, the samples in the order of their blocks; ``None`` where they stand so already.
    """

    used: Tensor
    counts: tuple[int, ...] | None = None
    order: Tensor | None = None

    def contexts(self, context: Tree, total: int) -> Tree:
        """Return the contexts that are used, out of all."""
        return _take(context, self.used, total)

    def sort(self, inputs: Tree) -> Tree:
        """Return the inputs with their samples in the order of the blocks.

        Raises
        ------
        ContextError
            A tensor has several rows for each sample, or samples are in a structure that nobody can look into.
        """
        return inputs if self.order is None else _reordered(inputs, self.order, "input")

    def restore(self, outputs: Tree) -> Tree:
        """Return the outputs with their samples in the order in which they were given.

        Raises
        ------
        ContextError
            As of :meth:`sort`.
        """
        return outputs if self.order is None else _reordered(outputs, self.order.argsort(), "output")


def blocks_of(index: Any, contexts: int, batch: int) -> Blocks:
    """Sort samples by their contexts.

    While ``torch.compile`` traces, each sample is a block of its own: how many contexts are used depends on values.

    Parameters
    ----------
    index
        ``(B,)``, whole numbers: which context each sample has.
    contexts
        How many there are.
    batch
        Samples in the input.

    Raises
    ------
    ContextError
        The index is no tensor of whole numbers, of another length, or names a context that there is not.

    Examples
    --------
    >>> used, counts, order = blocks_of(torch.tensor([2, 0, 2]), contexts=4, batch=3)
    >>> used.tolist(), counts, order.tolist()
    ([0, 2], (1, 2), [1, 0, 2])
    """
    if not isinstance(index, Tensor) or index.dtype not in WHOLE_NUMBERS:
        found = f"a tensor of {index.dtype}" if isinstance(index, Tensor) else f"a {type(index).__name__}"
        raise ContextError(f"`index` is {found}, but must be a tensor of whole numbers: which context each sample has.")
    if tuple(index.shape) != (batch,):
        raise ContextError(
            f"`index` is {tuple(index.shape)}, but must be ({batch},): which of the {contexts} contexts each of the "
            f"{batch} samples of the input has."
        )
    index = index.long()
    if batch == 0 or torch.compiler.is_compiling():
        return Blocks(index)
    low, high = (int(end) for end in index.aminmax())
    if low < 0 or high >= contexts:
        raise ContextError(
            f"`index` goes from {low} to {high}, but there are {contexts} contexts: it must be in 0 .. {contexts - 1}."
        )
    used, counts = index.unique(return_counts=True)
    if len(used) == batch:
        return Blocks(index)
    if len(used) == 1:
        return Blocks(used)
    is_sorted = bool((index[1:] >= index[:-1]).all())
    return Blocks(used, tuple(counts.tolist()), None if is_sorted else index.argsort(stable=True))


def batch_of(*inputs: Any) -> int | None:
    """Return the number of samples in the first tensor among some arguments."""
    for value in inputs:
        if isinstance(value, Tensor) and value.dim():
            return value.shape[0]
    return None


def count_of(tree: Any) -> int | None:
    """Return the number of rows of the first tensor in a structure, or of sequences, where they are packed."""
    for one in pytree.tree_leaves(tree, is_leaf=_is_packed):
        rows = _rows(one)
        if rows is not None:
            return rows
    return None


def _is_packed(value: Any) -> bool:
    return isinstance(value, PackedSequence)


def _rows(value: Any) -> int | None:
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    return value.shape[0] if isinstance(value, Tensor) and value.dim() else None


def _reordered(tree: Tree, order: Tensor, what: str) -> Tree:
    """Take samples in an order, out of whatever has one row for each."""
    size = len(order)
    for one in pytree.tree_leaves(tree, is_leaf=lambda one: _is_packed(one) or _is_one_each(one, size)):
        if not isinstance(one, SEEN) and not callable(one):  # a list of one thing for each sample too
            raise ContextError(
                f"`index` sorts the {size} samples by their contexts, but an {what} is a {type(one).__name__} in which "
                f"they are not found. Give tensors, or tuples, lists and dicts of tensors with a row for each sample; "
                f"or give the samples sorted already: `x[i.argsort()]`."
            )
        rows = _rows(one) or 0
        if rows > size and rows % size == 0:
            raise ContextError(
                f"`index` sorts the {size} samples by their contexts, but an {what} {_shape(one)} has {rows} rows, "
                f"{rows // size} for each: whose they are cannot be told. Lay it out as ({size}, {rows // size}, ...), "
                f"or give the samples sorted already: `x[i.argsort()]`."
            )
    return _take(tree, order, size)


def _is_one_each(value: Any, size: int) -> bool:
    """Whether a list has one item for each sample, in place of rows of a tensor."""
    if type(value) not in (list, tuple) or len(value) != size:
        return False
    return all(isinstance(one, str) or _rows(one) not in (None, size) for one in value)


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _take(tree: Tree, rows: Tensor, size: int) -> Tree:
    """Take rows of whatever has ``size`` of them."""

    def take(one: Any) -> Any:
        if _rows(one) != size:
            return one
        if isinstance(one, PackedSequence):
            padded, lengths = pad_packed_sequence(one, batch_first=True)
            own = rows.to(lengths.device)
            return pack_padded_sequence(
                padded.index_select(0, rows.to(padded.device)), lengths[own], batch_first=True, enforce_sorted=False
            )
        return one.index_select(0, rows.to(one.device))

    return pytree.tree_map(take, tree, is_leaf=_is_packed)
