"""What a trial reports and writes: the architecture that it exports, measured once, by one process."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytorch_lightning as pl
import safetensors.torch
import torch
import torch.nn.functional as F
from nni_runs import Lab
from often import by_default, each_once
from toy_task import ToySpace
from trials import CLASS_ARGS, LOADERS, Module, settings, task

from nni_dynconv.nni_host import nas  # noqa: F401  isort: skip (before anything of nni.nas)
import nni
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.runtime.trial_command_channel import (
    TrialCommandChannel,
    get_default_trial_command_channel,
    set_default_trial_command_channel,
)
from pytorch_lightning.loggers import CSVLogger

from nni_dynconv import load
from nni_dynconv.errors import ConfigError, ContextError
from nni_dynconv.experiments import again, trial
from nni_dynconv.experiments.logs import keep_logs
from nni_dynconv.experiments.multi_trial import MultiTrial
from nni_dynconv.phases import STATE_FILE, watching
from nni_dynconv.runs import Run
from nni_dynconv.settings import check_class_args
from nni_dynconv.supernet.calibration import tracking_norms


class Recording(TrialCommandChannel):
    """What NNI is told, by whichever process."""

    def __init__(self, path):
        self.path = path

    def send_metric(self, type, parameter_id, trial_job_id, sequence, value):
        kind = {"PERIODICAL": "intermediate", "FINAL": "final"}[type]
        with self.path.open("a") as file:
            line = {"kind": kind, "value": value, "process": os.getpid(), "sequence": sequence}
            file.write(json.dumps(line) + "\n")


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """Lines that processes write: what is reported, and by which process."""
    path, before = tmp_path / "reported", get_default_trial_command_channel()
    path.touch()
    set_default_trial_command_channel(Recording(path))
    monkeypatch.setattr(nni.trial, "_params", {"parameters": {}, "parameter_id": 0})

    def read(kind):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if line["kind"] == kind]

    yield read
    set_default_trial_command_channel(before)


def loss_of(network):
    with torch.no_grad():
        losses = [F.mse_loss(network(x), y) for x, y in LOADERS.val_dataloaders]
    return float(sum(losses) / len(losses))


@pytest.mark.parametrize("sampler", by_default("gdas", of=["random", "fair", "gdas"], otherwise="slow"))
@pytest.mark.parametrize(
    ("strategy", "epochs"),
    [
        pytest.param({"contenders": 8, "rerank_steps": 10, "final_epochs": 0}, 0, marks=pytest.mark.whole),
        ({"contenders": 8, "rerank_steps": 10, "final_epochs": 3}, 3),
        ({"contenders": 0, "final_epochs": 0}, 0),
        pytest.param({"contenders": 0}, 2, marks=pytest.mark.whole),
    ],
    ids=["finals", "finals, trained", "plain", "plain, trained"],
)
def test_the_result_is_that_of_the_architecture_that_is_exported(sampler, strategy, epochs, reported, tmp_path):
    """It used to be that of what would have been exported after the last epoch: of another architecture, mostly."""
    for seed in range(2):
        folder = tmp_path / str(seed)
        trial.search(settings(sampler=sampler, strategy=strategy, seed=seed), folder, proposal=seed)
        result = reported("final")[-1]["value"]
        assert result["proposal"] == seed
        assert result["default"] == pytest.approx(loss_of(load(folder)), rel=1e-4)
        words = ", ".join(f"{label} = {one}" for label, one in load(folder).architecture.items())
        assert result["architecture"] == words
    assert len(reported("final")) == 2
    told = [(line["sequence"], line["value"]["phase"], line["value"]["epoch"]) for line in reported("intermediate")]
    once = [("search", 1), ("search", 2), *(("final", 1 + epoch) for epoch in range(epochs))]
    assert told == [(number, *one) for number, one in enumerate(once)] * 2


@pytest.mark.whole
@pytest.mark.parametrize("strategy", by_default({}, of=[{}, {"strategy": "ddp_fork", "devices": 2}]))
@pytest.mark.filterwarnings("ignore")
def test_the_front_of_a_search_stands_in_its_summary(strategy, reported, tmp_path):
    ending = {"final_search": "evolution", "evaluations": 4, "population": 2, "objectives": ["multiply_adds"]}
    options = {"strategy": {**ending, "rerank": 0, "final_epochs": 0}, "evaluator_args": strategy}
    trial.search(settings(sampler="random", **options), tmp_path)
    front = json.loads((tmp_path / "summary.json").read_text())["front"]
    assert front[0]["architecture"] == load(tmp_path).architecture
    costs = [row["multiply_adds"] for row in front]
    assert costs and costs == sorted(costs, reverse=True)


class NormedSpace(ToySpace):
    """The 3x3 and the 1x1 kernel give its norm other statistics."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(2)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


