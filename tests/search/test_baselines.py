"""What a search was worth: the rivals, the batches that measure, the table."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from searches import QUIET, Quiet, made, run, task
from spaces import CHANNELS, Everything, OneChoice, image, vector
from toy_task import ToySpace, evaluator

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

import nni_dynconv
from nni_dynconv import DynamicConv2d, DynamicWeightMutator, RandomSampler, VectorContext, export
from nni_dynconv.errors import ConfigError
from nni_dynconv.runs import Run
from nni_dynconv.search import Goal, Trained, compare, initial_of, static_twin
from nni_dynconv.search.baselines import Comparison, Entry, ShuffledContexts, StaticTwin
from nni_dynconv.search.baselines.table import FOUND, RANDOM, SHUFFLED, TWIN, WENT_ON

pytestmark = pytest.mark.usefixtures("own_nni_folders")


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Rivals


@pytest.mark.parametrize("space", [OneChoice, Everything])
@pytest.mark.parametrize("base", ["none", "learned"])
def test_a_static_twin_has_the_structure_and_no_controller(space, base):
    mutator = DynamicWeightMutator(space(), sampler=RandomSampler(0), context=VectorContext(5, dim=4), base=base)
    network = mutator.freeze({"op": "5x5"} if space is OneChoice else mutator.reset()).eval()
    before = {name: one.clone() for name, one in network.state_dict().items()}
    twin = static_twin(network)
    assert twin.source.controller is None and twin.source.encoder is None
    assert twin.source.bases.state_dict().keys() and list(twin.source.sites) == list(network.source.sites)
    learned = sum(one.numel() for one in twin.source.bases.parameters())
    assert learned == sum(site.num_generated for site in network.source.sites.values())
    assert twin(image()).shape == network(image(), vector()).shape
    for call in (lambda net: net((image(), vector())), lambda net: net(image(), context=vector())):
        assert call(StaticTwin(network)).shape == network(image(), vector()).shape
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


def test_a_static_twin_computes_what_torchs_layers_do_with_its_weights():
    class One(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = LayerChoice(
                {"a": DynamicConv2d(1, CHANNELS, 3, padding=1), "b": torch.nn.Conv2d(1, CHANNELS, 1)}, label="op"
            )

        def forward(self, x):
            return self.op(x)

    twin = static_twin(DynamicWeightMutator(One(), sampler=RandomSampler(0)).freeze({"op": "a"}))
    (weight,) = (one for name, one in twin.named_parameters() if name.endswith("weight"))
    (bias,) = (one for name, one in twin.named_parameters() if name.endswith("bias"))
    torch.testing.assert_close(twin(image()), F.conv2d(image(), weight, bias, padding=1))


def test_a_static_twin_is_saved_and_loaded(tmp_path):
    mutator = DynamicWeightMutator(OneChoice(), sampler=RandomSampler(0), context=VectorContext(5, dim=4))
    twin = static_twin(mutator.freeze({"op": "3x3"})).eval()
    export.save(twin, tmp_path, example=image())
    torch.testing.assert_close(nni_dynconv.load(tmp_path)(image()), twin(image()))


def test_shuffled_contexts_are_those_of_the_same_batch():
    mutator = DynamicWeightMutator(OneChoice(), sampler=RandomSampler(0), context=VectorContext(5, dim=4))
    network = mutator.freeze({"op": "3x3"}).eval()
    x, c = image(1).expand(8, -1, -1, -1), vector(8)
    own = network(x, c)
    shuffled = ShuffledContexts(network, seed=0)
    results = [shuffled((x, c)), shuffled(x, context=c)]
    for result in results:
        assert not torch.allclose(result, own)
        places = [int((own - one).flatten(1).abs().amax(1).argmin()) for one in result]
        assert sorted(places) == list(range(8))
        torch.testing.assert_close(result, own[places])
    assert not torch.allclose(*results)


# Which batches measure


class WithTestStep(Quiet):
    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_loss", F.mse_loss(self(x), y) + 100)


def compared(given, mutator=None, **options):
    mutator = mutator or made()
    initial = initial_of(mutator)
    network = mutator.freeze({"first": "3", "last": "static"}).eval()
    found = Trained(network, "generated", 1, "val_loss", 0.0)
    return compare(mutator, given, found, initial, **{"random": 2, "epochs": 1, **options})


def test_without_test_batches_the_table_says_that_it_flatters():
    found = compared(task(epochs=1))
    assert found.measured_on == "validation" and found.metrics == ["val_loss"]
    assert "No test batches" in str(found) and "chose architecture and epoch" in str(found)


@pytest.mark.parametrize("module", [Quiet, WithTestStep])
def test_test_batches_measure_by_the_test_step_or_else_by_the_validations(module):
    given = task(module(), 1)
    given.test_dataloaders = evaluator(batches=4).val_dataloaders
    found = compared(given)
    assert found.measured_on == "test" and "No test batches" not in str(found)
    (metric,) = found.metrics
    assert metric == ("test_loss" if module is WithTestStep else "val_loss")
    assert all((one.metrics[metric] > 100) == (module is WithTestStep) for one in found.entries)


def test_several_test_loaders_have_a_column_each():
    class Several(Quiet):
        def test_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.log("test_loss", F.mse_loss(self(x), y) + dataloader_idx)

    given = task(Several(), 1)
    given.test_dataloaders = [evaluator(batches=1).val_dataloaders] * 2
    found = compared(given, random=0)
    assert found.metrics == ["test_loss/dataloader_idx_0", "test_loss/dataloader_idx_1"]


def test_a_metric_that_the_test_step_does_not_log_is_told():
    class Other(Quiet):
        def test_step(self, batch, batch_idx):
            self.log("test_error", 1.0)

    given = task(Other(), 1)
    given.test_dataloaders = evaluator(batches=4).val_dataloaders
    with pytest.raises(
        ConfigError, match=r"compared by `val_loss`, but on test batches the evaluator logs \['test_error'\]"
    ):
        compared(given)


# All alike


def test_every_rival_takes_the_same_steps_on_the_same_data():
    steps, data = {}, {}

    class Counting(Quiet):
        def training_step(self, batch, batch_idx):
            steps[id(self.model)] = steps.get(id(self.model), 0) + 1
            data.setdefault(id(self.model), []).append(float(batch[0].sum()))
            kept.append(self.model)
            return super().training_step(batch, batch_idx)

    kept = []
    x = torch.rand(32, 1, 8, 8)
    pairs = list(zip(x, x, strict=True))
    loaders = {
        f"{name}_dataloaders": DataLoader(pairs, batch_size=8, shuffle=name == "train") for name in ("train", "val")
    }
    given = Lightning(Counting(), Trainer(max_epochs=1, accelerator="cpu", **QUIET), **loaders)
    found = compared(given, epochs=3)
    assert [one.kind for one in found.entries] == [WENT_ON, FOUND, TWIN, RANDOM, RANDOM]
    assert sorted(steps.values()) == [1, 13, 13, 13, 13]  # one of them counts the multiply-adds
    orders = [one[:12] for one in data.values() if len(one) >= 12]
    assert len(orders) == 4 and all(one == orders[0] for one in orders)


def test_random_architectures_are_distinct_and_none_of_them_is_what_was_found():
    found = compared(task(epochs=1), random=9)
    others = [one.architecture for one in found.of(RANDOM)]
    assert len(others) == 3 and {"first": "3", "last": "static"} not in others
    assert len({tuple(one.items()) for one in others}) == 3
    assert "Left out: 6 of 9 random architectures: there are none." in str(found)


def test_without_a_context_nothing_can_be_shuffled_and_it_is_said():
    assert "Left out: shuffled contexts" in str(compared(task(epochs=1), random=0))


def test_the_mutator_stays_as_it_was():
    mutator = made()
    with torch.no_grad():
        for one in mutator.space.parameters():
            one.add_(1.0)
    before = {name: one.clone() for name, one in mutator.space.state_dict().items()}
    compared(task(epochs=1), mutator)
    assert all(torch.equal(one, before[name]) for name, one in mutator.space.state_dict().items())


# The table


def entry(kind, value, **more):
    return Entry(kind, more.get("architecture", {"op": "a"}), {"val_acc": value}, 1000, 20, 1.5, 3)


def test_gains_are_against_what_was_found_and_trained_from_scratch():
    entries = [entry(WENT_ON, 0.99), entry(FOUND, 0.9), entry(TWIN, 0.7), entry(RANDOM, 0.8), entry(RANDOM, 0.88)]
    best = Comparison(entries, ["val_acc"], "max", "test")
    assert best.gain(TWIN, "val_acc") == pytest.approx(0.2)
    assert best.gain(RANDOM, "val_acc") == pytest.approx(0.06)
    assert best.gain(SHUFFLED, "val_acc") is None
    assert "The search itself, against the mean of 2 random architectures: better by 0.0600 val_acc" in str(best)
    worst = Comparison(entries, ["val_acc"], "min", "test")
    assert worst.gain(TWIN, "val_acc") == pytest.approx(-0.2) and "WORSE by 0.2000 val_acc" in str(worst)


def test_the_table_is_written_as_data_and_to_read(tmp_path):
    run = Run(tmp_path)
    run.begin()
    Comparison([entry(WENT_ON, float("nan")), entry(FOUND, 0.5)], ["val_acc"], "max", "test").write(run)
    data = json.loads(run.table.read_text())
    assert data["entries"][0]["metrics"]["val_acc"] is None and data["entries"][1]["parameters"] == 20
    assert data["worth"]["random"]["val_acc"] is None
    assert "what was found, from scratch" in (tmp_path / "baselines.txt").read_text()


@pytest.mark.whole
def test_a_strategy_compares_in_the_end_and_writes_the_table_and_the_twin(tmp_path, capsys):
    strategy = run(made(), folder=tmp_path / "run", baselines={"random": 1}, final_epochs=1)
    assert "The search itself, against the mean of 1 random" in capsys.readouterr().out
    found = Run.read(tmp_path / "run")
    assert json.loads(found.table.read_text())["entries"][0]["kind"] == WENT_ON
    assert strategy.comparison.entries[0].metrics["val_loss"] == pytest.approx(strategy.trained.result)
    assert nni_dynconv.load(found.folder / "static_twin").architecture == strategy.network.architecture


def test_a_failing_comparison_leaves_the_network_and_is_noted(tmp_path, monkeypatch):
    from nni_dynconv.search.closing import searching

    def fails(*args):
        raise ValueError("no space left")

    monkeypatch.setattr(searching, "compare_with", fails)
    strategy = run(made(), folder=tmp_path / "run", baselines={}, final_epochs=1)
    assert Run.read(tmp_path / "run").problems == {"baselines": "ValueError: no space left"}
    assert nni_dynconv.load(tmp_path / "run").architecture == strategy.network.architecture


def test_an_unknown_setting_of_baselines_is_refused():
    with pytest.raises(ConfigError, match="Unknown key `randoms` in `baselines`.*Did you mean `random`"):
        made().strategy(baselines={"randoms": 3})
    with pytest.raises(ConfigError, match="`random` in `baselines`.*is -1, but must be 0 or more"):
        DynamicWeightMutator(ToySpace()).strategy(baselines={"random": -1})


def test_a_goal_says_which_way_is_better():
    assert Goal("val_acc", "max").better(0.9, 0.8) and Goal("val_loss", "min").better(0.1, 0.2)
