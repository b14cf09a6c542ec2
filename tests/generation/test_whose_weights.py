"""An op that sees several times as many samples as the forward: each has its own sample's weights, or it is refused."""

from __future__ import annotations

import threading
from collections import UserDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from often import by_default, each_once
from torch import nn
from torch.utils.checkpoint import checkpoint

from nni_dynconv import (
    DartsSampler,
    DynamicConv2d,
    DynamicLinear,
    DynamicSepConv,
    DynamicWeightMutator,
    GdasSampler,
    OwnInputContext,
    RandomSampler,
    VectorContext,
    export,
    lift,
    load,
    repeated,
)
from nni_dynconv.errors import ConfigError, ContextError, ShapeError
from nni_dynconv.ops import DynamicCall, DynamicGroupNorm, DynamicLayerNorm

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
OPS = {
    "conv": lambda **more: DynamicConv2d(2, 4, 3, padding=1, **more),
    "depthwise": lambda **more: DynamicConv2d(2, 2, 3, padding=1, groups=2, **more),
    "separable": lambda **more: DynamicSepConv(2, 4, 3, norm=None, **more),
    "linear": lambda **more: DynamicLinear(6, 5, **more),
    "layer norm": lambda **more: DynamicLayerNorm(6, **more),
    "group norm": lambda **more: DynamicGroupNorm(2, 2, **more),
    "call": lambda **more: DynamicCall(nn.PReLU(2), **more),
}


class Frames(ModelSpace):
    """Folds the frames of its samples, ``B T C H W``, into the batch of one op."""

    def __init__(self, op, order, block=None):
        super().__init__()
        self.op, self.order, self.block = op, order, block

    def forward(self, x):
        T = x.shape[1]
        folded = (x.transpose(0, 1) if self.order == "tiled" else x).flatten(0, 1)
        if self.block is None:
            y = self.op(folded)
        else:
            with repeated(self.block):
                y = self.op(folded)
        if self.order == "tiled":
            return y.unflatten(0, (T, -1)).transpose(0, 1)
        return y.unflatten(0, (-1, T))


def frames(batch, times):
    generator = torch.Generator().manual_seed(batch * 31 + times)
    return torch.randn(batch, times, 2, 5, 6, generator=generator), torch.randn(batch, 3, generator=generator)


def mutator_of(space, **options):
    torch.manual_seed(0)
    options = {"sampler": RandomSampler(seed=0), "context": VectorContext(3, 8), **options}
    made = DynamicWeightMutator(space, **options).eval()
    made.reset()
    return made


def alone(run, x, c):
    return torch.cat([run(x[i : i + 1], c[i : i + 1]) for i in range(len(x))])


@each_once(op=OPS, how=["block", "op"])
@settings(max_examples=12, deadline=None)
@given(order=st.sampled_from(["tiled", "consecutive"]), batch=st.integers(1, 5), times=st.integers(1, 4))
def test_each_sample_has_its_own_weights_in_every_form(op, how, order, batch, times):
    """Consecutive blocks were taken, whatever the network meant: samples got each other's weights."""
    own = OPS[op](**({"repeats": order} if how == "op" else {}))
    mutator = mutator_of(Frames(own, order, order if how == "block" else None))
    x, c = frames(batch, times)
    expected = alone(lambda x, c: mutator(x, context=c), x, c)
    torch.testing.assert_close(mutator(x, context=c), expected, **CLOSE)
    torch.testing.assert_close(mutator.freeze()(x, c), expected, **CLOSE)


@each_once(op=OPS, order=["tiled", "consecutive"])
@settings(max_examples=10, deadline=None)
@given(index=st.lists(st.integers(0, 2), min_size=1, max_size=6), times=st.integers(2, 3))
def test_with_an_index_each_sample_has_the_weights_of_its_context(op, order, index, times):
    mutator = mutator_of(Frames(OPS[op](), order, order))
    x, c = frames(len(index), times)[0], torch.randn(3, 3)
    index = torch.tensor(index)
    expected = alone(lambda x, c: mutator(x, context=c), x, c[index])
    torch.testing.assert_close(mutator(x, context=c, index=index), expected, **CLOSE)


