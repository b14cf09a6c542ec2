"""A step that brings no numbers, or raises, is named and left out; nothing of it stays in what is learned."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from often import by_default, each_once
from toy_task import ToySpace, evaluator

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from pytorch_lightning import Callback

from nni_dynconv import DartsSampler, DynamicWeightMutator, EnasSampler, GdasSampler, RandomSampler
from nni_dynconv.errors import CandidateError, ConfigError, NotFiniteError, ShapeError
from nni_dynconv.samplers import Sampler
from nni_dynconv.settings import TABLES, load_object

SAMPLERS = [load_object(part.dotted) for part in TABLES["sampler"].values()]
BAD = [float("nan"), float("inf"), -float("inf"), 1e39, -3.5e38]
FEW = {"contenders": 8, "rerank": 2, "rerank_steps": 2}


class NormedSpace(ToySpace):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)

    def forward(self, x):
        return self.norm(super().forward(x))


class Watch(Callback):
    """Keeps the state before each batch."""

    of_search = True

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        optimizers = [one.state_dict() for one in trainer.optimizers]
        self.state = copy.deepcopy((module.mutator.state_dict(), optimizers))
        self.number, self.epoch = batch_idx, trainer.current_epoch


class Broken:
    """Breaks the loss of a step: the given one of those that the evaluator's training step takes."""

    def __init__(self, task, number, value):
        self.step, self.number, self.value, self.count = task.module.training_step, number, value, 0
        task.module.training_step = self

    def __call__(self, batch, batch_idx):
        self.count += 1
        loss = self.step(batch, batch_idx)
        return loss * self.value if self.count == self.number else loss


def make(sampler, space=NormedSpace, epochs=1, batches=4):
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(space(), sampler=sampler(seed=0), base="learned")
    task, watch = evaluator(epochs, batches), Watch()
    task.trainer.callbacks.append(watch)
    task.trainer.num_sanity_val_steps = 0
    return mutator, task, watch


def search(mutator, task, **options):
    mutator.strategy(**{**FEW, **options}).mutate_evaluator(task).search(mutator.space)


def all_finite(mutator):
    tensors = [*mutator.state_dict().values()]
    return all(one.isfinite().all() for one in tensors if isinstance(one, torch.Tensor))


def same_learned(found, before):
    """Whether weights, sampler and statistics are the same; what is drawn next need not be."""
    return all(torch.equal(found[name], one) for name, one in before.items() if isinstance(one, torch.Tensor))


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("sampler", by_default(RandomSampler, GdasSampler, of=SAMPLERS))
def test_a_loss_that_is_no_number_stops_the_search_and_leaves_the_state_as_it_was(sampler, value):
    """One, and a GDAS search used to end well, with a network of no numbers; DARTS died in torch's words."""
    mutator, task, watch = make(sampler)
    steps = 1 if issubclass(sampler, RandomSampler) else 2
    Broken(task, 2 * steps + 1, value)  # the first of the third batch
    words = r"Step 2 of epoch 0.*: the loss of architecture \{'first': '.', 'last': '[a-z]*'\} is -?(nan|inf).*skip"
    with pytest.raises(NotFiniteError, match=words):
        search(mutator, task)
    assert watch.number == 2 and all_finite(mutator)
    assert same_learned(mutator.state_dict(), watch.state[0])
    now = [one.state_dict() for one in task.trainer.optimizers]
    torch.testing.assert_close([one["state"] for one in now], [one["state"] for one in watch.state[1]], rtol=0, atol=0)
    mutator.freeze(mutator.export())


@each_once(value=BAD, sampler=SAMPLERS, which=[0, 1])
def test_the_search_goes_on_without_such_a_step_where_it_is_told_so(sampler, value, which):
    mutator, task, _ = make(sampler)
    Broken(task, 3 + which, value)
    with pytest.warns(UserWarning, match=r"Left out \(1 of at most 100\): Step \d of epoch 0"):
        search(mutator, task, on_not_finite="skip")
    assert all_finite(mutator) and mutator.freeze(mutator.export())


class Endless(torch.autograd.Function):
    """The identity, whose gradient is no number, or too large."""

    @staticmethod
    def forward(context, x, value):
        context.value = value
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return torch.full_like(gradient, context.value), None


