"""What a search found is trained to its end: from which weights, by whose rules, which epoch, and what NNI is told."""

from __future__ import annotations

import json

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from searches import QUIET, Quiet, made, run, task
from spaces import OneChoice, image, vector
from toy_task import ToySpace, evaluator

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.nas.evaluator.pytorch import Classification, DataLoader, Lightning, Trainer
from nni.nas.execution.sequential import SequentialTrialCommandChannel
from nni.nas.experiment import NasExperiment
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, ProgressBar, StochasticWeightAveraging

import nni_dynconv
from nni_dynconv import DynamicWeightMutator, RandomSampler, VectorContext, export
from nni_dynconv.errors import ConfigError, NotFiniteError, ScopeError
from nni_dynconv.runs import TRAINED, UNTRAINED, Run
from nni_dynconv.search import Evaluators, Goal, goal_of, load_weights, train_final

BEST = {"first": "3", "last": "static"}


pytestmark = pytest.mark.usefixtures("own_nni_folders")


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Scripted(Quiet):
    """Logs what it is told to, epoch by epoch, and counts its steps in a parameter of the network."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def validation_step(self, batch, batch_idx):
        place = min(self.trainer.current_epoch, len(self.values) - 1)
        self.log("val_score", self.values[place])


# The end of an experiment


def test_an_experiment_ends_with_a_network_that_is_trained_and_one_call_gives_it(capsys):
    """It used to end with a sample, and the copies that the re-ranking had trained were thrown away."""
    mutator = made()
    strategy = run(mutator, final_epochs=4)
    said = capsys.readouterr().out
    assert "Trained what was found for 4 epochs more, from generated weights" in said
    network = strategy.network
    assert network.architecture == mutator.export() and not network.training
    assert strategy.trained.epochs == 4 and strategy.trained.metric == "val_loss"
    assert strategy.trained.result == pytest.approx(loss_of(network), rel=1e-4)
    assert loss_of(network) < loss_of(mutator.freeze().eval())


def loss_of(network):
    loader = evaluator(batches=4).val_dataloaders
    with torch.no_grad():
        return float(torch.stack([F.mse_loss(network(x), y) for x, y in loader]).mean())


def test_before_it_has_run_there_is_no_network():
    with pytest.raises(ScopeError, match=r"Nothing is found yet. Run the experiment first"):
        made().strategy().network  # noqa: B018


def test_without_final_training_the_reranked_weights_are_kept_and_it_is_said_loudly(capsys):
    mutator = made()
    strategy = run(mutator, final_epochs=0, rerank_steps=60)
    assert "NOT TRAINED: `final_epochs=0`" in capsys.readouterr().out
    assert strategy.trained.epochs == 0
    assert strategy.trained.result == pytest.approx(loss_of(strategy.network), rel=1e-4)
    assert loss_of(strategy.network) < 0.5 * loss_of(mutator.freeze().eval())  # 60 steps of training make a difference


def test_the_final_training_goes_on_from_what_the_reranking_trained(monkeypatch):
    started = []
    step = Quiet.training_step

    def training_step(self, batch, batch_idx):
        if not started and type(self.model).__name__ == "DynamicNetwork" and getattr(self, "_trainer", None):
            started.append({name: one.detach().clone() for name, one in self.model.state_dict().items()})
        return step(self, batch, batch_idx)

    mutator = made()
    strategy = mutator.strategy(contenders=8, rerank=2, rerank_steps=20, final_epochs=1)
    searching = strategy.mutate_evaluator(task(epochs=1))
    searching.search(mutator.space)
    reranked = searching.module.reranked
    assert reranked is not None
    monkeypatch.setattr(Quiet, "training_step", training_step)
    monkeypatch.setattr(type(searching), "search", lambda self, model: None)
    searching.evaluate(mutator.space)
    for name, one in started[0].items():
        torch.testing.assert_close(one, reranked[name], rtol=0, atol=0)


def test_from_scratch_means_the_weights_from_before_the_search():
    mutator = made()
    initial = {name: one.clone() for name, one in mutator.space.state_dict().items()}
    seen = []

    class First(Quiet):
        def on_train_start(self):
            if type(self.model).__name__ == "DynamicNetwork":
                seen.append({name: one.detach().clone() for name, one in self.model.state_dict().items()})

    strategy = run(mutator, task(First(), 1), final_start="scratch", final_epochs=1)
    assert strategy.trained.start == "scratch"
    searched = {name: one.clone() for name, one in mutator.space.state_dict().items()}
    mutator.space.load_state_dict(initial)
    expected = mutator.freeze(strategy.network.architecture).state_dict()
    for name, one in seen[0].items():
        torch.testing.assert_close(one, expected[name], rtol=0, atol=0)
    assert any(not torch.equal(one, searched[name]) for name, one in initial.items())  # and the supernet stays searched


def test_by_default_it_trains_for_the_evaluators_own_number_of_epochs():
    assert run(made(), task(epochs=3)).trained.epochs == 3


# Which epoch


def trained_by(module, *callbacks, epochs=4, goal=None, **options):
    network = made().freeze(BEST)
    return train_final(network, task(module, epochs, callbacks, **options), goal=goal)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("values", [[4.0, 1.0, 3.0, 2.0], [1.0, 4.0, 2.0, 3.0], [float("nan"), 2.0, 5.0, 3.0]])
def test_the_best_epoch_is_kept(values, mode):
    found = trained_by(Scripted(values), goal=Goal("val_score", mode))
    finite = [one for one in values if one == one]
    assert values[found.best_epoch] == (min if mode == "min" else max)(finite) and found.epochs == 4


def test_the_weights_are_those_of_the_best_epoch():
    class Steps(Scripted):
        """The network's parameter counts its epochs."""

        def on_train_epoch_end(self):
            with torch.no_grad():
                self.model.network.last.bias.fill_(float(self.trainer.current_epoch))

    found = trained_by(Steps([3.0, 1.0, 2.0]), epochs=3, goal=Goal("val_score", "min"))
    # validation, and with it the choice, comes before the epoch's last hook
    assert found.best_epoch == 1 and found.network.network.last.bias.item() != 2.0


