"""The last step of a search over a trained supernet: evolution, costs, budgets, and the front."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from often import each_once
from planted_moves import BEST, Moves, evaluator, right

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.mutable import Categorical, ExpressionConstraint, MutableList
from nni.nas.experiment import NasExperiment

from nni_dynconv import (
    DynamicFlopsProfiler,
    DynamicNumParamsProfiler,
    DynamicWeightMutator,
    EnasSampler,
    GdasSampler,
    RandomSampler,
    SupernetEvaluator,
    costs_of,
    evolve,
)
from nni_dynconv.errors import CandidateError, ConfigError, RankError, SampleError
from nni_dynconv.samplers import Choice, Choices, choices_of
from nni_dynconv.search.costing import called_on
from nni_dynconv.search.final import Compared, Contender
from nni_dynconv.search.final.evolution import Breeding, evolved
from nni_dynconv.search.final.fronts import crowding, fronts, order
from nni_dynconv.search.finals import Finals
from nni_dynconv.search.ranking import Task, generated_losses

pytestmark = pytest.mark.usefixtures("own_nni_folders")


def search(sampler=RandomSampler, seed=0, space=Moves, epochs=1, batches=2, **options):
    torch.manual_seed(seed)
    mutator = DynamicWeightMutator(space(), sampler=sampler(seed=seed), base="learned")
    task = evaluator(epochs=epochs, batches=batches)
    strategy = mutator.strategy(**{"contender_batches": 1, "rerank": 0, "final_epochs": 0, **options})
    NasExperiment(mutator.space, task, strategy).run()
    return mutator, strategy


def rewards(mutator):
    """The architectures that a sampler has learned a reward of."""
    labels = list(mutator.choices.values())
    return [
        {one.label: one.candidates[number] for one, number in zip(labels, json.loads(key), strict=True)}
        for key, *_ in mutator.sampler.memory()["rewards"]
    ]


def weighing(sample):
    """A cost of the test's own: the sum of the dilations."""
    return float(sum(int(value) for value in sample.values()))


# Evolution


@pytest.mark.slow
def test_evolution_finds_the_best_of_4096_where_32_draws_do_not(capsys):
    mutator, _ = search(seed=1, epochs=6, batches=16, final_search="evolution")
    batch = next(iter(evaluator(batches=16).val_dataloaders))
    task = Task(lambda network, pair: F.mse_loss(network(pair[0]), pair[1]), [batch])
    draws = [mutator.reset() for _ in range(32)]
    losses = generated_losses(mutator, draws, task)
    assert right(draws[losses.index(min(losses))]) < len(BEST) - 1  # 19 of 4,096 have at most one dilation wrong
    assert mutator.export() == BEST
    assert "Measured 400 architectures" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("sampler", [RandomSampler, GdasSampler, EnasSampler])
def test_evolution_finds_the_best_of_4096_behind_each_sampler(sampler, seed):
    mutator, _ = search(sampler, seed, epochs=6, batches=16, final_search="evolution")
    assert mutator.export() == BEST


def landscape(seed, labels=6, candidates=4):
    """Choices, and a loss in which each candidate counts by itself and together with each other one."""
    g = torch.Generator().manual_seed(seed)
    alone = torch.rand(labels, candidates, generator=g).tolist()
    pairs = torch.rand(labels, labels, candidates, candidates, generator=g).mul(0.5).tolist()
    names = [f"op{place}" for place in range(labels)]

    def loss(sample):
        chosen = [sample[name] for name in names]
        together = sum(pairs[i][j][chosen[i]][chosen[j]] for i in range(labels) for j in range(i))
        return sum(alone[i][one] for i, one in enumerate(chosen)) + together

    return Choices({name: Choice(name, tuple(range(candidates))) for name in names}), loss


@pytest.mark.parametrize("seed", range(5))
def test_in_a_rugged_space_of_4096_evolution_ends_among_the_best_four(seed):
    """400 random draws would, with a probability of a third."""
    choices, loss = landscape(seed)
    everyone = sorted(loss(dict(zip(choices, one, strict=True))) for one in itertools.product(range(4), repeat=6))
    found = evolve(choices, loss, seed=seed)
    assert len(found.contenders) == 400 and found.best_first("loss")[0].loss <= everyone[3]