@pytest.mark.parametrize(("op", "order"), [*((op, "tiled") for op in OPS), ("conv", "consecutive")])
def test_what_nobody_names_is_refused_in_every_form(op, order, tmp_path):
    mutator = mutator_of(Frames(OPS[op](), order))
    (x, c), index = frames(4, 2), torch.tensor([1, 0, 1, 3])
    calls = [
        lambda: mutator(x, context=c),
        lambda: mutator(x, context=c, index=index),
        lambda: mutator.freeze()(x, c),
    ]
    if op != "call":  # which runs one sample after another
        export.save(mutator.freeze(), tmp_path, example=(x, c[:1]))  # with weights that all share
        calls += [lambda: load(tmp_path)(x, c), lambda: load(tmp_path)(x, c, index=index)]
    for call in calls:
        with pytest.raises(ShapeError, match=r"`op`: its input \(8, .*8 samples, but the forward has 4.*repeated"):
            call()


@each_once(order=["tiled", "consecutive"], how=["block", "op"])
def test_a_saved_network_keeps_what_was_said(order, how, tmp_path):
    own = OPS["conv"](**({"repeats": order} if how == "op" else {}))
    mutator = mutator_of(Frames(own, order, order if how == "block" else None))
    x, c = frames(3, 2)
    network = mutator.freeze()
    export.save(network, tmp_path / "once", example=(x, c))
    export.save(load(tmp_path / "once"), tmp_path / "twice", example=(x, c))
    for folder in ("once", "twice"):
        torch.testing.assert_close(load(tmp_path / folder)(x, c), network(x, c))


