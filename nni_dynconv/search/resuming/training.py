"""A training by Lightning that is kept: at the start of each epoch, every few minutes inside it, and when asked to end.

Lightning's own checkpoints have weights, optimizers, schedules, callbacks and loops. Inside an epoch they lack where
the loader is, the generators and what was logged so far.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from ...nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from pytorch_lightning import Callback, LightningModule, Trainer

from ...errors import CheckpointError
from ...keeping import generators
from ..lightning import replaced
from .keeper import Keeper
from .logged import logged_in, set_logged

__all__ = ["KeepTraining", "Remembers"]

PATH = "the run's checkpoint"
HYPER = "hyper_parameters"


class Remembers(Protocol):
    """What has more to be kept than its ``state_dict()``."""

    def kept(self) -> dict[str, Any]: ...

    def take_up(self, state: dict[str, Any]) -> None: ...

    def is_between_steps(self, batches: int) -> bool: ...


class KeepTraining(Callback):
    """Keeps a training, and lets it go on where it was.

    Parameters
    ----------
    keeper
        Of the run.
    stage
        How the training is called in it.
    remembers
        Has more to be kept than the module's and its callbacks' states.
    """

    def __init__(self, keeper: Keeper, stage: str, remembers: Remembers | None = None):
        self.keeper, self.stage, self.remembers = keeper, stage, remembers
        self._waiting = dict(keeper.of(stage))
        self._began = self._waiting.get("began", keeper.spent)  # seconds of the run, as the training began
        self._start: dict[str, Any] = {}
        self._hooks = ExitStack()

    @property
    def fit_kwargs(self) -> dict[str, str]:
        """What ``Trainer.fit`` is told, so that Lightning restores its own part of what was kept."""
        return {"ckpt_path": PATH} if self._waiting else {}

    @property
    def seconds(self) -> float:
        """What the training has taken, in all processes that went on with it."""
        return self.keeper.spent - self._began

    def __deepcopy__(self, memo: dict[int, Any]) -> KeepTraining:
        return self  # it is of one run

    # Lightning's loops tell callbacks neither when an iterator is made, nor when all of a step is over

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self.keeper.store is None:
            return
        fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
        iterate, begin, advanced, end = (
            fit._load_combined_loader_states,
            epoch.on_run_start,
            epoch.on_advance_end,
            fit.on_run_end,
        )

        def iterated() -> None:
            iterate()
            self._note_start(trainer)

        def began(fetcher: Any) -> None:
            if trainer.current_epoch > 0 and not fit.is_resuming:
                self._note_start(trainer)
            begin(fetcher)
            self._begin(trainer, fetcher)

        def after(fetcher: Any) -> None:
            advanced(fetcher)
            self._after_step(trainer)

        def ended() -> None:
            if self._waiting:
                self._restore(trainer)
            else:
                self._keep(trainer, memo=[])
            self.keeper.end_if_asked()
            end()

        self._replace(fit, "_load_combined_loader_states", iterated)
        self._replace(epoch, "on_run_start", began)
        self._replace(epoch, "on_advance_end", after)
        self._replace(fit, "on_run_end", ended)
        # it would raise at the end of the batch, before there is a checkpoint
        self._replace(trainer._signal_connector, "_sigterm_notifier_fn", lambda *asked: None)
        if self._waiting:
            reset = epoch.reset
            self._replace(epoch, "reset", lambda: _quietly(reset))
            self._replace(
                trainer.strategy, "load_checkpoint", lambda *path, **options: dict(self._waiting["lightning"])
            )
            if "memo" in self._waiting:
                self._replace(fit, "run", lambda: _only_end(fit))

    def _replace(self, one: Any, name: str, method: Callable[..., Any]) -> None:
        self._hooks.enter_context(replaced(one, name, method))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._hooks.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._hooks.close()

    # Writing

    def _note_start(self, trainer: Trainer) -> None:
        loaders = generators.of_loaders(_loaders(trainer))
        self._start = {"generators": generators.position(), "loaders": loaders}

    def _begin(self, trainer: Trainer, fetcher: Any) -> None:
        if self._waiting:
            self._go_on(trainer, fetcher)
        else:
            self._keep(trainer)
            self.keeper.end_if_asked()

    def _after_step(self, trainer: Trainer) -> None:
        epoch = trainer.fit_loop.epoch_loop
        batches = epoch.batch_progress.current.ready
        if epoch.batch_progress.is_last_batch or epoch._should_accumulate() or not self.keeper.is_due():
            return
        if self.remembers is None or self.remembers.is_between_steps(batches):
            self._keep(trainer)
            self.keeper.end_if_asked()

    def _keep(self, trainer: Trainer, **more: Any) -> None:
        self.keeper.keep(
            self.stage,
            epoch=trainer.fit_loop.epoch_progress.current.processed,
            batch=trainer.fit_loop.epoch_loop.batch_progress.current.ready,
            lightning=_dumped(trainer),
            remembered=None if self.remembers is None else self.remembers.kept(),
            logged=logged_in(trainer),
            start=self._start,
            began=self._began,
            loaders=generators.of_loaders(_loaders(trainer)),
            **more,
        )

    # Going on

    def _go_on(self, trainer: Trainer, fetcher: Any) -> None:
        """Go through the epoch from its start to the first new batch, and restore what there was just before it."""
        self._start, batches = self._waiting["start"], self._waiting["batch"]
        generators.set_position(self._start["generators"])
        generators.set_loaders(_loaders(trainer), self._start["loaders"])
        iter(fetcher)
        for number in range(batches):
            try:
                next(fetcher)
            except StopIteration:
                raise CheckpointError(
                    f"{batches} batches of epoch {trainer.current_epoch + 1} were trained on, but its loader has "
                    f"{number} now. Go on with the data that the checkpoint was written with."
                ) from None
        trainer.fit_loop.epoch_loop.restarting = False
        self._restore(trainer)

    def _restore(self, trainer: Trainer) -> None:
        state, self._waiting = self._waiting, {}
        trainer.strategy.load_model_state_dict(state["lightning"], strict=True)
        if self.remembers is not None:
            self.remembers.take_up(state["remembered"])
        set_logged(trainer, state["logged"])
        generators.set_loaders(_loaders(trainer), state["loaders"])
        generators.set_position(state["generators"])


def _quietly(reset: Callable[[], None]) -> None:
    """Call it without Lightning's warning that a loader cannot go on in an epoch: it is gone through from its start."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
        reset()


def _only_end(fit: Any) -> None:
    """Run the end of a training whose epochs are over."""
    fit.setup_data()
    fit.reset()
    fit.on_run_start()
    fit.on_run_end()


def _loaders(trainer: Trainer) -> list[Any]:
    """Return what may have generators of its own."""
    combined = trainer.fit_loop._combined_loader
    return [*([] if combined is None else combined.flattened), *trainer.lightning_module.modules()]


def _dumped(trainer: Trainer) -> dict[str, Any]:
    """Return what Lightning would write; arguments of classes are not needed where the objects are there."""
    found: dict[str, Any] = {}
    with replaced(trainer.strategy, "save_checkpoint", lambda checkpoint, *path, **options: found.update(checkpoint)):
        trainer.save_checkpoint(PATH, weights_only=False)
    return {name: one for name, one in found.items() if HYPER not in name and "hparams" not in name}