@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 60), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_evolution_measures_nothing_twice_keeps_budget_and_count_and_seed_decides(seed, parents, most, mutation, cross):
    choices, loss = landscape(0, labels=3, candidates=3)
    options = {"population": parents, "evaluations": most, "mutation": mutation, "crossover": cross, "seed": seed}
    priced = {"costs": {"sum": lambda sample: sum(sample.values())}, "budget": {"sum": 4}}
    state = torch.get_rng_state()
    first, second = (evolve(choices, loss, **options, **priced) for _ in range(2))
    samples = [tuple(one.sample.values()) for one in first.contenders]
    assert len(set(samples)) == len(samples) <= most
    assert all(sum(one) <= 4 for one in samples)
    assert first == second and torch.equal(torch.get_rng_state(), state)


def test_evolution_ends_where_all_that_is_allowed_was_measured():
    choices, loss = landscape(0, labels=2, candidates=3)
    found = evolve(choices, loss, population=4, seed=0)
    assert len(found.contenders) == 9


@given(st.integers(0, 2**31), st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_parents_are_the_best_of_all_that_was_measured_so_far(seed, population):
    """Elitism: a child of one parent differs in one choice from one of the best, whichever generation that is of."""
    choices, loss = landscape(0)
    generator, generations = torch.Generator().manual_seed(seed), []

    def measure(samples):
        generations.append([Contender(dict(one), loss(one)) for one in samples])
        return generations[-1]

    breeding = Breeding(choices, generator, mutation=0.0, crossover=0.0)
    evolved(breeding, measure, [breeding.anyone() for _ in range(population)], population, 6 * population)
    before = list(generations[0])
    for children in generations[1:]:
        best = sorted(before, key=lambda one: one.loss)[:population]
        for child in children:
            assert 1 in [sum(child.sample[name] != one.sample[name] for name in choices) for one in best]
        before += children


def test_evolution_starts_with_what_it_is_given_and_checks_it():
    choices, loss = landscape(0)
    start = dict.fromkeys(choices, 3)
    assert evolve(choices, loss, start=[start], evaluations=1, seed=0).contenders[0].sample == start
    with pytest.raises(SampleError, match="no candidate 4"):
        evolve(choices, loss, start=[dict.fromkeys(choices, 4)])


def test_evolution_in_a_plain_loop_scores_by_a_supernet_evaluator_and_ones_profiler():
    space = Moves()
    flops = DynamicFlopsProfiler(space, torch.zeros(1, 6, 24), contexts_per_sample=0, count_bias=False)
    mutator = DynamicWeightMutator(space, sampler=RandomSampler(0))
    x = torch.rand(8, 6, 24)
    scoring = SupernetEvaluator(mutator, lambda net: -net(x).pow(2).mean(), calibrate=False)
    options = {"costs": {"flops": flops}, "objectives": ["flops"], "evaluations": 12, "population": 4, "seed": 0}
    found = evolve(mutator.choices, lambda sample: -scoring.score(sample), **options)
    assert len(found.contenders) == 12
    assert all(one.costs["flops"] == 6 * 24 * 3 for one in found.contenders)
    assert found.front[0].loss == min(one.loss for one in found.contenders)


def test_evolution_keeps_the_constraints_of_a_space():
    one, two = Categorical([1, 2, 3, 4], label="one"), Categorical([1, 2, 3, 4], label="two")
    choices = choices_of(MutableList([one, two, ExpressionConstraint(one + two <= 5, label="sum")]))
    found = evolve(choices, lambda sample: -sample["one"] * sample["two"], population=4, evaluations=16, seed=0)
    assert {(one.sample["one"], one.sample["two"]) for one in found.contenders} == {
        (a, b) for a in range(1, 5) for b in range(1, 5) if a + b <= 5
    }
    assert found.best_first("loss")[0].loss == -6


@pytest.mark.parametrize("sampler", [RandomSampler, GdasSampler])
def test_the_seed_decides_how_a_search_ends(sampler):
    options = {"final_search": "evolution", "evaluations": 12, "population": 4, "objectives": ["generated"]}
    (first, one), (second, two) = (search(sampler, **options) for _ in range(2))
    assert first.export() == second.export() and one.front == two.front


def test_a_sampler_that_selects_learns_from_all_that_evolution_measures():
    mutator, _ = search(final_search="evolution", evaluations=30, population=8)
    assert len(rewards(mutator)) == 30


def test_what_evolution_measures_is_the_loss_with_norms_of_the_architectures_own():
    mutator, strategy = search(
        space=lambda: Moves(normed=True),
        final_search="evolution",
        evaluations=6,
        population=4,
        objectives=["generated"],
    )
    batches = list(evaluator(batches=2).train_dataloaders)
    for row in strategy.front:
        network = mutator.freeze(row["architecture"], calibrate=batches).eval()
        with torch.no_grad():
            expected = F.mse_loss(network(batches[0][0]), batches[0][1]).item()
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


def broken(mutator, label="move0", candidate="2"):
    def fail(*_):
        raise ValueError("out of order")

    getattr(mutator.space, label)[candidate].register_forward_hook(fail)


@pytest.mark.parametrize("objectives", [None, ["multiply_adds"]])
@pytest.mark.filterwarnings("ignore:Ranked last", "ignore:Left out")
def test_an_architecture_that_raises_is_left_out_or_stops_the_search(objectives):
    for option in ("skip", "stop"):
        torch.manual_seed(0)
        mutator = DynamicWeightMutator(Moves(), sampler=GdasSampler(seed=0))
        how = {
            "final_search": "evolution",
            "evaluations": 20,
            "population": 6,
            "rerank": 0,
            "objectives": objectives,
            "final_epochs": 0,
        }
        strategy = mutator.strategy(**how, on_error=option)
        searching = strategy.mutate_evaluator(evaluator(epochs=1, batches=2))
        broken(mutator)
        if option == "stop":
            with pytest.raises(CandidateError, match="candidate `2` of label `move0`.*out of order"):
                searching.evaluate(mutator.space)
        else:
            searching.evaluate(mutator.space)
            assert mutator.export()["move0"] != "2"
            assert all(math.isfinite(row["loss"]) and row["architecture"]["move0"] != "2" for row in strategy.front)


def test_a_fast_dev_run_measures_two():
    torch.manual_seed(0)
    mutator = DynamicWeightMutator(Moves(), sampler=RandomSampler(0))
    task = evaluator(epochs=1, batches=2, fast_dev_run=True)
    mutator.strategy(final_search="evolution", final_epochs=0).mutate_evaluator(task).evaluate(mutator.space)
    assert len(rewards(mutator)) == 2


# Several objectives


def test_a_search_ends_with_a_front_that_is_kept_printed_and_saved(capsys):
    options = {"final_search": "evolution", "evaluations": 40, "objectives": ["weight"], "costs": {"weight": weighing}}
    mutator, strategy = search(**options)
    front = strategy.front
    assert len(front) > 1 and json.loads(json.dumps(front)) == front
    assert all(row["weight"] == weighing(row["architecture"]) for row in front)
    by_loss = sorted(front, key=lambda row: row["loss"])
    assert front == by_loss and [row["weight"] for row in front] == sorted((r["weight"] for r in front), reverse=True)
    assert mutator.export() == front[0]["architecture"]
    said = capsys.readouterr().out
    assert "The front; what is exported has a star:" in said
    assert [line[0] for line in said.splitlines() if "  move0 = " in line] == ["*", *" " * (len(front) - 1)]
    other = DynamicWeightMutator(Moves(), sampler=RandomSampler(1), base="learned")
    other.load_state_dict(mutator.state_dict())
    assert other.sampler.front == front


def test_a_new_search_forgets_the_front_of_the_last_one():
    mutator, strategy = search(objectives=["generated"], contenders=4)
    assert strategy.front
    mutator.strategy(contenders=2, rerank=0, final_epochs=0).mutate_evaluator(evaluator(1, 2)).evaluate(mutator.space)
    assert not strategy.front


def test_draws_have_a_front_too():
    _, strategy = search(GdasSampler, contenders=8, objectives=["weight"], costs={"weight": weighing})
    losses = [row["loss"] for row in strategy.front]
    assert losses == sorted(losses) and losses


@each_once(how=["draws", "evolution"], sampler=[RandomSampler, GdasSampler])
def test_nothing_over_the_budget_is_measured_or_exported(how, sampler, monkeypatch):
    seen = []

    def note(mutator, samples, *rest):
        seen.extend(samples)
        return generated_losses(mutator, samples, *rest)

    monkeypatch.setattr("nni_dynconv.search.final.searching.generated_losses", note)
    options = {"budget": {"weight": 9}, "costs": {"weight": weighing}, "evaluations": 30, "population": 6}
    mutator, _ = search(sampler, final_search=how, rerank=2, rerank_steps=2, **options)
    assert seen and all(weighing(one) <= 9 for one in seen)
    assert weighing(mutator.export()) <= 9


def test_a_budget_that_hardly_any_draw_keeps_is_reached_by_cheaper_choices():
    options = {"budget": {"weight": 6}, "costs": {"weight": weighing}}  # one architecture of 4,096
    mutator, _ = search(contenders=4, **options)
    assert set(mutator.export().values()) == {"1"}


def test_a_budget_that_no_architecture_keeps_is_told_with_the_nearest():
    with pytest.raises(RankError, match=r"keeps the budget \{'weight': 5.0\}: the nearest costs \{'weight': 6.0\}, "):
        search(contenders=4, budget={"weight": 5.0}, costs={"weight": weighing})


@pytest.mark.whole
def test_the_knee_is_exported_where_it_is_asked_for():
    options = {"final_search": "evolution", "evaluations": 60, "objectives": ["weight"], "costs": {"weight": weighing}}
    lowest, _ = search(**options)
    light, _ = search(**options, pick="knee", importance={"weight": 100.0})
    assert weighing(light.export()) < weighing(lowest.export())
    _, strategy = search(**options, pick="knee")
    front = strategy.front
    spread = {key: max(r[key] for r in front) - min(r[key] for r in front) for key in ("loss", "weight")}
    sums = [row["loss"] / spread["loss"] + row["weight"] / spread["weight"] for row in front]
    assert strategy.mutator.export() == front[sums.index(min(sums))]["architecture"]


def test_after_short_training_the_costs_still_count():
    """The one that is heavier would win by its loss alone."""
    found = Compared(
        [Contender({"op": "a"}, 0.5, {"weight": 1.0}), Contender({"op": "b"}, 0.4, {"weight": 9.0})], ("weight",)
    )
    assert found.surcharges("loss") == [0.0, 0.0]
    assert found.surcharges("knee", {"weight": 2.0}) == pytest.approx([0.025, 0.225])
    finals = Finals(
        [{"op": "a"}, {"op": "b"}], [0.5, 0.4], [0.45, 0.35], 1, 1.0, found.surcharges("knee", {"weight": 2.0})
    )
    assert finals.winner == {"op": "a"}


def test_one_without_a_loss_or_a_cost_is_on_no_front():
    nan = math.nan
    found = Compared([Contender({"op": "a"}, nan, {"c": 0.0}), Contender({"op": "b"}, 1.0, {"c": 1.0})], ("c",))
    assert [one.sample["op"] for one in found.front] == ["b"] == [one.sample["op"] for one in found.best_first("knee")]
    with pytest.raises(RankError, match="None of 1 architectures has a finite held-out loss"):
        Compared([Contender({"op": "a"}, nan, {"c": 0.0})], ("c",)).best_first("loss")


POINTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=12)