def test_a_number_of_samples_that_no_sample_can_have_is_refused():
    class Cut(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = OPS["conv"](repeats="tiled")

        def forward(self, x):
            return self.op(x[:3])

    mutator = mutator_of(Cut())
    with pytest.raises(ShapeError, match="3 samples, but the forward has 4.* no multiple of 4"):
        mutator(torch.randn(4, 2, 5, 6), context=torch.randn(4, 3))


@pytest.mark.parametrize("options", [{"context": None}, {"base": "learned", "delta": "none"}])
def test_weights_that_all_share_serve_any_samples(options):
    mutator = mutator_of(Frames(OPS["conv"](), "tiled"), **options)
    x, c = frames(4, 3)
    context = {} if "context" in options else {"context": c}
    assert mutator(x, **context).shape == (4, 3, 4, 5, 6)
    if context:
        index = torch.tensor([2, 0, 2, 1])
        torch.testing.assert_close(mutator(x, context=c, index=index), mutator(x, context=c))


def test_one_context_for_all_and_weights_of_each_layers_own_input_serve_any_samples():
    x, c = frames(4, 3)
    mutator = mutator_of(Frames(OPS["conv"](), "tiled"))
    torch.testing.assert_close(mutator(x, context=c[:1]), mutator(x, context=c[0]))
    own = mutator_of(Frames(OPS["conv"](), "tiled"), context=OwnInputContext(8))
    torch.testing.assert_close(own(x), torch.cat([own(x[i : i + 1]) for i in range(4)]), **CLOSE)


class Template(ModelSpace):
    """One learned map, which each sample's weights see."""

    def __init__(self):
        super().__init__()
        self.map = nn.Parameter(torch.randn(1, 2, 5, 6))
        self.op = OPS["conv"]()

    def forward(self, x):
        return self.op(self.map) + x.mean()


@pytest.mark.parametrize("index", [None, torch.tensor([1, 0, 1, 2])])
def test_an_input_that_all_samples_share_meets_the_weights_of_each(index):
    mutator = mutator_of(Template())
    x, c = torch.zeros(4, 1), torch.randn(4, 3)
    expected = alone(lambda x, c: mutator(x, context=c), x, c if index is None else c[index])
    torch.testing.assert_close(mutator(x, context=c, index=index), expected, **CLOSE)


class Choice(ModelSpace):
    def __init__(self):
        super().__init__()
        kernels = {f"k{k}": DynamicConv2d(2, 4, k, padding=k // 2) for k in (1, 3, 5)}
        self.op = LayerChoice(kernels, label="op")

    def forward(self, x):
        with repeated("tiled"):
            return self.op(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (x.shape[1], -1)).transpose(0, 1)


@pytest.mark.parametrize("sampler", [RandomSampler, GdasSampler, DartsSampler])
def test_choices_and_mixtures_take_the_word(sampler, monkeypatch):
    monkeypatch.setattr("nni_dynconv.supernet.mixture.WORTH", 1)
    mutator = mutator_of(Choice(), sampler=sampler(seed=0))
    x, c = frames(4, 3)
    if sampler is GdasSampler:
        with mutator.using(mutator.sample):
            torch.testing.assert_close(mutator(x, context=c), alone(lambda x, c: mutator(x, context=c), x, c), **CLOSE)
        return
    torch.testing.assert_close(mutator(x, context=c), alone(lambda x, c: mutator(x, context=c), x, c), **CLOSE)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1))

    def forward(self, a, b):
        f, g = self.enc(torch.cat([a, b])).chunk(2)
        return f - g


@pytest.mark.parametrize("repeats", ["tiled", {"enc.*": "tiled"}, {"enc.0": "tiled", "*.1": "tiled"}])
def test_a_lifted_network_takes_the_word_of_lift(repeats, tmp_path):
    torch.manual_seed(0)
    mutator = lift(Siamese(), base="learned", repeats=repeats).mutator(context=VectorContext(3, 8)).eval()
    a, b, c = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8), torch.randn(4, 3)
    assert mutator(a, a, context=c).abs().max() < 1e-5
    expected = torch.cat([mutator(a[i : i + 1], b[i : i + 1], context=c[i : i + 1]) for i in range(4)])
    network = mutator.freeze({})
    export.save(network, tmp_path)
    for run in (lambda: mutator(a, b, context=c), lambda: network(a, b, c), lambda: load(tmp_path)(a, b, context=c)):
        torch.testing.assert_close(run(), expected, **CLOSE)


