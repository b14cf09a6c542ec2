"""``Cell`` with operators made by a factory: in the supernet, and of one architecture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..nni_host import compat, nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.nn.pytorch import Cell
from nni.nas.nn.pytorch.base import recursive_freeze
from nni.nas.nn.pytorch.cell import create_cell_op_candidates, preprocess_cell_inputs
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingCell
from torch import Tensor, nn

from ..sites import Gate
from .mixture import mix, run_mixture
from .modules import gate, told

__all__ = ["FrozenCell", "ScopedCell", "chosen", "made_before", "make_before"]


class ScopedCell(PathSamplingCell):
    """``Cell`` with operators made by a factory: one operator for each (node, input, name). NNI's cannot freeze."""

    @property
    def label(self) -> str:  # NNI's makes an object of a class of its own, which `torch.compile` cannot trace
        return "/".join(self.label_scope.path)

    def forward(self, *inputs: Any) -> Any:
        processed = preprocess_cell_inputs(self.num_predecessors, *inputs)
        states = self.preprocessor(processed)
        for node, ops in enumerate(self.ops, start=self.num_predecessors):
            states.append(sum(self._branch(node, slot, ops, states) for slot in range(self.num_ops_per_node)))
        return self.postprocessor(torch.cat(states[self.num_predecessors :], self.concat_dim), processed)

    def _branch(self, node: int, slot: int, ops: Any, states: list[Tensor]) -> Any:
        op, source = (self._gate(f"{self.label}/{kind}_{node}_{slot}") for kind in ("op", "input"))
        outputs = [run_mixture([ops[j][name] for name in op.values], op.weights, states[j]) for j in source.values]
        return mix(outputs, source.weights)

    def _gate(self, label: str) -> Gate:
        found = gate(self, label)
        if found is not None:
            return found
        own = told(self._sampled.get(label), self.label)
        return Gate(own if isinstance(own, list) else [own])

    def freeze(self, sample: Mapping[str, Any]) -> nn.Module:
        return FrozenCell(self, sample)


def chosen(cell: Any, sample: Mapping[str, Any]) -> Iterator[tuple[int, int, nn.Module]]:
    """Yield ``(node, input, op)`` of each slot of a supernet's cell, ours or NNI's, under a sample."""
    for node in range(cell.num_predecessors, cell.num_predecessors + cell.num_nodes):
        for slot in range(cell.num_ops_per_node):
            (source,) = sample[f"{cell.label}/input_{node}_{slot}"]
            name = sample[f"{cell.label}/op_{node}_{slot}"]
            yield node, source, cell.ops[node - cell.num_predecessors][source][name]


class MadeBefore:
    """What a factory has made for each place of a cell: NNI's own strategies make their supernet when sites are named.

    Of a candidate there is one operator for each node and input, as in the supernet of NNI's cell.
    """

    def __init__(self, ops: Mapping[tuple[int, int], nn.Module]):
        self.ops = dict(ops)

    def __call__(self, node: int, slot: int, source: int | None) -> nn.Module:
        return self.ops[node, source or 0]


def make_before(cell: Cell) -> None:
    """Let a cell's factories make now what they would make for NNI's supernet, and hand it out later."""
    factory = cell.op_candidates_factory
    places = [(node, source) for node in cell.output_node_indices for source in range(node)]
    made = {place: create_cell_op_candidates(factory, place[0], 0, place[1])[0] for place in places}
    names = list(made[places[0]])
    own = {name: MadeBefore({place: ops[name] for place, ops in made.items()}) for name in names}
    cell.op_candidates_factory = own if isinstance(factory, dict) else list(own.values())


def made_before(cell: nn.Module) -> dict[tuple[int, int], dict[str, nn.Module]] | None:
    """Return what :func:`make_before` made for a cell, by node and input; ``None`` where it was not called."""
    factory = vars(cell).get("op_candidates_factory")
    named = factory if isinstance(factory, dict) else {str(k): one for k, one in enumerate(factory or ())}
    if not named or not all(isinstance(one, MadeBefore) for one in named.values()):
        return None
    return {place: {name: one.ops[place] for name, one in named.items()} for place in next(iter(named.values())).ops}


class FrozenCell(nn.Module):
    """A cell of one architecture, with the operators of the supernet's cell."""

    def __init__(self, cell: Any, sample: Mapping[str, Any]):
        super().__init__()
        self.preprocessor, self.postprocessor = (
            _frozen(one, sample) for one in (cell.preprocessor, cell.postprocessor)
        )
        self.num_predecessors, self.concat_dim = cell.num_predecessors, cell.concat_dim
        slots = list(chosen(cell, sample))
        self.edges = [(node, source) for node, source, _ in slots]
        self.ops = nn.ModuleList(_frozen(op, sample) for _, _, op in slots)

    def forward(self, *inputs: Any) -> Any:
        processed = preprocess_cell_inputs(self.num_predecessors, *inputs)
        states = list(self.preprocessor(processed))
        first = len(states)
        for (node, source), op in zip(self.edges, self.ops, strict=True):
            output = op(states[source])
            if node == len(states):
                states.append(output)
            else:
                states[node] = states[node] + output
        return self.postprocessor(torch.cat(states[first:], self.concat_dim), processed)


def _frozen(part: Any, sample: Mapping[str, Any]) -> Any:
    """Freeze what NNI or we have made of a part of a cell; a processor may be a plain function."""
    return recursive_freeze(part, dict(sample))[0] if isinstance(part, nn.Module) else part


compat.mend_cells(FrozenCell)  # NNI's own cannot freeze
