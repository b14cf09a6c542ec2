"""The mutator: chooses, makes weights for what runs, freezes, and says what is wrong."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import Mutator
from spaces import (
    CHANNELS,
    CellSpace,
    Everything,
    OneChoice,
    PlainCellSpace,
    WidthSpace,
    conv,
    differing_in_threads,
    image,
    vector,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from nni_dynconv import (
    ArchitectureEncoder,
    ChunkedController,
    DartsSampler,
    DynamicConv2d,
    DynamicWeightMutator,
    EnasSampler,
    GdasSampler,
    OwnInputContext,
    RandomSampler,
    VectorContext,
)
from nni_dynconv.errors import ConfigError, ContextError, SampleError, ScopeError, SpaceError

SAMPLERS = [RandomSampler, EnasSampler, DartsSampler, GdasSampler]
SPACES = [OneChoice, Everything, CellSpace, PlainCellSpace]


def make(space=OneChoice, sampler=RandomSampler, context=False, **options):
    torch.manual_seed(0)
    return DynamicWeightMutator(
        space(), sampler=sampler(seed=0), context=VectorContext(5, 8) if context else None, **options
    )


class Counting(ChunkedController):
    """Notes which sites were made."""

    def bind(self, sites, context_dim):
        super().bind(sites, context_dim)
        self.made = []

    def generate(self, sites, context):
        self.made += [site.name for site in sites]
        return super().generate(sites, context)


def test_it_is_a_module_and_an_nni_mutator():
    mutator = make()
    assert isinstance(mutator, nn.Module) and isinstance(mutator, Mutator)
    assert isinstance(mutator.space, ModelSpace) and "dynamic_weights" in repr(mutator)
    seen = []
    mutator.apply(lambda module: seen.append(module))
    assert mutator in seen and mutator.controller in seen


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("base", ["none", "learned"])
def test_a_step_reaches_controller_and_architecture_and_freezing_keeps_the_output(space, sampler, base):
    mutator = make(space, sampler, context=True, base=base)
    x, context = image(), vector()
    mutator.reset()
    while not mutator.plan():
        mutator.reset()
    mutator(x, context=context).square().mean().backward()
    roles = mutator.parameters_by_role()
    assert sum(p.grad.abs().sum() for p in roles["controller"] if p.grad is not None) > 0
    if sampler in (DartsSampler, GdasSampler):
        assert sum(p.grad.abs().sum() for p in roles["architecture"] if p.grad is not None) > 0

    mutator.eval()
    best = mutator.export()
    with mutator.using(best):
        expected = mutator(x, context=context)
    network = mutator.freeze(best)
    torch.testing.assert_close(network(x, context), expected)
    assert set(network.source.sites) == {site.name for site in mutator.plan(best)}


@pytest.mark.parametrize("space", SPACES)
def test_only_the_planned_sites_are_made(space):
    """A candidate that does not run makes no weights."""
    mutator = make(space, controller=Counting())
    for _ in range(8):
        mutator.reset()
        mutator.controller.made.clear()
        mutator(image())
        assert sorted(mutator.controller.made) == sorted(site.name for site in mutator.plan())


@pytest.mark.parametrize("sampler", [EnasSampler, GdasSampler])
def test_one_path_runs_and_makes_its_weights_once(sampler):
    mutator = make(OneChoice, sampler, controller=Counting())
    counts = {"op/3x3": 0, "op/5x5": 0}
    for _ in range(30):
        sample = mutator.reset()
        mutator.controller.made.clear()
        mutator(image())
        expected = [f"op/{sample['op']}"] if sample["op"] in ("3x3", "5x5") else []
        assert mutator.controller.made == expected
        for name in expected:
            counts[name] += 1
    assert all(counts.values())


def test_the_mixture_of_darts_makes_all():
    mutator = make(OneChoice, DartsSampler, controller=Counting())
    mutator.reset()
    mutator(image())
    assert sorted(mutator.controller.made) == ["op/3x3", "op/5x5"]


def test_the_mixture_is_the_weighted_sum_of_the_candidates():
    mutator = make(OneChoice, partial(DartsSampler, mixture="softmax")).eval()
    mutator.sampler.alpha("op").data = torch.tensor([0.0, 1.0, 2.0, 3.0])
    mutator.reset()
    outputs = []
    for name in mutator.choices["op"].candidates:
        with mutator.using({"op": name}):
            outputs.append(mutator(image()))
    expected = sum(w * y for w, y in zip(torch.tensor([0.0, 1.0, 2.0, 3.0]).softmax(0), outputs, strict=True))
    torch.testing.assert_close(mutator(image()), expected)


def test_the_mixture_of_an_input_choice_weighs_each_input_by_its_chance():
    mutator = make(Everything, partial(DartsSampler, mixture="softmax"))
    mutator.reset()
    gate = mutator._decide().gate("inputs")
    assert list(gate.values) == [0, 1, 2]
    torch.testing.assert_close(gate.weights, torch.full((3,), 2 / 3))


def test_one_label_at_two_places_chooses_alike_and_has_two_sites():
    mutator = make(Everything)
    for _ in range(5):
        sample = mutator.reset()
        names = {site.name for site in mutator.plan()}
        assert {f"shared/{sample['shared']}", f"shared/{sample['shared']}#2"} <= names


def test_sites_are_named_by_label_candidate_and_path():
    names = set(make(Everything).source.sites)
    assert {"stem", "outer/separable", "inner/0", "shared/a", "shared/a#2", "block0/0", "head"} <= names


def test_a_depth_of_zero_runs_no_block():
    mutator = make(Everything).eval()
    sample = {**mutator.reset(), "depth": 0}
    with mutator.using(sample):
        mutator(image())
    assert not [site for site in mutator.plan(sample) if site.name.startswith("block")]


def test_arguments_that_nni_chooses_follow_the_sample():
    mutator = make(WidthSpace)
    for kernel, size in ((1, 6), (3, 4)):
        with mutator.using({"kernel": kernel, "padding": 0}):
            assert mutator(image()).shape == (3, CHANNELS, size, size)


# Contexts


def test_each_sample_gets_the_weights_of_its_context():
    mutator = make(context=True).eval()
    x, context = image(), vector()
    with mutator.using({"op": "3x3"}):
        together = mutator(x, context=context)
        alone = [mutator(x[i : i + 1], context=context[i : i + 1]) for i in range(3)]
        shared = mutator(x, context=context[:1])
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(shared[0], together[0])


def test_the_space_takes_pairs_as_nnis_evaluators_give_them():
    mutator = make(context=True).eval()
    mutator.reset()
    x, context = image(), vector()
    torch.testing.assert_close(mutator.space((x, context)), mutator(x, context=context))


def test_a_missing_context_says_how_to_give_one():
    mutator = make(context=True)
    mutator.reset()
    with pytest.raises(ContextError, match=r"The context is missing.*VectorContext.*Call `mutator\(x, context=c\)`"):
        mutator(image())


def test_a_context_without_encoder_says_how_to_give_one():
    mutator = make()
    mutator.reset()
    with pytest.raises(ContextError, match="A context was given, but the mutator has no context encoder"):
        mutator(image(), context=vector())


def test_a_context_of_another_batch_size_is_refused():
    mutator = make(context=True)
    with (
        mutator.using({"op": "3x3"}),
        pytest.raises(ContextError, match="The context has 2 samples, but the input has 3"),
    ):
        mutator(image(3), context=vector(2))


def test_a_context_of_another_length_is_refused():
    mutator = make(context=True)
    with (
        mutator.using({"op": "3x3"}),
        pytest.raises(ContextError, match=r"takes a context \(B, D\) with D = 5, but was given"),
    ):
        mutator(image(3), context=torch.zeros(3, 4))


def test_an_encoder_without_out_dim_is_refused():
    with pytest.raises(ConfigError, match="The context encoder Linear has no `out_dim`"):
        DynamicWeightMutator(OneChoice(), context=nn.Linear(5, 8))


# Scopes


def test_an_op_outside_any_network_says_so():
    with pytest.raises(ScopeError, match="Layer `DynamicConv2d` has no weights. Call the network through the mutator"):
        DynamicConv2d(1, 1, 3)(image())


def test_an_op_called_alone_works_inside_using_only():
    mutator = make(context=True)
    op = mutator.space.op["3x3"]
    x = torch.randn(3, CHANNELS, 6, 6)
    with mutator.using({"op": "3x3"}, context=vector()):
        assert op(x).shape == x.shape
    with pytest.raises(ScopeError, match="Layer `op/3x3` has no weights"):
        op(x)


def test_a_forward_before_reset_says_what_to_call():
    with pytest.raises(ScopeError, match=r"No architecture is drawn yet. Call `mutator.reset\(\)`"):
        make()(image())
    with pytest.raises(ScopeError, match="No architecture is drawn yet"):
        _ = make().sample_log_prob


def test_a_forward_that_fails_closes_its_scope():
    from nni_dynconv.sites import scope

    mutator = make()
    mutator.reset()
    with pytest.raises(RuntimeError):
        mutator(torch.zeros(1, 2, 6, 6))
    assert scope.current() is None
    assert mutator(image()).shape[0] == 3


def test_using_keeps_the_drawn_sample_and_eval_too():
    mutator = make()
    sample = mutator.reset()
    with mutator.using({"op": "5x5"}):
        pass
    mutator.eval()
    assert mutator.sample == sample
    mutator.export()
    assert mutator.sample == sample


def test_threads_do_not_meet():
    mutator = make().eval()
    expected = {}
    for name in ("3x3", "5x5", "pool", "skip"):
        with mutator.using({"op": name}):
            expected[name] = mutator(image())
    assert not differing_in_threads(mutator, lambda: mutator(image()), expected)


class Checkpointed(ModelSpace):
    def __init__(self, reentrant=None):
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 1)
        self.op = LayerChoice({"3x3": conv(3), "5x5": conv(5)}, label="op")
        self.last = conv(3)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.stem(x)
        for layer in (self.op, self.last):
            x = layer(x) if self.reentrant is None else checkpoint(layer, x, use_reentrant=self.reentrant)
        return x


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(reentrant):
    gradients = []
    for space in (lambda: Checkpointed(), lambda: Checkpointed(reentrant)):
        mutator = make(space, context=True)
        with mutator.using({"op": "5x5"}):
            loss = mutator(image(), context=vector()).square().mean()
        loss.backward()
        gradients.append([p.grad for p in mutator.parameters_by_role()["controller"] if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


# State


def test_the_state_has_each_weight_once_and_restores():
    mutator, other = make(Everything, EnasSampler), make(Everything, EnasSampler)
    tensors = [value for value in mutator.state_dict().values() if isinstance(value, torch.Tensor)]
    assert len({tensor.data_ptr() for tensor in tensors if tensor.numel()}) == len([t for t in tensors if t.numel()])
    mutator.sampler.observe(mutator.reset(), 1.0)
    other.load_state_dict(mutator.state_dict())
    assert [mutator.reset() for _ in range(5)] == [other.reset() for _ in range(5)]
    with mutator.eval().using(mutator.sample), other.eval().using(mutator.sample):
        torch.testing.assert_close(mutator(image()), other(image()))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_copy_is_on_its_own(sampler):
    mutator = make(Everything, sampler)
    mutator.reset()
    twin = copy.deepcopy(mutator)
    assert [mutator.reset() for _ in range(3)] == [twin.reset() for _ in range(3)]
    twin(image()).sum().backward()
    assert all(parameter.grad is None for parameter in mutator.parameters())


def test_what_stands_still_does_so_in_a_frozen_network_too():
    mutator = make(context=True, base="learned").requires_grad_(False)
    assert not [name for name, one in mutator.freeze({"op": "3x3"}).named_parameters() if one.requires_grad]


def test_a_frozen_network_learns_without_touching_the_supernet():
    mutator = make(base="learned")
    before = {name: value.clone() for name, value in mutator.space.state_dict().items()}
    network = mutator.freeze({"op": "3x3"})
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network(image()).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in mutator.space.state_dict().items())


def test_nnis_own_freeze_gives_a_network_that_runs():
    mutator = make(context=True).eval()
    frozen = mutator.space.freeze({"op": "5x5"})
    with mutator.using({"op": "5x5"}):
        expected = mutator(image(), context=vector())
    torch.testing.assert_close(frozen((image(), vector())), expected)


def test_status_tells_where_the_search_is():
    mutator = make(OneChoice, EnasSampler)
    assert mutator.status()["sample"] is None
    sample = mutator.reset()
    status = mutator.status()
    assert status["sample"] == sample and set(status["probabilities"]["op"]) == {"3x3", "5x5", "pool", "skip"}
    assert status["log_prob"] == pytest.approx(float(mutator.sample_log_prob.detach()))
    assert status["entropy"] == pytest.approx(1.386, abs=0.01)
    (mutator.sample_log_prob - mutator.sample_entropy).backward()
    assert mutator.sampler.start.grad.abs().sum() > 0


def test_the_plan_is_a_table():
    text = str(make().plan({"op": "5x5"}))
    assert "op/5x5  DynamicConv2d  weight 4x4x5x5, bias 4  404" in text and text.splitlines()[-1].split() == [
        "total",
        "1",
        "sites",
        "404",
    ]


# What is refused


def test_a_space_without_a_dynamic_op_is_refused():
    class Static(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = LayerChoice([nn.Identity(), nn.ReLU()], label="op")

    with pytest.raises(SpaceError, match="Static has no dynamic op: there is nothing for a controller to make"):
        DynamicWeightMutator(Static())


def test_a_module_that_is_no_space_is_refused():
    with pytest.raises(SpaceError, match=r"The space is a Conv2d, but must be a `nni.nas.nn.pytorch.ModelSpace`"):
        DynamicWeightMutator(nn.Conv2d(1, 1, 1))


def test_a_space_has_one_mutator():
    mutator = make()
    with pytest.raises(SpaceError, match="OneChoice is a supernet already"):
        DynamicWeightMutator(mutator.space)
    space, parts = OneChoice(), {"controller": ChunkedController()}
    DynamicWeightMutator(space, sampler=False)
    with pytest.raises(SpaceError, match="OneChoice has a mutator already. Make a new one"):
        DynamicWeightMutator(space, **parts)
    DynamicWeightMutator(OneChoice(), **parts)


def test_parts_of_the_wrong_type_are_refused():
    for name, wrong in (("controller", "chunked"), ("sampler", "enas"), ("context", 3)):
        with pytest.raises(ConfigError, match=f"`{name}` is {wrong!r}, but must be a "):
            DynamicWeightMutator(OneChoice(), **{name: wrong})
    with pytest.raises(ConfigError, match="Unknown `base` `lerned` in `DynamicWeightMutator`. Did you mean `learned`?"):
        DynamicWeightMutator(OneChoice(), base="lerned")


def test_a_controller_serves_one_mutator():
    """The first mutator used to die of the sizes of the second one's sites."""
    controller = ChunkedController()
    DynamicWeightMutator(OneChoice(), controller=controller)
    with pytest.raises(ConfigError, match="This ChunkedController serves another mutator already. Make one each"):
        DynamicWeightMutator(Everything(), controller=controller)


