"""Two processes search as one: `DistributedDataParallel` in a plain loop, and Lightning's DDP, on a CPU (gloo)."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.nn.functional as F
from often import by_default
from toy_task import ToyModule

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.nas.experiment import NasExperiment
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from pytorch_lightning import Callback
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

from nni_dynconv import (
    DiagnosisCallback,
    DynamicConv2d,
    DynamicWeightMutator,
    EnasSampler,
    FairSampler,
    GdasSampler,
    RandomSampler,
    VectorContext,
)
from nni_dynconv.errors import CandidateError, NotFiniteError
from nni_dynconv.runs import Run
from nni_dynconv.samplers.distributed import agree, mean
from nni_dynconv.search.guarding import Guard
from nni_dynconv.settings import TABLES, load_object
from nni_dynconv.settings.parts import StrategySettings
from nni_dynconv.supernet.calibration import calibrate

ROOT = Path(__file__).parents[2]
PROCESSES = 2
CLOSE = {"rtol": 1e-6, "atol": 1e-9}
SAMPLERS = [load_object(part.dotted) for part in TABLES["sampler"].values()]


@pytest.fixture(autouse=True)
def loopback(tmp_path, monkeypatch):
    """Processes meet on the loopback address only; NNI writes into the test's folder."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "nni"))
    yield
    logging.getLogger("nni").handlers.clear()


