"""What is exported, flat: tensors in, tensors out, by name; and what a check of it has found."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import ExportError
from ...files import write_atomically
from ...functional import grouped
from ...generation import Call, DynamicNetwork, Example
from ..examples import BATCH, Shown
from ..verifying import leaves_of
from .baking import bake

__all__ = [
    "FORMS",
    "Checked",
    "Flat",
    "Flattened",
    "Form",
    "check_same",
    "context_of",
    "fastest",
    "flat",
    "largest_difference",
]

Form = Literal["dynamic", "grouped", "baked"]
FORMS = ("dynamic", "grouped", "baked")
BATCHES = (1, 3, 17)
RUNS = 5
TOLERANCE = 1e-4
"""Of the largest value of each output, or of 1."""


@dataclass(frozen=True)
class Checked:
    """A file that was written, run and compared.

    Parameters
    ----------
    file
        Its name.
    form
        ``dynamic``: weights are made for each sample, of any number; ``grouped``: the same for one number of samples;
        ``baked``: the weights of one context, for any number of samples.
    inputs, outputs
        Names, in order.
    batches
        Numbers of samples that it was tried with.
    error
        The largest difference to the network, of the largest value of each output, or of 1.
    opset
        Of ONNX; ``None`` of another format.
    seconds, torch_seconds
        Of one run with the last number of samples, one thread, there and here.
    """

    file: str
    form: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    batches: Sequence[int]
    error: float
    opset: int | None
    seconds: float
    torch_seconds: float

    def write(self, path: Path) -> None:
        """Write it beside the file that it is of."""
        write_atomically(path.with_name(f"{path.name}.json"), (json.dumps(asdict(self), indent=2) + "\n").encode())

    def __str__(self) -> str:
        there, here = (f"{one * 1e3:.3g} ms" for one in (self.seconds, self.torch_seconds))
        sizes = ", ".join(map(str, self.batches))
        return (
            f"{self.file} ({self.form}): {', '.join(self.inputs)} -> {', '.join(self.outputs)}; the same as torch for "
            f"{sizes} samples to {self.error:.1e}; {self.batches[-1]} take {there}, in torch {here}"
        )


class Flat(nn.Module):
    """A network as a function of tensors, in the order of their names.

    Parameters
    ----------
    network
        What is called.
    call
        How: its tensors are the inputs.
    """

    def __init__(self, network: nn.Module, call: Call):
        super().__init__()
        self.network = network
        self._leaves, self._spec = pytree.tree_flatten(tuple(call))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run it; outputs in the order of the signature."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(one, Tensor) else one for one in self._leaves]
        called = Call(*pytree.tree_unflatten(leaves, self._spec))
        more = {name: one for name, one in (("context", called.context), ("index", called.index)) if one is not None}
        made = leaves_of(self.network(*called.args, **called.kwargs, **more), "output")
        return tuple(one for _, one in made if isinstance(one, Tensor))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs that it was made with."""
        return tuple(one for one in self._leaves if isinstance(one, Tensor))


@dataclass(frozen=True)
class Flattened:
    """A network, flat, in one of the forms, with what an exporter asks for, and what it is compared with."""

    form: Form
    module: Flat
    reference: Flat
    calls: Mapping[int, tuple[Tensor, ...]]
    inputs: Sequence[str]
    outputs: Sequence[str]
    dynamic: Sequence[dict[int, Any] | None]

    @property
    def example(self) -> tuple[Tensor, ...]:
        """The inputs that it is exported with: of the one number of samples, or of neither one nor the most."""
        return self.calls[sorted(self.calls)[len(self.calls) // 2]]

    @property
    def shapes(self) -> dict[str, Any] | None:
        """What exporters call ``dynamic_shapes``; ``None`` where the number of samples is one."""
        return None if self.form == "grouped" else {"tensors": tuple(self.dynamic)}

    @contextmanager
    def exporting(self) -> Iterator[None]:
        """For a block, compute as the form has it, without gradient, and without warnings of exporters."""
        with warnings.catch_warnings(), grouped() if self.form == "grouped" else nullcontext(), torch.no_grad():
            warnings.simplefilter("ignore")  # of what the exporter and torch think of each other
            yield


def flat(network: DynamicNetwork, shown: Shown, form: Form, batch: int, context: Any = None) -> Flattened:
    """Return a network as an exporter takes it.

    Parameters
    ----------
    network
        It stays as it is.
    shown
        Its example.
    form
        Which of the three.
    batch
        Samples that a ``grouped`` one takes.
    context
        The one that is baked in; the example's first by default.

    Raises
    ------
    ExportError
        There is no such form.
    """
    if form not in FORMS:
        raise ExportError(f"`form` is {form!r}, but must be one of {', '.join(map(repr, FORMS))}.")
    call, ports = shown.call, list(shown.inputs)
    called: nn.Module = network
    like: nn.Module = network
    if form == "baked":
        first = context_of(shown, context)
        kept = len(pytree.tree_leaves((call.args, call.kwargs)))
        ports, call = ports[:kept], call._replace(context=None, index=None)
        called, like = bake(network, first), _With(network, first)
    samples = torch.export.Dim("batch")
    sizes = (batch,) if form == "grouped" else BATCHES
    calls = {size: Flat(network, Example.of(call).drawn(size)).tensors for size in sizes}
    dynamic = [{0: samples} if one.shape and one.shape[0] == BATCH else None for one in ports]
    inputs, outputs = (tuple(one.name for one in several) for several in (ports, shown.made))
    return Flattened(form, Flat(called, call).eval(), Flat(like, call).eval(), calls, inputs, outputs, dynamic)


def context_of(shown: Shown, context: Any = None) -> Any:
    """Return the context that is baked in: the example's first, where none is given."""
    return Example.of(shown.call).drawn(1).context if context is None else context


class _With(nn.Module):
    """A network whose samples all have one context."""

    def __init__(self, network: DynamicNetwork, context: Any):
        super().__init__()
        self.network, self.more = network, {} if context is None else {"context": context}

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.network(*inputs, **options, **self.more)


def fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some runs, on one thread."""
    threads, taken = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(RUNS):
                began = time.perf_counter()
                run()
                taken.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return min(taken)


def check_same(found: float, what: str) -> None:
    """Refuse what computes something else.

    Raises
    ------
    ExportError
        It does.
    """
    if not found <= TOLERANCE:
        raise ExportError(
            f"{what} computes something else than the network: outputs differ by {found:.2g} of their largest value, "
            f"and {TOLERANCE:g} is allowed. There is no file."
        )


def largest_difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return how far outputs differ, of the largest value of each, or of 1; infinity where nothing can be compared."""
    if len(found) != len(wanted):
        return float("inf")
    return max((_difference(one, other) for one, other in zip(found, wanted, strict=True)), default=float("inf"))


def _difference(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape or not bool(torch.equal(torch.isfinite(one), torch.isfinite(other))):
        return float("inf")
    size = max(1.0, float(other.abs().nan_to_num(0.0, 0.0, 0.0).max())) if other.numel() else 1.0
    apart = (one.double() - other.double()).abs().nan_to_num(0.0, 0.0, 0.0)
    return float(apart.max()) / size if apart.numel() else 0.0