@pytest.mark.parametrize(
    ("callbacks", "expected"),
    [
        ([EarlyStopping("val_score", mode="max")], Goal("val_score", "max")),
        ([EarlyStopping("val_score"), ModelCheckpoint(monitor="val_loss", mode="min")], Goal("val_loss", "min")),
        ([ModelCheckpoint()], Goal("val_loss", "min")),
    ],
)
def test_the_evaluators_own_callbacks_say_which_epoch_is_the_best(callbacks, expected):
    assert goal_of(callbacks) == expected
    assert goal_of(callbacks, Goal("val_acc", "max")) == Goal("val_acc", "max")


def test_its_early_stopping_starts_anew_and_stops():
    """That of the search has counted already."""
    given = task(Scripted([1.0, 2.0, 3.0, 4.0, 5.0]), 5, [EarlyStopping("val_score", patience=2)])
    found = run(made(), given, final_epochs=5).trained
    assert found.epochs == 3 and found.best_epoch == 0


def test_where_nothing_is_logged_the_last_epoch_counts():
    class Silent(Quiet):
        def validation_step(self, batch, batch_idx):
            pass

    found = trained_by(Silent())
    assert found.best_epoch is None or found.best_epoch == 3
    assert found.metric is None and found.result is None and found.epochs == 4
    assert trained_by(Quiet(), limit_val_batches=0).result is None


def test_averaged_weights_are_kept_whatever_an_epoch_measured():
    found = trained_by(Quiet(), StochasticWeightAveraging(0.01, swa_epoch_start=1), epochs=4)
    assert found.best_epoch is None


def test_a_training_that_diverges_leaves_the_network_as_it_was():
    class Diverging(Quiet):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e30)

    network = made().freeze(BEST)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    with pytest.raises(NotFiniteError, match="The final training diverged.*gradient_clip_val"):
        train_final(network, task(Diverging()))
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


# Evaluators made anew


class Uncopied(pl.Callback):
    def __deepcopy__(self, memo):
        raise TypeError("holds a lock")


def test_an_evaluator_that_cannot_be_copied_is_refused_before_the_search():
    with pytest.raises(
        ConfigError, match=r"callback Uncopied cannot be copied \(TypeError: holds a lock\).*final_epochs=0"
    ):
        made().strategy().mutate_evaluator(task(callbacks=[Uncopied()]))