@pytest.mark.whole
@each_once(metric=["val_loss", None], strategy=[{"strategy": "ddp_fork", "devices": 2}, {}])
@pytest.mark.filterwarnings("ignore")
def test_what_is_saved_has_batchnorm_statistics_of_its_own_and_the_result_is_measured_with_them(
    metric, strategy, reported, tmp_path
):
    """They used to be the supernet's, a mixture over all architectures."""
    options = {"contenders": 8, "rerank": 0, "calibration_batches": 3, "final_epochs": 0}
    options = {"sampler": "random", "strategy": options}
    trial.search(settings(metric=metric, space=f"{__name__}:NormedSpace", evaluator_args=strategy, **options), tmp_path)
    network = load(tmp_path).eval()
    (norm,) = tracking_norms(network)
    assert norm.num_batches_tracked == 3 and norm.momentum == 0.1
    seen = []
    norm.register_forward_pre_hook(lambda norm, args: seen.append(args[0].mean((0, 2, 3))))
    loss = loss_of(network)
    torch.testing.assert_close(norm.running_mean, torch.stack(seen[:3]).mean(0))
    if metric and not strategy:  # of two processes, the first one tells the loss on its half
        assert reported("final")[-1]["value"]["default"] == pytest.approx(loss, rel=1e-4)
    supernet = safetensors.torch.load_file(tmp_path / "supernet" / "supernet.safetensors")
    assert supernet["norm.num_batches_tracked"] == 2 * 4 / strategy.get("devices", 1)


@pytest.mark.whole
def test_without_calibration_batches_the_statistics_are_the_supernets(reported, tmp_path):
    options = {"contenders": 4, "rerank": 0, "calibration_batches": 0, "final_epochs": 0}
    options = {"sampler": "random", "strategy": options}
    trial.search(settings(space=f"{__name__}:NormedSpace", **options), tmp_path)
    (norm,) = tracking_norms(load(tmp_path))
    supernet = safetensors.torch.load_file(tmp_path / "supernet" / "supernet.safetensors")
    assert torch.equal(norm.running_mean, supernet["norm.running_mean"])


@pytest.mark.whole
def test_an_evaluator_that_reports_by_itself_is_not_asked_for_more(reported, tmp_path):
    trial.search(settings(metric=None, evaluator="toy_task:evaluator", strategy={"contenders": 0}), tmp_path)
    assert len(reported("intermediate")) >= 2 and len(reported("final")) == 1


@pytest.mark.parametrize("metric", ["val_loss", None])
def test_a_trial_of_one_architecture_tells_each_epoch_and_its_result_once(metric, reported, tmp_path, monkeypatch):
    """With an evaluator that reports by itself it told all of it twice, which kills NNI's TPE: `KeyError`."""
    monkeypatch.setenv("NNI_CODE_DIR", str(tmp_path))
    one = {"mode": "multi_trial", "sampler": "random", "checkpoint": "shared", "evaluator": "toy_task:evaluator"}
    given = settings(**one, metric=metric)
    with reports_dropped():
        trial.warm_up(given, tmp_path / "shared")
    sample = {"first": "3", "last": "static"}
    trial.evaluate_one(given, sample, tmp_path / "run", proposal=5)
    (final,) = reported("final")
    assert final["value"]["proposal"] == 5 and final["value"]["architecture"] == "first = 3, last = static"
    loss = loss_of(load(tmp_path / "run"))
    assert final["value"]["default"] == pytest.approx(loss if metric else -loss, rel=1e-4)
    epochs = 2 if metric else 3  # the evaluator itself also reports the sanity check
    assert [line["sequence"] for line in reported("intermediate")] == list(range(epochs))
    assert Run.read(tmp_path / "run").facts["state"] == "trained"