class Space(ModelSpace):
    """Generated and ordinary weights, in a choice and outside."""

    def __init__(self):
        super().__init__()
        self.stem = DynamicConv2d(1, 4, 1)
        candidates = {f"conv{k}": DynamicConv2d(4, 4, k, padding=k // 2) for k in (1, 3)}
        self.one = LayerChoice({**candidates, "static": nn.Conv2d(4, 4, 3, padding=1)}, label="one")
        self.two = LayerChoice({"conv": DynamicConv2d(4, 1, 3, padding=1), "static": nn.Conv2d(4, 1, 1)}, label="two")

    def forward(self, x):
        return self.two(self.one(self.stem(x)).tanh())


def made(sampler, seed):
    """Make a mutator in float64: Adam makes much of the last bits of a small gradient."""
    torch.manual_seed(seed)
    mutator = DynamicWeightMutator(Space(), sampler=sampler(seed=seed), context=VectorContext(3, dim=4), base="learned")
    return mutator.double()


def data(samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, c = (torch.randn(samples, *shape, generator=generator).double() for shape in ((1, 6, 6), (3,)))
    return x, c, c.mean(1)[:, None, None, None] * F.avg_pool2d(x, 3, 1, 1)


# Processes


def in_processes(work, folder, *arguments):
    """Run ``work(rank, *arguments)`` in processes of one gloo group and return what each gave."""
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_member, args=(work, rank, folder, arguments), daemon=True) for rank in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    for process in processes:
        process.kill()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    return [read(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def read(path):
    return torch.load(path, weights_only=False)  # NNI's labels are no plain strings


def _member(work, rank, folder, arguments):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
    dist.destroy_process_group()


def drawn_after_different_pasts(rank, sampler):
    mutator = made(sampler, seed=0)
    for _ in range(rank + 1):
        mutator.reset()
    samples = []
    for _ in range(8):
        agree(mutator.sampler)
        samples.append(mutator.reset())
    return samples


@pytest.mark.parametrize("sampler", [RandomSampler, FairSampler, GdasSampler])
def test_processes_agree_on_each_architecture_also_when_they_have_drawn_differently(sampler, tmp_path):
    first, second = in_processes(drawn_after_different_pasts, tmp_path, sampler)
    assert first == second
    assert len({tuple(sample.values()) for sample in first}) > 1


def test_the_mean_is_over_all_processes_and_over_one_alone_its_own_value(tmp_path):
    assert in_processes(lambda rank: mean(10.0**rank), tmp_path) == [5.5, 5.5]
    assert mean(3.0) == 3.0


def assert_same(found, expected, rtol=0.0, atol=0.0):
    """Compare nested values: tensors and floats to a tolerance, all else exactly."""
    (leaves, tree), (wanted, wanted_tree) = pytree.tree_flatten(found), pytree.tree_flatten(expected)
    assert tree == wanted_tree
    for one, other in zip(leaves, wanted, strict=True):
        if isinstance(one, (torch.Tensor, float)):
            torch.testing.assert_close(one, other, rtol=rtol, atol=atol)
        else:
            assert one == other


# The plain loop


def search(mutator, network, batches):
    """Train weights and architecture in turn; return the samples, the first step's gradients, and how it ended."""
    roles = mutator.parameters_by_role()
    optimizer = torch.optim.Adam(roles["weights"] + roles["controller"], lr=0.01)
    architecture = mutator.sampler.optimizer()
    samples, gradients = [], {}
    for number, batch in enumerate(batches):
        mutator.zero_grad()
        if number % 2 and architecture is not None:
            mutator.architecture_loss(lambda held_out=batch: _loss(network, held_out)).backward()
            architecture.step()
            samples.append(dict(mutator.sample))
            continue
        agree(mutator.sampler)
        samples.append(mutator.reset())
        with torch.set_grad_enabled(number % 2 == 0):
            loss = _loss(network, batch)
        if number % 2 == 0:
            loss.backward()
            gradients = gradients or {name: one.grad for name, one in mutator.named_parameters()}
            optimizer.step()
        else:
            mutator.sampler.observe(samples[-1], -mean(loss.item()))
    return samples, gradients, mutator.state_dict()


def _loss(network, batch):
    x, c, y = batch
    return F.mse_loss(network(x, context=c), y)


def guarded(rank, option):
    """What each process makes of a loss that is no number in the second one."""
    mutator = made(RandomSampler, 0)
    mutator.reset()
    guard = Guard(mutator, StrategySettings(on_not_finite=option))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            _, fine = guard.forward(lambda: torch.tensor(float("nan") if rank else 1.0), lambda loss: loss, "Step 3")
        except (NotFiniteError, CandidateError) as error:
            return str(error)
    return fine, guard.skipped, [str(one.message) for one in said]


def test_all_processes_leave_a_step_out_together_and_stop_together(tmp_path):
    """One alone would leave the others waiting for its gradients."""
    first, second = in_processes(guarded, tmp_path, "skip")
    assert first[:2] == second[:2] == (False, 1)
    assert "Another process of this search" in first[2][0] and "Step 3: the loss of architecture" in second[2][0]
    (tmp_path / "meeting").unlink(missing_ok=True)
    first, second = in_processes(guarded, tmp_path, "stop")
    assert "Another process of this search" in first and "Step 3: the loss of architecture" in second


def statistics(rank, together):
    """What a process's norm has after it gathered on batches of its own, which are ragged; the second one may fail."""
    network = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU(), nn.BatchNorm1d(2))
    mine = torch.arange(20.0).view(10, 2)[: 3 if rank == 0 else None].add(rank).split([3, 7][: 1 + rank])

    def run(batch):
        if rank and together == "broken":
            raise ValueError("broken batch")
        network(batch)

    try:
        calibrate(network, run, mine, together=bool(together))
    except (ValueError, CandidateError) as error:
        return str(error)
    return torch.stack([value for one in network[::2] for value in (one.running_mean, one.running_var)])


def test_processes_gather_batchnorms_statistics_as_one(tmp_path):
    """Each used to be measured with the statistics of its own batches."""
    first, second = in_processes(statistics, tmp_path, "all")
    assert torch.equal(first, second)
    x = torch.arange(20.0).view(10, 2)
    network = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU(), nn.BatchNorm1d(2))
    calibrate(network, network, [torch.cat([x[:3], x + 1])])
    expected = [value for one in network[::2] for value in (one.running_mean, one.running_var)]
    torch.testing.assert_close(first, torch.stack(expected), rtol=1e-5, atol=1e-5)
    (tmp_path / "meeting").unlink(missing_ok=True)
    first, second = in_processes(statistics, tmp_path, "broken")
    assert first == "Another process could not run a batch for BatchNorm's statistics." and second == "broken batch"


STEPS = 8
BATCH = 6


def batches(rank=0, processes=1):
    """Batches of a process: every so many-th sample of the joint ones."""
    return [[one[rank::processes] for one in data(BATCH, seed)] for seed in range(STEPS)]


def part_of_the_search(rank, sampler):
    mutator = made(sampler, seed=rank)
    network = DistributedDataParallel(mutator, find_unused_parameters=True)
    return search(mutator, network, batches(rank, PROCESSES))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_processes_train_as_one_process_with_the_joint_batch(sampler, tmp_path):
    both = in_processes(part_of_the_search, tmp_path, sampler)
    alone = made(sampler, seed=0)
    samples, gradients, state = search(alone, alone, batches())
    for own_samples, own_gradients, own_state in both:
        assert own_samples == samples
        assert_same(own_gradients, gradients, **CLOSE)
        assert_same(own_state, state, **CLOSE)
    assert_same(both[0], both[1])


# Lightning


class Share(torch.utils.data.Sampler):
    """Every so many-th sample, in order: Lightning's own sampler shuffles, and then no batch is the joint one."""

    def __init__(self, samples):
        self.samples = samples

    def _range(self):
        rank, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        return range(rank, self.samples, processes)

    def __iter__(self):
        return iter(self._range())

    def __len__(self):
        return len(self._range())


class Record(Callback):
    """Write down each step's sample, and how a process ended."""

    def __init__(self, mutator, folder):
        self.mutator, self.folder, self.samples = mutator, folder, []

    def on_fit_start(self, trainer, module):
        for _ in range(trainer.global_rank):  # processes with different pasts
            self.mutator.sampler.sample()

    def on_train_batch_end(self, trainer, *_):
        self.samples.append(self.mutator.sample)

    def on_fit_end(self, trainer, module):
        torch.save((self.samples, module.state_dict()), self.folder / f"{trainer.global_rank}.pt")


def evaluator(record, batch, module=None, **options):
    x, c, y = data(24)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    pairs = [((one, context), target) for one, context, target in zip(x, c, y, strict=True)]
    own = DataLoader(pairs, batch_size=batch, sampler=Share(len(pairs)))
    loaders = {"train_dataloaders": own, "val_dataloaders": own}
    options = {**quiet, "max_epochs": 2, "accelerator": "cpu", "use_distributed_sampler": False, **options}
    trainer = Trainer(callbacks=[record], **options)
    return Lightning(module or ToyModule(), trainer, **loaders)


def experiment(sampler, folder, batch, seed=0, rerank=0, ending=None, **options):
    folder.mkdir(exist_ok=True)
    mutator = made(sampler, seed)
    task = evaluator(Record(mutator, folder), batch, **options)
    strategy = mutator.strategy(contenders=3, rerank=rerank, rerank_steps=2, **{"final_epochs": 0, **(ending or {})})
    search = NasExperiment(mutator.space, task, strategy)
    search.run()
    (best,) = search.export_top_models(formatter="dict")
    return mutator, best


def check_as_one(sampler, folder):
    """Compare how two processes ended with each other, and with one process that saw the joint batches."""
    first, second = (read(folder / "both" / f"{rank}.pt") for rank in range(PROCESSES))
    assert_same(first, second)
    _, best = experiment(sampler, folder / "alone", 8)
    samples, state = read(folder / "alone" / "0.pt")
    assert first[0] == samples and len(samples) == 6
    assert_same(first[1], state, **CLOSE)
    return best, {name.removeprefix("sampler."): one for name, one in first[1].items() if name.startswith("sampler.")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sampler", by_default(GdasSampler, of=SAMPLERS, otherwise="slow"))
def test_an_experiment_under_lightnings_ddp_ends_as_in_one_process(sampler, tmp_path):
    mutator, best = experiment(sampler, tmp_path / "both", 4, strategy="ddp_fork", devices=PROCESSES)
    expected, state = check_as_one(sampler, tmp_path)
    assert best == expected
    assert_same(dict(mutator.sampler.state_dict()), state)  # it has come back from the processes that searched


@pytest.mark.filterwarnings("ignore")
def test_processes_that_train_the_best_few_in_the_end_settle_on_the_same_one(tmp_path):
    """Each trains copies on its own samples, and they decide by the mean."""
    mutator, best = experiment(EnasSampler, tmp_path / "both", 4, rerank=2, strategy="ddp_fork", devices=PROCESSES)
    first, second = (read(tmp_path / "both" / f"{rank}.pt") for rank in range(PROCESSES))
    assert_same(first, second)
    assert best == mutator.sampler.settled == first[1]["sampler._extra_state"]["settled"]


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rerank", by_default(2, of=[0, 2]))
def test_what_processes_found_is_trained_by_all_of_them_to_the_same_weights_as_by_one(rerank, tmp_path):
    """The final training's gradients are averaged, so two processes with half a batch each are one with the whole."""
    ended = {}
    for name, batch, options in (
        ("both", 4, {"strategy": "ddp_fork", "devices": PROCESSES}),
        ("alone", 8, {}),
    ):
        folder = tmp_path / name
        folder.mkdir()
        mutator = made(RandomSampler, 0)
        task = evaluator(Ends(folder), batch, module=Together(), **options)
        strategy = mutator.strategy(contenders=3, rerank=rerank, rerank_steps=2, final_epochs=2, folder=folder / "run")
        NasExperiment(mutator.space, task, strategy).run()
        ended[name] = strategy
        saved = safetensors.torch.load_file(folder / "run" / "weights.safetensors")
        assert_same({name: saved[name] for name in strategy.network.state_dict()}, dict(strategy.network.state_dict()))
        assert len(saved) == len(strategy.network.state_dict())
        assert Run.read(folder / "run").problems == {}  # exported too, by a process that has not called it
        assert strategy.trained.epochs == 2 and strategy.trained.best_epoch is not None
    first, second = (read(tmp_path / "both" / f"{rank}.pt") for rank in range(PROCESSES))
    assert_same(first, second)
    if not rerank:  # each process re-ranks on its own samples
        assert ended["both"].network.architecture == ended["alone"].network.architecture
        both, alone = (dict(ended[name].network.state_dict()) for name in ("both", "alone"))
        assert_same(both, alone, **CLOSE)


class Together(ToyModule):
    """Processes measure together, and so agree on the best epoch with one that sees all."""

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.mse_loss(self(x), y), sync_dist=True)


class Ends(Callback):
    """Write down what each process has when the final training ends."""

    def __init__(self, folder):
        self.folder = folder

    def on_fit_end(self, trainer, module):
        torch.save(module.state_dict(), self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_processes_evolve_the_same_architectures_and_the_front_comes_back(tmp_path):
    """Each measures on its own samples and by its own clock, and they decide by the means."""
    how = {"final_search": "evolution", "evaluations": 8, "population": 3, "objectives": ["seconds"], "sandwich": 1}
    options = {"strategy": "ddp_fork", "devices": PROCESSES, "ending": how}
    mutator, best = experiment(GdasSampler, tmp_path / "both", 4, rerank=2, **options)
    first, second = (read(tmp_path / "both" / f"{rank}.pt") for rank in range(PROCESSES))
    assert_same(first, second)
    assert best == mutator.sampler.settled == first[1]["sampler._extra_state"]["settled"]
    assert mutator.sampler.front == first[1]["sampler._extra_state"]["front"] != []


class Gathering(ToyModule):
    """Its step waits for the other processes, as that of a network with `SyncBatchNorm` does."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if dist.is_initialized():
            dist.all_reduce(loss.detach().clone())
        return loss


class Diagnoses(DiagnosisCallback):
    """Write down what each process found."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_fit_end(self, trainer, module):
        logged = trainer.callback_metrics.get("diagnosis/faults")
        torch.save((len(self.diagnoses), logged), self.folder / f"diagnoses{trainer.global_rank}.pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_processes_diagnose_together_and_the_first_one_logs(tmp_path):
    """Where the first one ran alone, a step that gathers from all of them waited for ever."""
    mutator = made(FairSampler, seed=0)
    task = evaluator(
        Record(mutator, tmp_path),
        4,
        strategy=DDPStrategy(start_method="fork", process_group_backend="gloo", timeout=timedelta(seconds=60)),
        devices=PROCESSES,
        module=Gathering(),
    )
    task.trainer.callbacks.append(Diagnoses(tmp_path))
    NasExperiment(mutator.space, task, mutator.strategy(contenders=0)).run()
    first, second = (read(tmp_path / f"diagnoses{rank}.pt") for rank in range(PROCESSES))
    assert first == (3, 0.0) and second == (3, None)
    assert_same(*(read(tmp_path / f"{rank}.pt") for rank in range(PROCESSES)))


SCRIPT = """
import os, sys
from pathlib import Path
import test_ddp

if __name__ == "__main__":
    sampler, folder = sys.argv[1:]
    seed = int(os.environ.get("LOCAL_RANK", 0))  # "ddp" starts this file once more for each further process
    test_ddp.experiment(getattr(test_ddp, sampler), Path(folder), 4, seed, strategy="ddp", devices=2)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_script_that_lightning_starts_again_for_each_process_ends_as_in_one(sampler, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, str(script), sampler.__name__, str(tmp_path / "both")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check_as_one(sampler, tmp_path)
