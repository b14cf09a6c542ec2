"""Each mend of `compat.py` against what NNI does without it."""

from __future__ import annotations

import importlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from spaces import CHANNELS, conv, image, vector

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
import torch
from nni.mutable import ExpressionConstraint
from nni.mutable.exception import ConstraintViolation, SampleMissingError
from nni.nas.evaluator.pytorch import Classification, Lightning
from nni.nas.evaluator.pytorch import DataLoader as NniDataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableModule
from nni.nas.oneshot.pytorch.sampling import EnasLightningModule
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from nni.nas.oneshot.pytorch.supermodule import proxyless as proxyless_module
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS, ENAS, GridSearch, Proxyless, Random, RandomOneShot, RegularizedEvolution
from nni.nas.utils.serializer import TorchSerializer
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from nni_dynconv import DynamicConv2d, DynamicWeightMutator, VectorContext
from nni_dynconv.errors import ScopeError, SpaceError
from nni_dynconv.sites import scope

RESUMED = """
import sys
from nni.runtime import msg_dispatcher
from nni.runtime.msg_dispatcher import MsgDispatcher
from nni_dynconv.nni_host.compat import mend_resume

class Tuner:
    got = []
    def import_data(self, data):
        self.got += data

class Bare(MsgDispatcher):
    def __init__(self):
        self.recovered_max_param_id, self.recovered_trial_params = -1, {}
        self.tuner, self.assessor = Tuner(), None

if "mended" in sys.argv:
    mend_resume()
    mend_resume()
dispatcher = Bare()
final = {"type": "FINAL", "value": '{"default": 1.0, "proposal": 2}'}
dispatcher.handle_report_metric_data({"parameter_id": 2, **final})  # an interrupted trial ended before all was loaded
print(len(Tuner.got))
dispatcher.handle_add_customized_trial([])
dispatcher.handle_report_metric_data({"parameter_id": 0, **final})  # the first trial of this run
print(len(Tuner.got))
"""


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


@pytest.mark.whole
def test_without_the_mend_a_resumed_dispatcher_drops_a_result_and_dies():
    done = run(RESUMED)
    assert done.stdout.splitlines()[-1] == "0" and "KeyError: 0" in done.stderr


def test_with_the_mend_every_result_reaches_the_tuner():
    done = run(RESUMED, "mended")
    assert done.returncode == 0 and done.stdout.splitlines()[-2:] == ["1", "2"], done.stderr


ORDER = "import nni.nas.oneshot.pytorch.strategy; from nni.nas.strategy import DARTS; print(DARTS.__name__)"


@pytest.mark.whole
@pytest.mark.parametrize(
    ("before", "name"),
    [
        pytest.param("", "ImportFailedStrategy", marks=pytest.mark.slow),
        ("import nni_dynconv.nni_host.nas; ", "DARTS"),
    ],
)
def test_nnis_strategies_are_there_in_the_right_order_of_imports_only(before, name):
    assert name in run(before + ORDER).stdout.splitlines()


@pytest.mark.whole
def test_importing_nni_nas_through_the_package_is_quiet():
    noisy, quiet = (run(f"import {name}").stderr for name in ("nni.nas.nn.pytorch", "nni_dynconv.nni_host.nas"))
    assert "is found to be not a nn.Module" in noisy and "is found to be not a nn.Module" not in quiet
    assert "Gym has been unmaintained" not in quiet


# What follows is mended where `nni_dynconv.nni_host.nas` is imported, as it is here; NNI's own is what a mend wraps.


def without_the_mend(monkeypatch, cls, name):
    monkeypatch.setattr(cls, name, getattr(cls, name).__wrapped__)


class Unbiased(ModelSpace):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([MutableConv2d(1, 2, 3, bias=False), MutableConv2d(1, 2, 3)], label="op")


def test_operations_without_a_bias_freeze_with_their_weights(monkeypatch):
    space = RandomOneShot().mutate_model(Unbiased())
    for choice in (0, 1):
        torch.testing.assert_close(space.freeze({"op": choice}).op.state_dict(), space.op[choice].state_dict())
    without_the_mend(monkeypatch, MixedOperation, "freeze")
    space.freeze({"op": 1})
    with pytest.raises(RuntimeError, match="Unexpected key.s. in state_dict: .bias"):
        space.freeze({"op": 0})