@contextmanager
def reports_dropped():
    before = get_default_trial_command_channel()
    set_default_trial_command_channel(Recording(Path(os.devnull)))
    try:
        yield
    finally:
        set_default_trial_command_channel(before)


def test_a_metric_that_is_not_logged_is_told(reported, tmp_path):
    with pytest.raises(ConfigError, match="`metric` is `val_acc`, but the evaluator logs"):
        trial.search(settings(metric="val_acc"), tmp_path)


def paired(epochs=1, batches=2):
    """Batches ``((x, context), y)``."""
    quiet = dict.fromkeys(("enable_checkpointing", "logger", "enable_progress_bar", "enable_model_summary"), False)
    data = [((one, torch.rand(3)), one) for one in torch.rand(8 * batches, 1, 8, 8)]
    loaders = {f"{name}_dataloaders": DataLoader(data, batch_size=8) for name in ("train", "val")}
    return Lightning(Module(), Trainer(max_epochs=epochs, accelerator="cpu", **quiet), **loaders)


@each_once(space=["toy_task:ToySpace", f"{__name__}:StaticFirst"], sampler=["random", "darts"])
def test_batches_with_a_context_that_no_setting_asks_for_are_refused(space, sampler, reported, tmp_path):
    """The first layer was given the pair, and died of it in its own words."""
    given = settings(space=space, sampler={"name": sampler}, context=None, evaluator=f"{__name__}:paired")
    with pytest.raises(ContextError, match=r"\(x, context\)`.*in a YAML under `context`"):
        trial.search(given, tmp_path)


class StaticFirst(ToySpace):
    def forward(self, x):
        return super().forward(x.relu())


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("epochs", by_default(2, of=[0, 2]))
def test_of_several_processes_the_first_one_reports_and_writes(epochs, reported, tmp_path, capsys):
    """The trial's own process used to know of no result, and each of the others reported its own."""
    options = {"contenders": 2, "rerank": 0, "final_epochs": epochs}
    options = {"evaluator_args": {"strategy": "ddp_fork", "devices": 2}, "strategy": options}
    trial.search(settings(sampler="gdas", **options), tmp_path, proposal=3)
    assert "write no checkpoints: killed, the run begins anew" in capsys.readouterr().out
    (final,) = reported("final")
    assert final["process"] == os.getpid() and final["value"]["proposal"] == 3
    assert len({line["process"] for line in reported("intermediate")}) == (2 if epochs else 1)  # two times forked
    assert [line["sequence"] for line in reported("intermediate")] == list(range(2 + epochs))
    assert load(tmp_path).architecture == json.loads((tmp_path / "summary.json").read_text())["architecture"]