def test_a_new_evaluator_has_its_own_module_and_callbacks_and_the_same_data_and_logger(tmp_path):
    logger = pl.loggers.CSVLogger(tmp_path)
    given = task(callbacks=[EarlyStopping("val_loss")], logger=logger, max_steps=7)
    makers = Evaluators(given)
    one, other = makers.make(), makers.make(epochs=9)
    assert one.module is not other.module is not given.module
    assert {type(each) for each in given.trainer.callbacks} <= {type(each) for each in one.trainer.callbacks}
    stops = [next(each for each in made.trainer.callbacks if isinstance(each, EarlyStopping)) for made in (given, one)]
    assert stops[0] is not stops[1]
    assert one.train_dataloaders is given.train_dataloaders and one.trainer.logger is logger
    assert (one.trainer.max_epochs, one.trainer.max_steps) == (2, 7)
    assert (other.trainer.max_epochs, other.trainer.max_steps) == (9, -1)
    alike = makers.make(alike=True)
    assert not any(isinstance(each, (EarlyStopping, ModelCheckpoint)) for each in alike.trainer.callbacks)
    assert alike.trainer.logger is None


def test_a_new_evaluator_can_go_without_the_bar_that_lightning_gave_the_first():
    """Lightning refused the two together, and with it `nni-dynconv export --to clusters` of the quickstart."""
    given = task(enable_progress_bar=True)
    assert any(isinstance(each, ProgressBar) for each in given.trainer.callbacks)
    made = Evaluators(given, enable_progress_bar=False).make()
    assert not any(isinstance(each, ProgressBar) for each in made.trainer.callbacks)


class Counted(pl.Callback):
    """Asks for what only a search has."""

    of_search, ends = True, 0

    def on_fit_end(self, trainer, module):
        Counted.ends += 1
        assert module.mutator is not None


def test_a_callback_that_is_for_the_search_alone_is_left_out_of_what_follows():
    strategy = run(made(), task(epochs=1, callbacks=[Counted()]), final_epochs=1)
    assert Counted.ends == 1 and strategy.trained.epochs == 1


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return evaluator(batches=4).train_dataloaders

    def val_dataloader(self):
        return evaluator(batches=4).val_dataloaders


def test_a_data_modules_own_loaders_train_what_was_found():
    """NNI's one-shot strategies put joined loaders into the one that they are given."""
    given = Lightning(
        Quiet(), Trainer(max_epochs=1, accelerator="cpu", enable_checkpointing=False, **QUIET), datamodule=Data()
    )
    strategy = run(made(), given)
    assert strategy.trained.result == pytest.approx(loss_of(strategy.network), rel=1e-4)


# What is written


def test_a_run_is_written_as_it_goes_and_its_network_loads(tmp_path):
    strategy = run(made(), folder=tmp_path / "run", final_epochs=2)
    run_ = Run.read(tmp_path / "run")
    assert run_.facts["state"] == TRAINED and run_.facts["architecture"] == strategy.network.architecture
    assert run_.facts["result"] == strategy.trained.result and not run_.problems
    network = nni_dynconv.load(run_.folder)
    torch.testing.assert_close(network(image()[:, :, :8]), strategy.network(image()[:, :, :8]))
    export.load_supernet(made(), run_.supernet)
    copy = made().freeze(strategy.network.architecture)
    load_weights(copy, run_.weights)
    assert all(torch.equal(one, strategy.network.state_dict()[name]) for name, one in copy.state_dict().items())


def test_a_failing_export_leaves_what_was_found_and_is_noted(tmp_path, monkeypatch, capsys):
    """It used to fail the run, and all was lost."""

    def fails(*args, **kwargs):
        raise RuntimeError("no graph")

    monkeypatch.setattr(export, "save", fails)
    strategy = run(made(), folder=tmp_path / "run")
    run_ = Run.read(tmp_path / "run")
    assert run_.problems == {"export": "RuntimeError: no graph"} and run_.facts["state"] == TRAINED
    assert "FAILED: export: RuntimeError: no graph" in capsys.readouterr().out
    assert run_.weights.is_file() and run_.supernet.is_dir() and strategy.network is not None
    assert json.loads((run_.folder / "architecture.json").read_text())["architecture"] == strategy.network.architecture


def test_a_final_training_that_dies_leaves_what_was_searched(tmp_path):
    class Dying(Quiet):
        def on_train_batch_start(self, batch, batch_idx):
            if type(self.model).__name__ == "DynamicNetwork":
                raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(made(), task(Dying(), 1), folder=tmp_path / "run")
    run_ = Run.read(tmp_path / "run")
    assert run_.facts["state"] == UNTRAINED and run_.weights.is_file() and run_.supernet.is_dir()
    load_weights(made().freeze(run_.facts["architecture"]), run_.weights)


# What NNI is told


