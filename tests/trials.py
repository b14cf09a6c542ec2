"""Settings and an evaluator for trials of seconds."""

from __future__ import annotations

from toy_task import ToyModule, evaluator

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import Lightning, Trainer

from nni_dynconv.settings import check_class_args

CLASS_ARGS = {
    "mode": "one_shot",
    "space": "toy_task:ToySpace",
    "evaluator": "trials:task",
    "metric": "val_loss",
    "optimize_mode": "minimize",
    "evaluator_args": {"epochs": 2, "batches": 4},
}
LOADERS = evaluator(batches=4)


class Module(ToyModule):
    """Reports nothing by itself."""

    def on_validation_epoch_end(self):
        pass

    def on_fit_end(self):
        pass


def task(epochs=2, batches=4, **options):
    quiet = dict.fromkeys(("enable_checkpointing", "logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", **quiet, **options)
    made = evaluator(batches=batches)
    loaders = {"train_dataloaders": made.train_dataloaders, "val_dataloaders": made.val_dataloaders}
    return Lightning(Module(), trainer, **loaders)


def settings(**changes):
    return check_class_args({**CLASS_ARGS, **changes}).to_dict()
