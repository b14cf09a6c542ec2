"""Search scripts of NNI 2.x: which of their lines change, and that they learn then."""

from __future__ import annotations

import difflib
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

from nni_dynconv import DynamicConv2d, VectorContext
from nni_dynconv.errors import SpaceError
from nni_dynconv.lifting.nni2 import DartsMutator, EnasMutator
from nni_dynconv.samplers import check_sample

HERE = Path(__file__).parent
SCRIPTS = ["darts", "enas"]
MAY_CHANGE = re.compile(r"(from|import) |class \w+\((nn\.Module|ModelSpace)\):|.*\b(key|label)=|    mutator = ")


def difference(script):
    """Give the lines that go and those that come, without the empty ones: ``- old``, ``+ new``."""
    folder = HERE / "migration"
    before = (folder / f"{script}_before.txt").read_text(encoding="utf-8").splitlines()
    after = (folder / f"{script}_after.py").read_text(encoding="utf-8").splitlines()
    lines = [line for line in difflib.ndiff(before, after) if line[0] in "+-" and line[2:].strip()]
    assert lines
    return lines


@pytest.mark.parametrize("script", SCRIPTS)
def test_only_imports_the_base_class_the_choices_labels_and_the_mutator_line_change(script):
    assert [line for line in difference(script) if not MAY_CHANGE.match(line[2:])] == []


def test_what_the_guide_lists_is_what_changes():
    guide = (HERE.parents[1] / "docs" / "existing.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```diff\n(.*?)```", guide, re.DOTALL)
    assert sorted(block.splitlines()) == sorted(difference("darts"))


@pytest.mark.parametrize(("script", "epochs"), [("darts", 5), pytest.param("enas", 12, marks=pytest.mark.whole)])
def test_the_script_runs_learns_and_exports_then(script, epochs):
    spec = importlib.util.spec_from_file_location(f"{script}_after", HERE / "migration" / f"{script}_after.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    losses, mutator = module.main(epochs)
    assert losses[-1] < 0.85 * losses[0]
    best = mutator.export()
    check_sample(best, mutator.dynamic.choices)
    assert mutator.dynamic.plan({"first": 0, "second": 0, "skip": [0]}).num_generated > 0
    assert mutator.freeze(best)(torch.rand(2, 1, 8, 8)).shape == (2, 10)


class Net(ModelSpace):
    """As a user of NNI 2.x has it, with the new base class."""

    def __init__(self, conv=nn.Conv2d):
        super().__init__()
        self.op = LayerChoice([conv(1, 2, 3, padding=1), conv(1, 2, 5, padding=2), conv(1, 2, 1)], label="op")

    def forward(self, x):
        return self.op(x)


@pytest.mark.parametrize("make", [DartsMutator, EnasMutator])
def test_a_mutators_parameters_are_the_architectures_alone(make):
    """An optimizer over `mutator.parameters()` used to be the architecture's; it must not train weights too."""
    model = Net()
    mutator = make(model, seed=0)
    mutator.reset()
    model(torch.rand(1, 1, 6, 6)).sum().backward()
    own = {id(one) for one in mutator.parameters()}
    assert own == {id(one) for one in mutator.sampler.parameters()}
    assert own.isdisjoint(id(one) for one in model.parameters())
    assert all(name.startswith("sampler.") for name in mutator.state_dict())


def test_a_model_with_dynamic_ops_keeps_them_and_takes_a_context():
    model = Net(DynamicConv2d)
    mutator = DartsMutator(model, context=VectorContext(3, dim=4), base="learned")
    mutator.reset()
    assert model((torch.rand(2, 1, 6, 6), torch.rand(2, 3))).shape == (2, 2, 6, 6)
    assert set(mutator.dynamic.source.sites) == {"op/0", "op/1", "op/2"}


def test_the_loops_own_policy_gradient_moves_towards_reward():
    """The name `sample_log_prob` meant cross entropy: taken for `log p`, the same loop would avoid reward."""
    mutator = EnasMutator(Net(), seed=0)
    optimizer = torch.optim.Adam(mutator.parameters(), lr=0.01)
    baseline = 0.0
    for _ in range(150):
        reward = float(mutator.reset()["op"] == 1)
        baseline = 0.9 * baseline + 0.1 * reward
        loss = mutator.sample_log_prob * (reward - baseline) + 0.0 * mutator.sample_skip_penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert mutator.status()["probabilities"]["op"]["1"] > 0.6
    assert mutator.sample_log_prob.item() == pytest.approx(-mutator.status()["log_prob"])
    assert mutator.sample_entropy.item() == pytest.approx(mutator.status()["entropy"])
    assert not mutator.sample_entropy.requires_grad


def test_a_model_without_the_new_base_class_is_told_what_to_write():
    with pytest.raises(SpaceError, match=r"Sequential is no `ModelSpace`.*`class Sequential\(ModelSpace\)`.*`label=`"):
        DartsMutator(nn.Sequential(nn.Conv2d(1, 1, 1)))