def test_nnis_own_evaluator_reports_each_epoch_once_and_one_result(monkeypatch):
    """Both trainings used to report their last epoch as the result."""

    class Flat(ToySpace):
        def forward(self, x):
            return super().forward(x).flatten(1)[:, :3]

    told = []
    mutator = made(RandomSampler, Flat)
    data = [(one, label % 3) for label, one in enumerate(torch.rand(16, 1, 8, 8))]
    loaders = {f"{name}_dataloaders": DataLoader(data, batch_size=8) for name in ("train", "val")}
    given = Classification(
        num_classes=3, max_epochs=2, accelerator="cpu", enable_checkpointing=False, **QUIET, **loaders
    )
    strategy = mutator.strategy(contenders=0, final_epochs=3)
    experiment = NasExperiment(mutator.space, given, strategy)
    from nni.nas.execution.engine import ExecutionEngine

    dispatch = ExecutionEngine.dispatch_model_event
    monkeypatch.setattr(
        ExecutionEngine,
        "dispatch_model_event",
        lambda self, event, *args, **kwargs: (told.append(event), dispatch(self, event, *args, **kwargs))[1],
    )
    experiment.run()
    kinds = [type(event).__name__ for event in told if "Metric" in type(event).__name__]
    assert kinds == ["IntermediateMetricEvent"] * 5 + ["FinalMetricEvent"]
    (final,) = [event.metric for event in told if type(event).__name__ == "FinalMetricEvent"]
    assert final == pytest.approx(strategy.trained.metrics["val_acc"])


class AtTheEnd(Quiet):
    """Reports when a training ends, and never else."""

    def on_fit_end(self):
        nni.report_final_result(float(self.trainer.callback_metrics["val_loss"]))


@pytest.mark.parametrize("module", [AtTheEnd, Quiet])
def test_what_the_evaluator_does_not_report_is_not_made_up(module, monkeypatch):
    told = []
    monkeypatch.setattr(
        SequentialTrialCommandChannel, "send_metric", lambda self, **metric: told.append(metric["type"])
    )
    if module is Quiet:
        run(made(), task(module(), 1), final_epochs=1)
        assert told == []
    else:
        with pytest.warns(UserWarning, match="only when a training ends.*Name a `metric`"):
            run(made(), task(module(), 1), final_epochs=1)
        assert told == ["FINAL"]


# The plain loop


def test_a_plain_loop_trains_what_it_found_by_its_own_step(tmp_path):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(OneChoice(), sampler=RandomSampler(0), context=VectorContext(5, dim=4))
    mutator.reset()
    wanted = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    batches = [(image(), vector(), wanted)]

    def step(network, batch):
        x, c, y = batch
        return F.mse_loss(network(x, c), y)

    found = mutator.train_final(
        step,
        batches * 10,
        batches,
        optimizer=lambda network: torch.optim.Adam(network.parameters(), lr=0.01),
        epochs=3,
        sample={"op": "3x3"},
        folder=tmp_path / "run",
    )
    with torch.no_grad():
        before = step(mutator.freeze({"op": "3x3"}).eval(), batches[0])
        assert step(found.network, batches[0]) == pytest.approx(found.result) and found.result < before
    assert found.epochs == 3 and Run.read(tmp_path / "run").facts["state"] == TRAINED
    loaded = nni_dynconv.load(tmp_path / "run")
    torch.testing.assert_close(loaded(image(), vector()), found.network(image(), vector()))


def test_a_plain_loop_may_train_from_the_weights_before_the_search():
    mutator = made(RandomSampler)
    initial = {name: one.clone() for name, one in mutator.space.state_dict().items()}
    with torch.no_grad():
        for one in mutator.space.parameters():
            one.add_(5.0)
    searched = {name: one.clone() for name, one in mutator.space.state_dict().items()}
    loader = evaluator(batches=1).train_dataloaders
    found = mutator.train_final(
        lambda network, batch: F.mse_loss(network(batch[0]), batch[1]),
        loader,
        optimizer=lambda network: torch.optim.SGD(network.parameters(), lr=0.0),
        epochs=1,
        sample=BEST,
        initial=initial,
    )
    assert found.start == "scratch" and found.best_epoch in (None, 0)
    mutator.space.load_state_dict(initial)
    expected = mutator.freeze(BEST).state_dict()
    assert all(torch.equal(one, expected[name]) for name, one in found.network.state_dict().items())
    assert any(not torch.equal(one, searched[name]) for name, one in initial.items())