@pytest.mark.parametrize("strategy", [Random, GridSearch, RegularizedEvolution])
def test_the_state_of_a_strategy_is_read_back(strategy, monkeypatch, tmp_path):
    state = strategy().state_dict()
    TorchSerializer().save(state, tmp_path / "state")
    assert TorchSerializer().load(tmp_path / "state").keys() == state.keys()
    if torch.__version__ < "2.6":
        pytest.skip("torch.load still takes any object")
    without_the_mend(monkeypatch, TorchSerializer, "load")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        TorchSerializer().load(tmp_path / "state")


QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class Steps(LightningModule):
    """Gives each batch to NNI's own step of ENAS, and notes what comes of it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.took = []

    def training_step(self, batch, batch_idx):
        return EnasLightningModule.training_step(Around(self.took), batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Around:
    """The parts of ENAS that its step uses; only which step a batch goes to matters."""

    warmup_epochs, penalty, log_prob_every_n_step, batches_per_update, _trajectory_counter = 0, None, 100, 100, 0

    def __init__(self, took):
        self.training_module = self.policy = self.generator = self._replay_buffer = self.trainer = self
        self.callback_metrics = {"reward": torch.tensor(1.0)}
        self.took = took

    def training_step(self, batch, batch_idx):
        self.took.append(("weights", len(batch)))

    def validation_step(self, batch, batch_idx):
        self.took.append(("policy", len(batch)))

    def __getattr__(self, name):
        return lambda *arguments: None


def steps_of_enas(parts):
    data = TensorDataset(*(torch.zeros(4, 2) for _ in range(parts)))
    loader = ENAS().train_dataloader(lambda: DataLoader(data, 2), lambda: DataLoader(data, 4))
    module = Steps()
    Trainer(max_epochs=1, accelerator="cpu", **QUIET).fit(module, loader)
    return module.took


@pytest.mark.filterwarnings("ignore")
def test_each_batch_of_enas_trains_what_its_loader_is_for(monkeypatch):
    assert steps_of_enas(3) == [("weights", 3), ("weights", 3), ("policy", 3)]
    without_the_mend(monkeypatch, ENAS, "train_dataloader")
    assert steps_of_enas(2) == [("policy", 2), ("policy", 2), ("policy", 4)]  # of inputs: labels were taken for names
    with pytest.raises(ValueError, match="too many values to unpack"):
        steps_of_enas(4)


def evaluator():
    data = TensorDataset(torch.zeros(4, 1, 3, 3), torch.zeros(4, dtype=torch.long))
    loaders = {"train_dataloaders": NniDataLoader(data, 2), "val_dataloaders": NniDataLoader(data, 2)}
    return Classification(num_classes=2, max_epochs=1, accelerator="cpu", **loaders, **QUIET)


class Flat(Unbiased):
    def forward(self, x):
        return self.op(x).flatten(1)


def models_of(strategy):
    strategy(RawFormatModelSpace(Flat(), evaluator()), SequentialExecutionEngine())
    return [(model.sample["op"], model.metric is not None) for model in strategy.list_models(limit=None)]


@pytest.mark.filterwarnings("ignore")
def test_one_process_trains_several_models_with_one_evaluator(monkeypatch):
    assert sorted(models_of(GridSearch())) == [(0, True), (1, True)]
    without_the_mend(monkeypatch, Lightning.__wrapped__, "evaluate")
    with pytest.raises(KeyError, match="val_acc"):
        models_of(GridSearch())


@pytest.mark.filterwarnings("ignore")
def test_each_model_of_a_grid_has_its_own_sample(monkeypatch):
    without_the_mend(monkeypatch, RawFormatModelSpace, "freeze")
    with pytest.raises(SampleMissingError, match="Label op is missing from sample"):
        models_of(GridSearch())


# Constraints


class Constrained(ModelSpace):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.Identity(), nn.ReLU()], label="op")
        self.add_mutable(ExpressionConstraint(self.op.choice < 1, label="size"))


class Linked(Constrained):
    def __init__(self):
        super().__init__()
        self.inner = Holder(self.op.choice)


class Holder(MutableModule):
    """Has nothing inside that is chosen."""

    def __init__(self, choice):
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.add_mutable(ExpressionConstraint(choice < 2, label="inner"))


def test_a_module_that_registers_only_constraints_freezes_with_its_weights(monkeypatch):
    space = Linked()
    frozen = space.freeze({"op": 0})
    assert isinstance(frozen.op, nn.Identity) and not frozen.simplify() and space.simplify()
    assert frozen.inner is not space.inner and torch.equal(frozen.inner.linear.weight, space.inner.linear.weight)
    with pytest.raises(ConstraintViolation):
        space.freeze({"op": 1})
    without_the_mend(monkeypatch, MutableModule, "freeze")
    with pytest.raises(NotImplementedError, match="freeze.. must be implemented"):
        space.freeze({"op": 0})


# Half a mutation


class Refused(ModelSpace):
    """The second module is one that NNI's strategies refuse; the first has been replaced by then."""

    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.Identity(), nn.ReLU()], label="op")
        self.norm = MutableBatchNorm2d(nni.choice("width", [2, 4]), momentum=nni.choice("momentum", [0.1, 0.2]))