def test_windows_of_a_sample_are_told_from_views():
    """Windows lie side by side; taken as views they would get other samples' weights."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(4, 6)

        def forward(self, x):  # B H W C
            B, H, W, C = x.shape
            windows = x.view(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, C)
            return self.qkv(windows).view(B, -1, 6)

    x, c = torch.randn(3, 4, 4, 4), torch.randn(3, 3)
    refused = lift(Windows(), where=nn.Linear, base="learned").mutator(context=VectorContext(3, 8))
    with pytest.raises(ShapeError, match="`qkv`.*12 samples, but the forward has 3"):
        refused(x, context=c)
    told = lift(Windows(), where=nn.Linear, base="learned", repeats="consecutive").mutator(context=VectorContext(3, 8))
    told.eval()
    torch.testing.assert_close(told(x, context=c), alone(lambda x, c: told(x, context=c), x, c), **CLOSE)


def test_another_word_is_refused_where_it_is_said():
    with (
        pytest.raises(ConfigError, match="`repeated`: .*'tiled' or 'consecutive', but not 'tile'.*`tiled`"),
        repeated("tile"),
    ):
        pass
    with pytest.raises(ConfigError, match="`DynamicConv2d`: .*not 'interleaved'"):
        OPS["conv"](repeats="interleaved")
    with pytest.raises(ConfigError, match="`repeats` of `lift`: .*not 'x'"):
        lift(Siamese(), repeats={"enc.0": "x"})


# Where a forward runs again, elsewhere, or is traced


class Checkpointed(ModelSpace):
    """Says how samples lie inside of what runs again, or around it."""

    def __init__(self, reentrant, around):
        super().__init__()
        self.op, self.second = OPS["conv"](), DynamicConv2d(4, 2, 3, padding=1)
        self.reentrant, self.around, self.kept = reentrant, around, True

    def _both(self, x):
        return self.second(self.op(x).relu())

    def _inside(self, x):
        with repeated("tiled"):
            return self._both(x)

    def forward(self, x):
        folded = x.transpose(0, 1).flatten(0, 1)
        run = self._both if self.around else self._inside
        with repeated("tiled" if self.around else "consecutive"):
            if self.kept:
                return run(folded)
            return checkpoint(run, folded, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("around", [True, False])
def test_checkpointed_layers_have_the_same_gradients(reentrant, around):
    space = Checkpointed(reentrant, around)
    mutator = mutator_of(space).train()
    x, c = frames(3, 2)

    def gradients():
        mutator.zero_grad()
        mutator(x.clone().requires_grad_(), context=c).square().sum().backward()
        return [one.grad.clone() for one in mutator.space.parameters()]

    expected = gradients()
    space.kept = False
    for found, wanted in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, wanted, **CLOSE)


def test_an_op_that_ran_under_two_words_around_a_checkpoint_is_refused_in_the_backward():
    class Twice(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = OPS["conv"]()

        def forward(self, x):
            with repeated("tiled"):
                y = checkpoint(self.op, x.transpose(0, 1).flatten(0, 1), use_reentrant=True)
            with repeated("consecutive"):
                return y.sum() + checkpoint(self.op, x.flatten(0, 1), use_reentrant=True).sum()

    mutator = mutator_of(Twice())
    x, c = frames(3, 2)
    loss = mutator(x.requires_grad_(), context=c)
    with pytest.raises(ShapeError, match="whose are the others"):
        loss.backward()


def test_the_word_of_one_thread_is_not_heard_in_another():
    mutator = mutator_of(Frames(OPS["conv"](), "tiled"))
    x, c = frames(4, 2)
    caught, go = [], threading.Event()

    def other():
        go.wait()
        try:
            mutator(x, context=c)
        except ShapeError as error:
            caught.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    with repeated("tiled"):
        go.set()
        thread.join()
        torch.testing.assert_close(mutator(x, context=c), alone(lambda x, c: mutator(x, context=c), x, c), **CLOSE)
    assert len(caught) == 1


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore")  # the scope, opened and closed
@each_once(op=["conv", "linear", "separable"], order=["tiled", "consecutive"], strict=[False, True], otherwise="slow")
def test_a_folding_network_is_exported_with_a_batch_of_any_size(op, order, strict):
    network = mutator_of(Frames(OPS[op](), order, order)).freeze()
    batch = torch.export.Dim("batch")
    shapes = ({0: batch}, {0: batch})
    exported = torch.export.export(network, frames(3, 2), dynamic_shapes=shapes, strict=strict).module()
    for size in (1, 2, 7):
        torch.testing.assert_close(exported(*frames(size, 2)), network(*frames(size, 2)), **CLOSE)


@pytest.mark.whole
@pytest.mark.parametrize("order", by_default("tiled", of=["tiled", "consecutive"], otherwise="slow"))
def test_a_folding_network_is_compiled(order):
    torch._dynamo.reset()
    network = mutator_of(Frames(OPS["conv"](), order, order)).freeze()
    compiled = torch.compile(network, backend="eager", fullgraph=True, dynamic=True)
    for size in (2, 3, 5):
        torch.testing.assert_close(compiled(*frames(size, 2)), network(*frames(size, 2)), **CLOSE)


@pytest.mark.parametrize("what", ["input", "output"])
def test_an_index_does_not_leave_rows_where_they_were(what):
    """What has several rows for each sample was neither sorted with the samples nor sorted back."""

    class Flat(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = OPS["conv"]()

        def forward(self, x, boxes=None):
            y = self.op(x)
            return torch.cat([y, y]) if boxes is None else y

    mutator = mutator_of(Flat())
    x, c = torch.randn(4, 2, 5, 6), torch.randn(2, 3)
    boxes = {"boxes": torch.randn(8, 4)} if what == "input" else {}
    for run in (lambda **more: mutator(x, context=c, **more), lambda **more: mutator.freeze()(x, c, **more)):
        run(index=torch.tensor([0, 0, 1, 1]), **boxes)
        with pytest.raises(ContextError, match=rf"`index` sorts the 4 samples.*an {what} \(8, .*8 rows, 2 for each"):
            run(index=torch.tensor([1, 0, 1, 0]), **boxes)


class Record:
    """Inputs or outputs that only a network's own code can look into."""

    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize(
    ("wrap", "named"),
    [
        (Record, "Record"),
        (lambda x: UserDict(x=x), "UserDict"),
        (lambda x: list(torch.ones(4, 2, 5, 6)), "list"),
        (lambda x: ["a", "b", "c", "d"], "list"),
        (lambda x: x.numpy(), "ndarray"),
    ],
)
@pytest.mark.parametrize("what", ["input", "output"])
def test_an_index_sorts_no_samples_that_it_cannot_find(wrap, named, what):
    """They were left as they stood, and had one another's weights."""

    class Wraps(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = OPS["conv"]()

        def forward(self, x, more=None):
            y = self.op(x)
            return y if what == "input" else wrap(y.detach())

    mutator = mutator_of(Wraps())
    x, c = torch.randn(4, 2, 5, 6), torch.randn(2, 3)
    more = {"more": wrap(x)} if what == "input" else {}
    for run in (
        lambda **index: mutator(x, context=c, **index, **more),
        lambda **i: mutator.freeze()(x, c, **i, **more),
    ):
        run(index=torch.tensor([0, 0, 1, 1]))
        with pytest.raises(ContextError, match=rf"`index` sorts the 4 samples.*an {what} is a {named} in which"):
            run(index=torch.tensor([1, 0, 1, 0]))


class OneByOne(ModelSpace):
    """It runs its op in a loop over samples, and takes something of each."""

    def __init__(self):
        super().__init__()
        self.op = OPS["conv"]()

    def forward(self, x):
        return torch.stack([self.op(one[None]).mean() for one in x])


@pytest.mark.parametrize("index", [None, torch.tensor([1, 0, 1, 2])])
def test_a_loop_over_samples_is_refused(index):
    """Each sample was taken for one that all share, and had the weights of all."""
    mutator = mutator_of(OneByOne())
    x, c = torch.randn(4, 2, 5, 6), torch.randn(4, 3)
    for run in (mutator, mutator.freeze()):
        with pytest.raises(ShapeError, match=r"`op`: its input \(1, 2, 5, 6\) has one sample, again in this forward"):
            run(x, context=c, index=index)
        assert run(x[:1], context=c[:1]).shape == (1,)
        assert run(x, context=c[:1]).shape == (4,)  # all share it


def test_what_all_share_is_seen_once_more_by_a_checkpoint_and_in_the_next_forward():
    class Checkpointed(Template):
        def forward(self, x):
            return checkpoint(self.op, self.map, use_reentrant=False) + x.mean()

    mutator = mutator_of(Checkpointed())
    x, c = torch.zeros(4, 1), torch.randn(4, 3)
    for _ in range(2):
        mutator(x, context=c).sum().backward()
    with mutator.using(mutator.sample, context=c):
        torch.testing.assert_close(mutator.space(x), mutator.space(x))


def test_a_batch_that_is_the_second_axis_is_pointed_at():
    class TimeFirst(ModelSpace):
        def __init__(self):
            super().__init__()
            self.op = DynamicLinear(6, 4)

        def forward(self, x):
            return self.op(x.transpose(0, 1)).transpose(0, 1)

    mutator = mutator_of(TimeFirst())
    for times in (8, 5):
        with pytest.raises(ShapeError, match=r"`op`.* the forward has 4 \(axis 1 has as many: .*x.transpose\(0, 1\)"):
            mutator(torch.randn(4, times, 6), context=torch.randn(4, 3))