def test_a_further_process_gets_the_proposal_from_the_first(monkeypatch):
    """NNI tells a proposal once, so the second process of Lightning's `ddp` used to wait for ever."""
    told = iter([{"proposal": 4}])
    monkeypatch.setenv(trial.PROPOSAL, "{}")
    monkeypatch.setattr(trial.nni, "get_next_parameter", lambda: next(told))
    assert trial.next_proposal() == {"proposal": 4}
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert trial.next_proposal() == {"proposal": 4}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_fork"])
def test_a_trial_of_several_processes_ends_under_nni(strategy, tmp_path, monkeypatch):
    """Under `ddp` Lightning starts the whole trial again for each further process."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    lab = Lab(tmp_path)
    try:
        command = "python3 -m nni_dynconv.trial"
        class_args = {**CLASS_ARGS, "sampler": "gdas", "evaluator_args": {"strategy": strategy, "devices": 2}}
        path = lab.write(class_args, trialCommand=command, maxTrialNumber=1)
        document = path.read_text().replace("trialCodeDirectory: .", f"trialCodeDirectory: {Path(__file__).parents[1]}")
        path.write_text(document)
        status, output, error = lab.run("launch", path, "--output", "best", timeout=300)
        assert status == 0, output + error
        assert "1 succeeded, 0 failed" in output
        trial_id = json.loads((tmp_path / "best" / "experiment.json").read_text())["best_trial"]
        assert output.count(f"({trial_id})  result") == 1
        assert load(tmp_path / "best").architecture
    finally:
        lab.end_processes()


def test_a_warm_up_that_lightning_would_start_again_for_each_process_is_refused(tmp_path):
    """It used to wait for the second process, which did not find the YAML."""
    given = settings(mode="multi_trial", sampler="random", checkpoint="shared")
    with pytest.raises(ConfigError, match='starts this command again for each further process.*`strategy="ddp_fork"`'):
        trial.warm_up({**given, "evaluator_args": {"strategy": "ddp", "devices": 2}}, tmp_path / "shared")


@pytest.mark.filterwarnings("ignore")
def test_a_warm_up_of_several_processes_writes_a_checkpoint(tmp_path):
    given = settings(mode="multi_trial", sampler="random", checkpoint="shared")
    trial.warm_up({**given, "evaluator_args": {"strategy": "ddp_fork", "devices": 2}}, tmp_path / "shared")
    assert any((tmp_path / "shared").iterdir())


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return LOADERS.train_dataloaders

    def val_dataloader(self):
        return LOADERS.val_dataloaders


@pytest.mark.whole
def test_a_data_module_is_validated_as_well(reported, tmp_path, monkeypatch):
    plain = task

    def with_module(**options):
        made = plain(**options)
        made.datamodule = Data()
        made.train_dataloaders = made.val_dataloaders = None
        return made

    monkeypatch.setattr("trials.task", with_module)
    trial.search(settings(sampler="random", strategy={"contenders": 4, "rerank": 0}), tmp_path)
    assert reported("final")[-1]["value"]["default"] == pytest.approx(loss_of(load(tmp_path)), rel=1e-4)


def test_a_warm_up_trains_by_the_users_strategy(monkeypatch, tmp_path):
    """It used to leave the section out."""
    seen = []
    monkeypatch.setattr(trial, "train_supernet", lambda mutator, evaluator, options: seen.append(options))
    strategy = {"gradient_clip_val": 1.0, "norm_affine": False}
    given = settings(mode="multi_trial", sampler="random", checkpoint="shared", strategy=strategy)
    trial.warm_up(given, tmp_path / "shared")
    assert seen == [{"gradient_clip_val": 1.0, "norm_affine": False, "contenders": 0, "rerank": 0}]


# Seeds, logs, words, phases


class NoisyModule(Module):
    """Its training draws from torch's global generator, as shuffles and dropout do."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return super().training_step((x + 0.1 * torch.randn_like(x), y), batch_idx)


def noisy(epochs=1):
    made = task(epochs)
    loaders = {"train_dataloaders": made.train_dataloaders, "val_dataloaders": made.val_dataloaders}
    return Lightning(NoisyModule(), made.trainer, **loaders)


@pytest.mark.filterwarnings("ignore")
def test_a_repeat_of_an_architecture_in_multi_trial_mode_is_another_training(reported, tmp_path, monkeypatch):
    """Repeats used to be bit-identical, although a trial adds its number to the seed."""
    multi = {"mode": "multi_trial", "checkpoint": "shared", "sampler": "random", "evaluator": f"{__name__}:noisy"}
    multi["evaluator_args"] = {}
    trial.warm_up(settings(**multi), tmp_path / "shared")
    monkeypatch.setenv("NNI_CODE_DIR", str(tmp_path))
    engine = MultiTrial(check_class_args({**CLASS_ARGS, **multi}), tmp_path)
    sample = {"first": "3", "last": "dynamic"}
    proposals = [engine.propose(number, number)[1] for number in (0, 1)]
    assert [one["settings"]["seed"] for one in proposals] == [0, 1]
    for one in (*proposals, proposals[0]):
        trial.evaluate_one(one["settings"], sample, tmp_path / "trial")
    first, second, again = [line["value"] for line in reported("final")]
    assert first == again != second