@each_once(
    sampler=[RandomSampler, DartsSampler, GdasSampler],
    option=["stop", "skip"],
    value=[float("nan"), float("inf"), 1e30],
)
def test_a_gradient_that_is_no_number_or_too_large_for_its_square_is_not_stepped_by(sampler, option, value):
    mutator, task, _ = make(sampler)
    step, count = task.module.training_step, [0]

    def broken(batch, batch_idx):
        count[0] += 1
        loss = step(batch, batch_idx)
        return Endless.apply(loss, value) if count[0] in (3, 4) else loss

    task.module.training_step = broken
    if option == "stop":
        with pytest.raises(NotFiniteError, match="is finite, but its gradient is not, or is too large .*: of `"):
            search(mutator, task)
    else:
        with pytest.warns(UserWarning, match="Left out"):
            search(mutator, task, on_not_finite="skip")
    assert all_finite(mutator)
    states = [state for one in task.trainer.optimizers for state in one.state_dict()["state"].values()]
    assert all(one.isfinite().all() for state in states for one in state.values())


def break_candidate(mutator, candidate, how):
    mutator.space.first[candidate].register_forward_hook(how)


def no_numbers(op, args, y):
    return y * float("nan")


def raising(op, args, y):
    raise ValueError("no such kernel")


@pytest.mark.parametrize("sampler", by_default(RandomSampler, GdasSampler, of=SAMPLERS))
def test_the_candidate_whose_output_is_no_number_is_named(sampler):
    mutator, task, _ = make(sampler)
    break_candidate(mutator, "3", no_numbers)
    with pytest.raises(NotFiniteError, match="not finite is that of candidate `3` of label `first`, module `first.3`"):
        search(mutator, task)


def test_a_parameter_that_is_no_number_is_named():
    mutator, task, _ = make(RandomSampler)
    with torch.no_grad():
        mutator.space.norm.weight.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="The parameter `norm.weight` holds numbers that are not finite"):
        search(mutator, task)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_candidate_that_raises_is_named(sampler):
    mutator, task, _ = make(sampler)
    break_candidate(mutator, "3", raising)
    words = (
        "epoch 0.*, architecture {'first': .*, candidate `3` of label `first`, module .*: ValueError: no such kernel"
    )
    with pytest.raises(CandidateError, match=words) as caught:
        search(mutator, task)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("sampler", [one for one in SAMPLERS if one is not DartsSampler])
def test_the_search_goes_on_without_a_candidate_that_raises_and_does_not_export_it(sampler):
    mutator, task, _ = make(sampler, epochs=2)
    break_candidate(mutator, "3", raising)
    with pytest.warns(UserWarning, match="Left out .*: .*candidate `3` of label `first`.*no such kernel") as said:
        search(mutator, task, on_error="skip", contenders=16, rerank=4)
    assert all_finite(mutator) and mutator.export()["first"] == "1"
    assert any("Ranked last: The end of the search, architecture {'first': '3'" in str(one.message) for one in said)
    assert "val_loss" in task.trainer.callback_metrics


class Refusing(torch.autograd.Function):
    """Fails in its backward only."""

    @staticmethod
    def forward(ctx, y):
        return y.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("no such gradient")


def raising_late(op, args, y):
    return Refusing.apply(y)


def changed_in_place(op, args, y):
    kept = y.exp()
    kept.add_(1)  # its backward needs what it was
    return kept


LATE = {"raises": (raising_late, "ValueError: no such gradient"), "in place": (changed_in_place, "inplace operation")}


@pytest.mark.parametrize(("late", "words"), LATE.values(), ids=LATE)
@pytest.mark.parametrize("sampler", by_default(RandomSampler, GdasSampler, of=SAMPLERS))
def test_a_candidate_whose_backward_raises_is_named(sampler, late, words):
    mutator, task, _ = make(sampler)
    break_candidate(mutator, "3", late)
    where = "architecture {'first': .*, in the backward of what is candidate `3` of label `first`, module"
    with pytest.raises(CandidateError, match=f"epoch 0.*, {where} .*: .*{words}"):
        search(mutator, task)


@pytest.mark.parametrize("sampler", [one for one in SAMPLERS if one is not DartsSampler])
def test_the_search_goes_on_without_a_candidate_whose_backward_raises(sampler):
    mutator, task, _ = make(sampler, epochs=2)
    break_candidate(mutator, "3", raising_late)
    with pytest.warns(UserWarning, match="Left out .*: .*backward .*candidate `3` of label `first`"):
        search(mutator, task, on_error="skip", contenders=16, rerank=4)
    assert all_finite(mutator) and mutator.export()["first"] == "1"


def test_a_candidate_without_numbers_is_not_exported_either():
    mutator, task, _ = make(EnasSampler, epochs=2)
    break_candidate(mutator, "3", no_numbers)
    with pytest.warns(UserWarning, match="Left out"):
        search(mutator, task, on_not_finite="skip", contenders=16, rerank=4)
    assert all_finite(mutator) and mutator.export()["first"] == "1"


