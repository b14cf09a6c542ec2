"""What a run writes as it goes: what was searched before anything is exported, so that nothing of it is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from ... import export
from ...errors import RunError
from ...files import write_atomically
from ...generation import Call, DynamicNetwork
from ...phases import phase
from ...reporting import write_report
from ...runs import TRAINED, UNTRAINED, Run
from ...supernet import DynamicWeightMutator
from .evaluators import Evaluators
from .training import Trained

__all__ = ["Writer", "attempt", "called_by", "load_weights", "save_shown", "save_weights"]


def save_weights(network: nn.Module, path: Path) -> None:
    """Write all tensors of a network by its own names; what was there stays until they are whole."""
    tensors = {name: one.detach().cpu().contiguous().clone() for name, one in network.state_dict().items()}
    write_atomically(path, safetensors.torch.save(tensors))


def load_weights(network: nn.Module, path: Path) -> None:
    """Read what :func:`save_weights` wrote.

    Raises
    ------
    RunError
        There is nothing, or the tensors are those of another network.
    """
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise RunError(f"`{path}` does not hold the weights of this network: {error}") from error


def attempt(work: Callable[[], object]) -> str | None:
    """Do what a run can do without; return why it failed, or ``None``."""
    try:
        work()
    except Exception as error:  # also of the user's own classes
        return f"{type(error).__name__}: {error}"
    return None


def save_shown(
    network: DynamicNetwork, evaluators: Evaluators, folder: Path, results: Mapping[str, float] | None = None
) -> None:
    """Export a network with the example of a batch, or of what it has seen, and what was measured of it."""
    export.save(network, folder, example=called_by(evaluators, network), results=results)


def called_by(evaluators: Evaluators, network: DynamicNetwork) -> Call | None:
    """Return how an evaluator calls a network; ``None`` where its batch cannot be shown once more, but one was."""
    try:
        return evaluators.called(network)
    except Exception:  # of the user's own step and data
        if network.source.seen is None:
            raise
        return None


@dataclass
class Writer:
    """Writes a run's folder.

    Parameters
    ----------
    run
        ``None``: nothing is written.
    first
        Whether this process is the one that writes.
    """

    run: Run | None
    first: bool = True

    def began(self, **facts: Any) -> None:
        """Empty the folder of what an earlier run left there, unless this one has been noted in it before."""
        if self.run is not None and self.first and not self.run.begun:
            if self.run.is_unfinished:  # it goes on
                self.run.begun = True
            else:
                self.run.begin(**facts)

    def searched(self, mutator: DynamicWeightMutator, network: nn.Module, sample: Mapping[str, Any]) -> None:
        """Write what a search has found, before it is trained to the end."""
        run = self.run
        if run is not None and self.first:
            run.write_architecture(sample)
            run.note(state=UNTRAINED, architecture=dict(sample))
            choices = {label: list(map(str, one.candidates)) for label, one in mutator.choices.items()}
            run.history.add("space", name=type(mutator.space).__name__, choices=choices, **_makers(mutator))
            self.without_failing("supernet", lambda: export.save_supernet(mutator, run.supernet))
            save_weights(network, run.weights)

    def trained(self, found: Trained) -> None:
        """Write the network in memory and its result."""
        if self.run is not None and self.first:
            save_weights(found.network, self.run.weights)
            self.run.write_architecture(found.network.architecture)
            self.run.note(state=TRAINED if found.epochs else UNTRAINED, **told(found))

    def cut(self, sentences: Sequence[str]) -> None:
        """Say what came last of what time was too short for, and write it."""
        if self.first:
            print(f"CUT: {sentences[-1]}", flush=True)
            if self.run is not None:
                self.run.note(cut=list(sentences))

    def exported(self, found: Trained, evaluators: Evaluators) -> None:
        """Write the network as :func:`nni_dynconv.load` reads it; a failure is noted."""
        run = self.run
        if run is not None and self.first:
            self.without_failing("export", lambda: save_shown(found.network, evaluators, run.folder, found.metrics))

    def for_netron(self, network: DynamicNetwork) -> None:
        """Write ``model.onnx``, which NNI's page opens, where the packages for it are installed; a failure is noted."""
        run = self.run
        if run is None or not self.first or not run.network.is_file() or not export.has_onnx():
            return

        def write() -> None:
            shown = export.example_in(run.folder)
            if shown is not None:
                with phase("writing ONNX"):
                    export.export_onnx(network, run.folder / "model.onnx", shown)

        self.without_failing("onnx", write)

    def shown(self) -> None:
        """Write the page of the run; a failure is noted."""
        run = self.run
        if run is not None and self.first:
            self.without_failing("page", lambda: write_report(run.folder))

    def over(self) -> None:
        """Remove what the run would go on from."""
        if self.run is not None and self.first:
            self.run.over()

    def without_failing(self, what: str, work: Callable[[], object]) -> None:
        """Do what a run can do without, in every process; why it failed is noted, and told."""
        why = attempt(work)
        if self.run is not None and self.first and (why is not None or what in self.run.problems):
            self.run.mark(what, why)
        if why is not None and self.first:
            print(f"FAILED: {what}: {why}", flush=True)


def _makers(mutator: DynamicWeightMutator) -> dict[str, str | None]:
    """Return what chose the architecture, and what makes its weights, by their classes."""
    parts = {"sampler": mutator.sampler, "controller": mutator.source.controller, "context": mutator.source.encoder}
    return {name: None if one is None else type(one).__name__ for name, one in parts.items()}


def told(found: Trained) -> dict[str, Any]:
    """Return what ``run.json`` says of a training."""
    return {
        "architecture": dict(found.network.architecture),
        "start": found.start,
        "epochs": found.epochs,
        "best_epoch": found.best_epoch,
        "metric": found.metric,
        "result": found.result,
        "metrics": dict(found.metrics),
        "seconds": round(found.seconds, 1),
        "cut": list(found.cut),
    }