def logging_task(own=True):
    made = task(1)
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False)
    logger = {"logger": CSVLogger(str(Path.cwd()))} if own else {}
    trainer = Trainer(max_epochs=1, accelerator="cpu", **logger, **quiet)
    loaders = {"train_dataloaders": made.train_dataloaders, "val_dataloaders": made.val_dataloaders}
    return Lightning(Module(), trainer, **loaders)


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("own", by_default(True, of=[True, False]))
def test_lightnings_logs_lie_in_the_trials_folder(own, reported, tmp_path, monkeypatch):
    """They used to lie in the code directory, of all trials together; those of the final training did longer."""
    code, folder = tmp_path / "code", tmp_path / "trial"
    for one in (code, folder):
        one.mkdir()
    monkeypatch.chdir(code)
    trial.search(settings(evaluator=f"{__name__}:logging_task", evaluator_args={"own": own}), folder)
    again.train_on(folder, 1)
    assert not list(code.iterdir()) and list(folder.glob("lightning_logs/**/metrics.csv"))


def test_a_place_that_the_user_named_stays(tmp_path):
    mine = tmp_path / "mine"
    trainer = Trainer(max_epochs=1, accelerator="cpu", default_root_dir=str(mine), logger=CSVLogger(str(mine)))
    keep_logs(trainer, tmp_path / "trial")
    assert trainer.default_root_dir == str(mine) and trainer.logger.save_dir == str(mine)


def test_a_trial_that_fails_leaves_its_error_in_words(reported, tmp_path, monkeypatch):
    parameters = {"mode": "one_shot", "settings": settings(metric="val_acc")}
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path))
    monkeypatch.setattr(trial, "next_proposal", lambda: parameters)
    with pytest.raises(ConfigError):
        trial.main()
    assert "`metric` is `val_acc`, but the evaluator logs" in (tmp_path / "error.txt").read_text()
    assert not (tmp_path / STATE_FILE).exists()


def test_a_trial_tells_its_phases_in_order(reported, tmp_path):
    told = []
    with watching(told.append):
        trial.search(settings(sampler="random", strategy={"contenders": 4, "rerank": 2, "rerank_steps": 1}), tmp_path)
    phases = list(dict.fromkeys(state.phase for state in told))
    assert phases[:4] == ["building", "search", "comparing", "re-ranking"]
    search = [state for state in told if state.phase == "search"]
    assert search[0].done == 0 and search[-1].done == search[-1].total == 2
    assert set(search[-1].metrics) == {"val_loss"}
    comparing = [state.done for state in told if state.phase == "comparing"]
    assert comparing == list(range(len(comparing))) and comparing[-1] >= 2


def test_recipes_that_are_left_open_are_picked_by_the_first_batch_and_kept_with_the_run(tmp_path, capfd):
    given = settings(base="learned", delta="auto", making_budget=2.0)
    mutator, _, _ = trial.build(given)
    assert {one.site for one in mutator.fitted.sites} == set(mutator.source.sites)
    assert "recipes by `delta='auto'`, making_budget=2" in capfd.readouterr().out

    kept = trial._decided(given, mutator)
    Run(tmp_path).begin(settings=dict(kept))
    assert trial._decided_in(given, tmp_path) == kept
    assert trial._decided_in({**given, "seed": 7}, tmp_path) == {**given, "seed": 7}  # of another run
    again_, _, _ = trial.build(kept)
    assert again_.fitted is None
    assert again_.source.recipes == mutator.source.recipes