def test_our_own_errors_keep_their_class_and_name_the_architecture():
    mutator, task, _ = make(RandomSampler)

    def misfit(op, args, y):
        raise ShapeError("`conv2d`: axis `Cin` is 3.")

    break_candidate(mutator, "1", misfit)
    break_candidate(mutator, "3", misfit)
    with pytest.raises(ShapeError, match=r"axis `Cin` is 3.\n\(Step . of epoch 0, architecture {.*candidate `[13]`"):
        search(mutator, task)


def test_an_error_of_the_evaluators_own_is_left_as_it_is():
    mutator, task, _ = make(RandomSampler)

    def training_step(batch, batch_idx):
        raise KeyError("colour")

    task.module.training_step = training_step
    with pytest.raises(KeyError, match="colour"):
        search(mutator, task)


@pytest.mark.parametrize("option", ["on_error", "on_not_finite"])
def test_too_many_steps_that_are_left_out_end_the_search(option):
    mutator, task, _ = make(RandomSampler)
    for candidate in "13":
        break_candidate(mutator, candidate, raising if option == "on_error" else no_numbers)
    with (
        pytest.warns(UserWarning, match="2 of at most 2"),
        pytest.raises(
            NotFiniteError, match="3 steps of this search could not be taken, more than `skip_limit=2` allows"
        ),
    ):
        search(mutator, task, skip_limit=2, **{option: "skip"})
    assert all_finite(mutator)


def test_the_options_are_checked_where_they_are_given():
    mutator, *_ = make(RandomSampler)
    with pytest.raises(ConfigError, match="`on_not_finite` in `DynamicStrategy` is 'go on'.*one of 'stop', 'skip'"):
        mutator.strategy(on_not_finite="go on")
    with pytest.raises(ConfigError, match="`on_error` in `DynamicStrategy` is True"):
        mutator.strategy(on_error=True)
    with pytest.raises(ConfigError, match="`skip_limit` in `DynamicStrategy` is -1"):
        mutator.strategy(skip_limit=-1)


def test_weights_that_the_last_step_left_without_numbers_are_not_exported():
    mutator, task, _ = make(RandomSampler, batches=1)
    task.module.configure_optimizers = lambda: torch.optim.SGD(task.module.parameters(), lr=3e38)
    with pytest.raises(NotFiniteError, match="At the end of the search the parameter `.*` is not finite"):
        search(mutator, task, on_not_finite="skip")


@pytest.mark.parametrize("sampler", [GdasSampler, DartsSampler])
def test_a_plain_loop_whose_loss_is_no_number_leaves_the_sampler_as_it_was(sampler):
    """The logits were no numbers for good, and the next draw died in torch's words."""
    mutator, *_ = make(sampler)
    optimizer = torch.optim.Adam(mutator.sampler.parameters())
    for value in BAD:
        mutator.reset()
        loss = F.mse_loss(mutator(torch.rand(2, 1, 8, 8)), torch.rand(2, 1, 8, 8)) * value
        with pytest.raises(NotFiniteError, match="The gradient of label `(first|last)` of .*Sampler is "):
            loss.backward()
        optimizer.zero_grad()
        mutator.reset()
    assert all_finite(mutator)


def test_any_sampler_that_learns_by_gradient_is_watched():
    class Own(GdasSampler):
        def prepare(self):
            super().prepare()
            self.bias = torch.nn.Parameter(torch.zeros(()))

        def described(self):
            return Sampler.described(self)

        def relaxed(self, label):
            factors = super().relaxed(label)
            return None if factors is None else factors * (1 + self.bias)

    mutator, *_ = make(Own)
    mutator.reset()
    with pytest.raises(NotFiniteError, match="The gradient of `(bias|alphas..)` of Own is"):
        (mutator(torch.rand(2, 1, 8, 8)).sum() * float("nan")).backward()


def test_an_experiment_of_nnis_stops_with_the_same_words_and_says_how_many_it_left_out(capsys):
    from nni.nas.experiment import NasExperiment

    mutator, task, _ = make(GdasSampler)
    Broken(task, 3, float("nan"))
    with pytest.raises(NotFiniteError, match="Step 1 of epoch 0.*is nan"):
        NasExperiment(mutator.space, task, mutator.strategy(**FEW)).run()
    mutator, task, _ = make(GdasSampler)
    Broken(task, 3, float("nan"))
    with pytest.warns(UserWarning, match="Left out"):
        NasExperiment(mutator.space, task, mutator.strategy(**FEW, on_not_finite="skip", final_epochs=0)).run()
    assert "1 steps of the search were left out." in capsys.readouterr().out


def test_a_step_that_returns_no_loss_among_others_says_so():
    mutator, task, _ = make(RandomSampler)
    step = task.module.training_step
    task.module.training_step = lambda batch, batch_idx: {"value": step(batch, batch_idx)}
    with pytest.raises(ConfigError, match=r"`training_step` returned \['value'\], but no `loss` among them"):
        search(mutator, task)