@pytest.mark.whole
@given(POINTS)
def test_fronts_are_peeled_off_one_by_one(points):
    def better(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    left, expected = set(range(len(points))), {}
    number = 0
    while left:
        front = {i for i in left if not any(better(points[j], points[i]) for j in left)}
        expected |= dict.fromkeys(front, number)
        left, number = left - front, number + 1
    assert fronts(points) == [expected[place] for place in range(len(points))]


@given(POINTS)
def test_order_goes_by_front_then_room_and_of_one_number_by_that(points):
    numbers = fronts(points)
    assert [numbers[place] for place in order(points)] == sorted(numbers)
    single = [(one[0],) for one in points]
    assert [single[place] for place in order(single)] == sorted(single)


def test_crowding_is_that_of_the_paper():
    assert crowding([(0, 10), (2, 4), (3, 3), (10, 0)]) == pytest.approx([math.inf, 0.3 + 0.7, 0.8 + 0.4, math.inf])


# Costs


def test_costs_are_those_of_nnis_profilers_and_of_the_plan():
    space, x = Moves(), torch.zeros(1, 6, 24)
    parameters = DynamicNumParamsProfiler(space, x, base="learned")
    mutator = DynamicWeightMutator(space, sampler=RandomSampler(0), base="learned")
    sample = mutator.reset()
    few, many = (costs_of(mutator, torch.rand(batch, 6, 24)) for batch in (2, 200))
    assert few["parameters"](sample) == parameters.profile(sample)
    assert few["generated"](sample) == mutator.plan(sample).num_generated == 6 * 4
    making = [one["multiply_adds"](sample) - 6 * 24 * 3 for one in (few, many)]
    assert making[0] == pytest.approx(100 * making[1]) and making[1] > 0  # weights are made once for a batch
    assert few["seconds"](sample) > 0


def test_counting_leaves_supernet_mode_and_draw_as_they_were():
    mutator = DynamicWeightMutator(Moves(normed=True), sampler=RandomSampler(0))
    drawn = mutator.reset()
    before = {name: value.clone() for name, value in mutator.state_dict().items() if isinstance(value, torch.Tensor)}
    for cost in costs_of(mutator, torch.rand(4, 6, 24)).values():
        cost(BEST)
    assert mutator.sample == drawn and mutator.space.training
    after = {name: value for name, value in mutator.state_dict().items() if isinstance(value, torch.Tensor)}
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_step_that_calls_no_model_with_a_tensor_is_refused():
    mutator = DynamicWeightMutator(Moves(), sampler=RandomSampler(0))
    with pytest.raises(ConfigError, match="does not call its model with a tensor.*Leave `objectives`, `budget`"):
        called_on(mutator, Task(lambda network, x: x.sum(), [torch.rand(2)]), mutator.reset())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objectives": ["multiply_add"]}, "Unknown cost `multiply_add` in `objectives`.*Did you mean `multiply_adds`"),
        ({"budget": {"flops": 1.0}}, "Unknown cost `flops` in `budget`.*Known: `multiply_adds`, `parameters`"),
        ({"budget": {"seconds": 0.0}}, "`seconds` in `DynamicStrategy.budget` is 0.0, but must be more than 0"),
        ({"objectives": ["seconds", "seconds"]}, "one of them is named twice"),
        ({"pick": "knee"}, "`pick` in .* is 'knee', but there is no front.*objectives: .multiply_adds."),
        (
            {"objectives": ["seconds"], "importance": {"seconds": 2.0}},
            "`importance` in .* weighs `seconds`, but `pick`",
        ),
        ({"final_search": "evolve"}, "`final_search` in .* is 'evolve' .* one of 'draws', 'evolution'"),
        ({"population": 1}, "`population` in .* is 1, but must be 2 or more"),
        ({"mutation": 1.5}, "`mutation` in .* is 1.5, but must be from 0 to 1"),
        ({"objectives": "seconds"}, r"`objectives` in .* is 'seconds' \(str\), but must be a list or null"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words):
    mutator = DynamicWeightMutator(Moves(), sampler=RandomSampler(0))
    with pytest.raises(ConfigError, match=words):
        mutator.strategy(**options)


def test_a_cost_of_ones_own_goes_by_its_name():
    mutator = DynamicWeightMutator(Moves(), sampler=RandomSampler(0))
    assert mutator.strategy(objectives=["weight"], costs={"weight": weighing}).costs == {"weight": weighing}
    with pytest.raises(ConfigError, match="Unknown cost `weigh`.*Did you mean `weight`"):
        mutator.strategy(objectives=["weigh"], costs={"weight": weighing})
