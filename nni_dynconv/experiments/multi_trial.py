"""What the tuner proposes in multi-trial mode: architectures, by a sampler that lives in the tuner's process."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..settings import RunSettings, load_object

__all__ = ["MultiTrial", "checkpoint_for_trials"]

_logger = logging.getLogger(__name__)


class MultiTrial:
    """Each trial evaluates one architecture: the mutator's sampler lives here and learns from the results."""

    def __init__(self, settings: RunSettings, code_directory: Path) -> None:
        from ..samplers import choices_of

        self._settings = settings.to_dict()
        self._settings["checkpoint"] = checkpoint_for_trials(settings, code_directory)
        self._sign = 1.0 if settings.optimize_mode == "maximize" else -1.0
        self._choices = choices_of(load_object(settings.space)(**settings.space_args))
        self.sampler = settings.sampler.build(seed=settings.seed)
        self.sampler.bind(self._choices)

    def anneal(self, progress: float) -> None:
        """Tell the sampler how far the search is, from 0 to 1."""
        self.sampler.anneal(progress)

    def propose(self, parameter_id: int, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        sample = dict(self.sampler.sample())
        settings = {**self._settings, "seed": self._settings["seed"] + number}  # a repeat is another training
        return {"sample": sample}, {"mode": "multi_trial", "settings": settings, "sample": sample}

    def objection(self, metric: float) -> str | None:
        """Return why a result can teach the sampler nothing, or ``None``."""
        ask = getattr(self.sampler, "objection", None)  # here one of your own need not be a `Sampler`
        return None if ask is None else ask(self._sign * metric)

    def learn(self, proposed: Any, metric: float, parameter_id: int | None) -> None:
        sample = proposed.get("sample") if isinstance(proposed, Mapping) else None
        if not isinstance(sample, Mapping) or set(sample) != set(self._choices):
            _logger.warning("A result without an architecture of this space teaches nothing: %r", proposed)
            return
        self.sampler.observe(dict(sample), self._sign * metric)

    def state_dict(self) -> dict[str, Any]:
        return {"sampler": self.sampler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sampler.load_state_dict(state["sampler"])

    def pack(self, state: Mapping[str, Any]) -> bytes:
        import torch

        plain = {key: value for key, value in state.items() if key != "sampler"}
        buffer = io.BytesIO()
        torch.save({"tuner": json.dumps(plain), "sampler": state["sampler"]}, buffer)
        return buffer.getvalue()

    def unpack(self, raw: bytes) -> dict[str, Any]:
        import torch

        state = torch.load(io.BytesIO(raw), weights_only=True)
        return {**json.loads(state["tuner"]), "sampler": state["sampler"]}


def checkpoint_for_trials(settings: RunSettings, code_directory: Path) -> str:
    """Return the shared checkpoint's path as trials get it: absolute, or relative to the code directory that has it.

    NNI's ``remote`` training service copies the code directory to each machine, and what is in it.
    """
    directory = code_directory.resolve()
    path = (directory / str(settings.checkpoint)).resolve()
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)