def test_a_space_that_is_refused_stays_as_it_was(monkeypatch):
    space = Refused()
    before = dict(space.named_modules())
    with pytest.raises(TypeError, match="dangling mutables"):
        DARTS(mutation_hooks=[refuse_norms]).mutate_model(space)
    after = dict(space.named_modules())
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
    DARTS().mutate_model(space)
    without_the_mend(monkeypatch, OneShotStrategy, "mutate_model")
    space = Refused()
    with pytest.raises(TypeError, match="dangling mutables"):
        DARTS(mutation_hooks=[refuse_norms]).mutate_model(space)
    assert type(space.op) is not LayerChoice


def refuse_norms(module, name, memo, mutate_kwargs):
    if isinstance(module, MutableBatchNorm2d):
        raise TypeError("dangling mutables")


# Proxyless


class Planted(ModelSpace):
    """A stem, a choice among dynamic convolutions and a skip, and what is summed as its loss."""

    def __init__(self):
        super().__init__()
        self.stem = DynamicConv2d(1, CHANNELS, 1)
        self.op = LayerChoice([conv(3), conv(5), nn.Identity()], label="op")

    def forward(self, x):
        return self.op(self.stem(x))


class Codes(VectorContext):
    """Counts how often contexts are encoded."""

    calls = 0

    def forward(self, context):
        self.calls += 1
        return super().forward(context)


def proxyless(context=True):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Planted(), sampler=False, context=Codes(5, 8) if context else None)
    Proxyless().mutate_model(mutator.space)
    if context:
        mutator.context.eval()  # its statistics stand still, so that one forward can be compared with another
    return mutator, mutator.space.op


def by_hand(mutator, layer, x, c, weight):
    """The gradient of `(weight * y).sum()` for the logits: `sum_k dL/dg_k p_k (delta_ik - p_i)`."""
    with torch.no_grad(), mutator.using({"op": 0}, context=c):
        stem = mutator.space.stem(x)
        gates = torch.stack([(layer[name](stem) * weight).sum() for name in layer.names])
        share = layer._arch_alpha.softmax(-1)
    return share * (gates - (gates * share).sum())


def draw(layer, number):
    layer._sample_idx, layer._sampled = number, number


@pytest.mark.parametrize("number", [0, 1, 2])
def test_proxyless_learns_by_candidates_that_only_its_backward_runs(number):
    mutator, layer = proxyless()
    draw(layer, number)
    x, c, weight = image(), vector(), torch.randn(3, CHANNELS, 6, 6)
    (mutator(x, context=c) * weight).sum().backward()
    assert mutator.context.calls == 1
    torch.testing.assert_close(layer._arch_alpha.grad, by_hand(mutator, layer, x, c, weight))