REFUSED = [
    ({"per_site": {"opp/*": {"delta": "low_rank"}}}, ConfigError, "which matches none of the 2 sites"),
    ({"delta": "scale"}, ConfigError, "has no base to change"),
    ({"base": "given"}, SpaceError, "no op of this space was lifted"),
    ({"context": nn.Linear(2, 2)}, ConfigError, "The context encoder Linear has no `out_dim`"),
    ({"controller": "bound"}, ConfigError, "This ChunkedController serves another mutator already"),
    ({"architecture": "bound"}, ConfigError, "This ArchitectureEncoder serves another mutator already"),
    ({"context": "bound"}, ConfigError, "This OwnInputContext serves another mutator already"),
    ({"sampler": "bound"}, SampleError, "RandomSampler serves .* already"),
]


@pytest.mark.parametrize(("wrong", "error", "words"), REFUSED, ids=lambda one: str(one)[:30])
def test_what_is_refused_changes_nothing_and_all_parts_serve_in_the_next_try(wrong, error, words):
    def make_parts():
        return {
            "controller": ChunkedController(),
            "architecture": ArchitectureEncoder(4),
            "context": OwnInputContext(4),
            "sampler": RandomSampler(seed=0),
        }

    bound, parts, space = make_parts(), make_parts(), OneChoice()
    DynamicWeightMutator(Everything(), **bound)
    wrong = {name: bound[name] if value == "bound" else value for name, value in wrong.items()}
    with pytest.raises(error, match=words):
        DynamicWeightMutator(space, **{**parts, **wrong})
    mutator = DynamicWeightMutator(space, **parts)
    mutator.reset()
    assert mutator(image()).shape == (3, CHANNELS, 6, 6) and mutator.controller is parts["controller"]


def test_a_label_that_the_space_does_not_know_is_refused():
    mutator = make()
    with (
        pytest.raises(SampleError, match="The space has no label `opp`. Did you mean `op`?"),
        mutator.using({"opp": "3x3"}),
    ):
        pass
    with pytest.raises(SampleError, match="Label `op` has no candidate '7x7'"):
        mutator.freeze({"op": "7x7"})


def test_arguments_that_nni_cannot_mix_are_refused_and_the_space_is_left_alone():
    """GDAS searches them, which used to be refused too."""
    space = WidthSpace()
    with pytest.raises(SpaceError, match="Module `stem`: `MutableConv2d` with `nni.choice` for `padding` is not supp"):
        DynamicWeightMutator(space, sampler=DartsSampler())
    mutator = DynamicWeightMutator(space, sampler=GdasSampler(seed=0))
    mutator.reset()
    mutator(image()).square().sum().backward()
    assert all(one.grad is not None for one in mutator.sampler.parameters())


def test_without_a_sampler_nni_chooses():
    mutator = DynamicWeightMutator(OneChoice(), sampler=False)
    with pytest.raises(ScopeError, match="`sampler=False`: NNI's own strategy chooses"):
        mutator.reset()
    assert mutator.space(image()).shape[0] == 3
