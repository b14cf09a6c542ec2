"""Evaluators made anew: a trainer runs once, its callbacks count, and a search has been at the module."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import torch
from nni.nas.evaluator.pytorch import Lightning
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, ProgressBar
from torch import nn

from ...errors import ConfigError
from ...generation import Call, DynamicNetwork
from ...keeping import generators
from ...sites import count_of
from ..lightning import step_of
from ..loaders import first_batches, flattened

__all__ = ["Evaluators"]

SHARED = ("logger", "profiler")
"""Arguments of a trainer that every training of a run writes into, so that no copy of theirs is made."""


class Evaluators:
    """Makes evaluators like one that has not run yet: its module, optimizer, schedule, callbacks, trainer and data.

    Parameters
    ----------
    evaluator
        NNI's; it stays as it is. Loaders, loggers and the network that it may hold are shared, all else is copied.
        Callbacks that are for a search alone, and say so by an attribute ``of_search = True``, are left out.
    shared
        What its callbacks may refer to, and is not to be copied either.
    options
        Arguments of the trainer to replace.

    Raises
    ------
    ConfigError
        Its module or a callback cannot be copied.
    """

    def __init__(self, evaluator: Lightning, shared: Iterable[Any] = (), **options: Any):
        self.data = evaluator.train_dataloaders, evaluator.val_dataloaders
        self.test = getattr(evaluator, "test_dataloaders", None)
        self.datamodule = copy.copy(evaluator.datamodule)  # a search puts loaders of its own into the one that is given
        self.fit_kwargs = {key: one for key, one in evaluator.fit_kwargs.items() if key != "ckpt_path"}
        trainer = evaluator.trainer
        kept = [*self.data, self.test, self.datamodule, trainer, *trainer.loggers, *shared]
        self._shared = [one for one in (*kept, getattr(evaluator.module, "_model", None)) if one is not None]
        given = {key: one for key, one in {**trainer.trace_kwargs, **options}.items() if key != "callbacks"}
        if given.get("default_root_dir") is None:  # the trial's folder, where a trial has said so
            given["default_root_dir"] = trainer.default_root_dir
        self._make_trainer = type(trainer)
        self._given = {key: one if key in SHARED else self._copy(one, key) for key, one in given.items()}
        callbacks = [one for one in trainer.callbacks if not getattr(one, "of_search", False)]
        self._callbacks = [self._copy(one, f"callback {type(one).__name__}") for one in callbacks]
        self._module = self._copy(evaluator.module, f"module {type(evaluator.module).__name__}")

    def _copy(self, one: Any, what: str) -> Any:
        try:
            return copy.deepcopy(one, {id(shared): shared for shared in self._shared})
        except Exception as error:  # whatever a class of the user's raises
            raise ConfigError(
                f"The evaluator's {what} cannot be copied ({type(error).__name__}: {error}), but what was found is "
                f"trained by an evaluator like it. Give it a `__deepcopy__`, or leave the training out: "
                f"`final_epochs=0`."
            ) from error

    @property
    def callbacks(self) -> list[Callback]:
        """Those of the trainer, which have not run: to be read."""
        return self._callbacks

    def make(
        self, epochs: int | None = None, callbacks: Sequence[Callback] = (), alike: bool = False, **options: Any
    ) -> Lightning:
        """Return a new evaluator.

        Parameters
        ----------
        epochs
            How many it trains; its own number by default.
        callbacks
            More of them, before its own.
        alike
            Whether every one of them takes the same steps and leaves no files: without early stopping, checkpoints
            and loggers.
        options
            Arguments of the trainer to replace.
        """
        own = [self._copy(one, "callback") for one in self._callbacks]
        given = {**{key: one if key in SHARED else self._copy(one, key) for key, one in self._given.items()}, **options}
        if alike:
            own = [one for one in own if not isinstance(one, (EarlyStopping, ModelCheckpoint))]
            given |= {"logger": False, "enable_checkpointing": False}
        if given.get("enable_progress_bar") is False:  # a trainer made before may have got one of Lightning's own
            own = [one for one in own if not isinstance(one, ProgressBar)]
        if epochs is not None and not given.get("fast_dev_run"):
            given |= {"max_epochs": epochs, "max_steps": -1}
        given["callbacks"] = [*callbacks, *own]
        if any(isinstance(one, ModelCheckpoint) for one in given["callbacks"]):
            given["enable_checkpointing"] = True
        train, validation = self.data
        made = Lightning(
            self._copy(self._module, "module"),
            self._make_trainer(**given),
            train_dataloaders=train,
            val_dataloaders=validation,
            datamodule=copy.copy(self.datamodule),
            fit_kwargs=dict(self.fit_kwargs),
        )
        made.test_dataloaders = self.test
        return made

    @property
    def drawing(self) -> list[Any]:
        """What may have random generators of its own: loaders, one by one, and the data module."""
        return [*flattened([*self.data, self.test]), self.datamodule]

    def batch(self) -> Any:
        """Return the first training batch, as a step takes it, on the CPU; random generators stay as they are."""
        return self._batches(1)[0]

    def _batches(self, count: int) -> list[Any]:
        made = self.make(alike=True)
        module, given = made.module, made.datamodule
        if given is not None:
            given.prepare_data()
            given.setup("fit")
        loader = made.train_dataloaders if given is None else given.train_dataloader()
        with generators.untouched(self.drawing):  # going through a loader draws
            batches = first_batches(loader, count, made.trainer.precision_plugin.convert_input)
            moved = [
                module.transfer_batch_to_device(module.on_before_batch_transfer(batch, 0), torch.device("cpu"), 0)
                for batch in batches
            ]
            return [module.on_after_batch_transfer(batch, 0) for batch in moved]

    def called(self, network: DynamicNetwork) -> Call | None:
        """Return how the evaluator's step calls a network, with the values of a batch; ``None`` where it calls another.

        Random generators stay as they are.
        """
        return next(iter(self._calls(network, 1)), None)

    def contexts(self, network: DynamicNetwork, enough: int) -> list[Any]:
        """Return the contexts that the evaluator's step shows a network, a batch each, of enough training batches.

        Random generators stay as they are. Where the data has fewer, all of them are returned.

        Parameters
        ----------
        enough
            How many contexts.
        """
        first = self.called(network)
        rows = count_of(None if first is None else first.context)
        return [] if not rows else [one.context for one in self._calls(network, -(-enough // rows))]

    def _calls(self, network: DynamicNetwork, batches: int) -> list[Call]:
        calls: list[Call] = []

        def note(_: nn.Module, args: Any, kwargs: Any) -> None:
            calls.append(network.takes.call(args, kwargs, network.source.of_context is not None))

        with generators.untouched(self.drawing):
            handle = network.register_forward_pre_hook(note, with_kwargs=True)
            try:
                for batch in self._batches(batches):
                    self.show(network, batch)
            finally:
                handle.remove()
        return calls

    @torch.no_grad()
    def show(self, network: nn.Module, batch: Any) -> None:
        """Let a network on the CPU take the evaluator's step on a batch, in evaluation mode and without learning."""
        made = self.make(alike=True)
        made.module.trainer = made.trainer
        made.module.set_model(network.eval())
        step_of(made.module)(batch)