def test_proxyless_runs_no_candidate_with_the_context_of_an_older_step():
    mutator, layer = proxyless()
    weight = torch.randn(3, CHANNELS, 6, 6)
    for step in range(3):  # each candidate is drawn once, and was seen with another context before
        draw(layer, step)
        mutator.zero_grad()
        x, c = image(seed=step), vector(seed=step)
        (mutator(x, context=c) * weight).sum().backward()
        torch.testing.assert_close(layer._arch_alpha.grad, by_hand(mutator, layer, x, c, weight))


def test_two_forwards_of_proxyless_before_one_backward_keep_their_own_contexts():
    mutator, layer = proxyless()
    weight, total, expected = torch.randn(3, CHANNELS, 6, 6), 0, 0
    for step in range(2):
        draw(layer, step)
        x, c = image(seed=step), vector(seed=step)
        total = total + (mutator(x, context=c) * weight).sum()
        expected = expected + by_hand(mutator, layer, x, c, weight)
    total.backward()
    torch.testing.assert_close(layer._arch_alpha.grad, expected)


def test_proxyless_keeps_contexts_that_samples_share():
    mutator, layer = proxyless()
    draw(layer, 0)
    x, c, index, weight = image(4), vector(2), torch.tensor([1, 0, 1, 1]), torch.randn(4, CHANNELS, 6, 6)
    (mutator(x, context=c, index=index) * weight).sum().backward()
    torch.testing.assert_close(layer._arch_alpha.grad, by_hand(mutator, layer, x, c[index], weight))


@pytest.mark.parametrize("reentrant", [True, False])
def test_proxyless_inside_activation_checkpointing_gives_the_same_gradient(reentrant):
    mutator, layer = proxyless()
    draw(layer, 1)
    forward = layer.forward
    layer.forward = lambda x: checkpoint(forward, x, use_reentrant=reentrant)
    x, c, weight = image(), vector(), torch.randn(3, CHANNELS, 6, 6)
    (mutator(x, context=c) * weight).sum().backward()
    del layer.forward
    torch.testing.assert_close(layer._arch_alpha.grad, by_hand(mutator, layer, x, c, weight))


def test_a_candidate_that_fails_in_the_backward_of_proxyless_leaves_no_scope_open():
    mutator, layer = proxyless()
    draw(layer, 2)
    y = mutator(image(), context=vector())
    layer[0].forward = lambda x: scope.current().weights("nowhere")
    with pytest.raises(ScopeError, match="Site `nowhere` is none of"):
        y.sum().backward()
    assert scope.current() is None


def test_without_the_mend_proxyless_finds_no_weights_in_its_backward(monkeypatch):
    without_the_mend(monkeypatch, proxyless_module._ProxylessFunction, "forward")
    mutator, layer = proxyless()
    draw(layer, 2)
    y = mutator(image(), context=vector())
    with pytest.raises(ScopeError, match="has no weights"):
        y.sum().backward()


@pytest.mark.parametrize("name", ["a.b", "../../x", "", "forward"])
def test_a_name_that_no_candidate_can_have_is_told(name):
    class Space(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = LayerChoice({"fine": nn.Identity(), name: nn.Identity()}, label="op")

    with pytest.raises(SpaceError, match=rf"candidate `{re.escape(name)}` of the LayerChoice `op` cannot be called so"):
        Space()


def test_without_the_mend_a_name_with_a_dot_dies_of_torchs_words(monkeypatch):
    without_the_mend(monkeypatch, LayerChoice, "__init__")
    with pytest.raises(KeyError, match="module name can"):
        LayerChoice({"a.b": nn.Identity()})


def test_nnictl_needs_pkg_resources_which_the_package_asks_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    monkeypatch.delitem(sys.modules, "nni.tools.nnictl.nnictl", raising=False)
    with pytest.raises(ImportError, match="pkg_resources"):
        importlib.import_module("nni.tools.nnictl.nnictl")
    assert "setuptools<81" in (Path(__file__).parents[2] / "setup.cfg").read_text(encoding="utf-8")
