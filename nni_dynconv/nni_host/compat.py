"""What is broken in NNI 3.0 on today's Python, torch and Lightning, each with how to see it.

Nothing happens on import. ``nni_dynconv.nni_host.nas`` calls all but :func:`mend_resume` and :func:`say_if_late`, which
are the tuner's, :func:`mend_start`, which is that of ``nnictl``, and :func:`mend_cells` and :func:`mend_proxyless`,
which are the supernet's.

1. Import order (:func:`load_nni_nas`). ``import nni.nas.oneshot.pytorch.strategy`` before ``nni.nas.strategy`` goes
   round in a circle, and NNI's one-shot strategies silently become ``ImportFailedStrategy``. See it: import both in
   that order, then look at ``nni.nas.strategy.DARTS``.
2. Import noise (:func:`load_nni_nas`). ``import nni.nas.nn.pytorch`` warns that it does not know torch's newer
   classes (``Buffer``, ``LinearCrossEntropyOptions``). See it: ``python -W error -c "import nni.nas.nn.pytorch"``.
   And ``gym``, where NNI's ENAS finds it, prints that it is no longer maintained.
3. Resumed experiments (:func:`mend_resume`). A trial that was interrupted runs again as soon as ``nnictl resume``
   starts. When it ends before the tuner has loaded, NNI's dispatcher drops its result ("Find unknown job parameter
   id"); it also takes parameter id 0 for one of the earlier run, and dies of ``KeyError: 0``. See it: resume an
   experiment whose tuner sleeps for 30 s in ``update_search_space``.
4. Freezing without a bias (:func:`mend_freeze`). A supernet with ``MutableConv2d(..., bias=False)`` or the like, which
   most of NNI's hub has, cannot be frozen: "Unexpected key(s) in state_dict: "bias"". See it:
   ``RandomOneShot().mutate_model(space).freeze(sample)``.
5. Checkpoints (:func:`mend_checkpoints`). ``NasExperiment(...).load(id)`` reads what it saved by ``torch.load``, which
   since torch 2.6 takes tensors only: "Weights only load failed". See it: save and load the ``state_dict()`` of NNI's
   ``Random``, ``GridSearch`` or ``RegularizedEvolution`` by ``nni.nas.utils.serializer.TorchSerializer``.
6. NNI's ``ENAS`` (:func:`mend_enas`). Lightning 2 no longer tells a training step which loader a batch is from: ENAS
   takes the labels for that, and trains no weights; a batch of four parts is "too many values to unpack". See it: print
   ``mode`` in ``EnasLightningModule.training_step``.
7. A second model in one process (:func:`mend_evaluator`). The trainer of NNI's Lightning evaluators has ended with the
   first model, fits the next not at all, and has no metric to report: "KeyError: 'val_acc'". See it: ``Random`` with
   ``Classification`` and a ``SequentialExecutionEngine``.
8. Grid search (:func:`mend_grid`). All models of a ``RawFormatModelSpace`` share one sample, which is empty when the
   first one runs: "Label ... is missing from sample". See it: ``GridSearch`` with a ``SequentialExecutionEngine``.
9. Half a mutation (:func:`mend_mutation`). NNI's one-shot strategies replace modules one by one; where one is refused,
   the space stays half changed. See it: ``DARTS().mutate_model(space)`` where a later module is refused.
10. Proxyless (:func:`mend_proxyless`). Its backward runs the candidates that its forward did not, when what was set up
    around the forward, such as a scope, is gone. See it: print ``_current_graph_task_id()`` in a candidate.
11. Constraints (:func:`mend_constraints`). A module that registers nothing but constraints cannot be frozen: "freeze()
    must be implemented". See it: freeze a space that calls ``self.add_mutable(ExpressionConstraint(...))``.
12. Names of candidates (:func:`mend_candidates`). A name with a dot dies of torch's ``KeyError``, ``module name can't
    contain "."``, without a word on whose it is. See it: ``LayerChoice({"a.b": nn.Identity()})``.
13. Cells (:func:`mend_cells`). The cell of a one-shot supernet does not freeze: "PathSamplingCell does not support
    freeze". See it: ``RandomOneShot().mutate_model(space).freeze(sample)`` of a space of NNI's hub with cells.
14. The start of NNI's manager (:func:`mend_start`). ``nnictl create`` gives it about four seconds, and takes its start
   page for an answer, or that of another manager on its port: "Create experiment failed: Expecting value", or the
   experiment becomes another one's. And the folder of an experiment, whose logs and database hold all settings, is
   everyone's to read. See it: ``nnictl create`` beside eight busy processes on two cores; ``ls -ld``.
15. The tuner's ten seconds (``manager.js``). NNI's manager ends an experiment whose tuner has not connected in ten
   seconds, however busy the machine is: "Tuner did not connect in 10 seconds". See it: a tuner that sleeps for 11 s in
   its constructor. Under plain ``nnictl`` nobody but NNI counts them: this package's share of them is kept small, and
   the tuner says so in its log where they were over (:func:`say_if_late`).
16. Settings in a command line (``manager.js``, ``dispatcher.py``). NNI gives ``tuner.classArgs`` to the tuner's process
   as an argument, in base64, which every user of the machine can read. See it: ``ps -ef | grep exp_params``.
17. ``nnictl`` imports ``pkg_resources``, which setuptools 81 dropped. See it: ``pip install -U setuptools; nnictl``.
   The package asks for ``setuptools<81``; nothing is done here.
"""

import contextlib
import copy
import functools
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import SpaceError

__all__ = [
    "load_nni_nas",
    "mend_candidates",
    "mend_cells",
    "mend_checkpoints",
    "mend_constraints",
    "mend_enas",
    "mend_evaluator",
    "mend_freeze",
    "mend_grid",
    "mend_mutation",
    "mend_proxyless",
    "mend_resume",
    "mend_start",
    "say_if_late",
]

CONNECT_SECONDS = 10.0
"""What NNI gives a tuner."""
PATIENT = "NNI_DYNCONV_PATIENT"
"""Environment variable of a manager that waits for its tuner, and of that."""


def load_nni_nas() -> None:
    """Import ``nni.nas`` in the order that works, without its noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(ImportError):
            from gym_notices import notices

            notices.notices.clear()
        import nni.nas.strategy
        import nni.nas.nn.pytorch  # noqa: F401 (the order is the point)


def mend_freeze() -> None:
    """Let NNI's operations with chosen arguments be frozen, in this process, where they have no bias."""
    from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation

    @functools.wraps(MixedOperation.freeze)
    def freeze(self: Any, sample: dict[str, Any]) -> Any:
        arguments = {**self.init_arguments}
        arguments |= {name: mutable.freeze(sample) for name, mutable in self.mutable_arguments.items()}
        operation = self.bound_type(**arguments)
        weights = self.freeze_weight(**arguments)
        operation.load_state_dict({name: weight for name, weight in weights.items() if weight is not None})
        return operation

    MixedOperation.freeze = freeze


def mend_candidates() -> None:
    """Let NNI's ``LayerChoice``, in this process, say which name of a candidate cannot be one of a module."""
    from nni.nas.nn.pytorch import LayerChoice

    make = LayerChoice.__init__

    @functools.wraps(make)
    def init(self: Any, candidates: Any, **options: Any) -> None:
        try:
            make(self, candidates, **options)
        except (KeyError, TypeError) as error:
            if not isinstance(candidates, dict) or getattr(self, "names", None) is not None:
                raise
            bad = next((name for name in candidates if str(name) not in self._modules), None)
            raise SpaceError(
                f"The candidate `{bad}` of the LayerChoice `{options.get('label')}` cannot be called so: {error}. Its "
                f"name is that of a module, and a part of paths and of its sites' names: take letters, digits and `_`."
            ) from error

    LayerChoice.__init__ = init


def mend_checkpoints() -> None:
    """Let NNI, in this process, read the states that its experiments saved; as they may be any object, trust them."""
    from nni.nas.utils import serializer

    @functools.wraps(serializer.TorchSerializer.load)
    def load(self: Any, path: Path) -> Any:
        import torch

        found = serializer._find_path_with_prefix(path, self.suffix)
        return torch.load(str(found), map_location=self._map_location, weights_only=False)

    serializer.TorchSerializer.load = load


def mend_constraints() -> None:
    """Let NNI's modules, in this process, be frozen where all that they register themselves are constraints."""
    from nni.mutable import MutableAnnotation
    from nni.nas.nn.pytorch.base import MutableModule, recursive_freeze

    freeze_without = MutableModule.freeze

    @functools.wraps(freeze_without)
    def freeze(self: Any, sample: dict[str, Any]) -> Any:
        if not self.mutables or not all(isinstance(one, MutableAnnotation) for one in self.mutables):
            return freeze_without(self, sample)
        self.validate(sample)
        frozen, copied = recursive_freeze(self, sample, include_root=False)
        frozen = frozen if copied else copy.deepcopy(frozen)
        frozen._mutables = []  # nothing is left to be chosen
        return frozen

    MutableModule.freeze = freeze


def mend_enas() -> None:
    """Let NNI's ENAS, in this process, know which of its two loaders a batch is from."""
    from nni.nas.oneshot.pytorch.strategy import ENAS

    @functools.wraps(ENAS.train_dataloader)
    def train_dataloader(self: Any, train: Callable[[], Any], val: Callable[[], Any]) -> Any:
        from nni.nas.oneshot.pytorch._dataloader import ConcatLoader

        return ConcatLoader({"train": _Tagged(train(), "train"), "val": _Tagged(val(), "val")})

    ENAS.train_dataloader = train_dataloader


class _Tagged:
    """A loader whose batches are ``(batch, name)``, which NNI's ENAS understands."""

    def __init__(self, loader: Any, name: str):
        self.loader, self.name = loader, name

    def __iter__(self) -> Iterator[tuple[Any, str]]:
        for batch in self.loader:
            yield batch, self.name

    def __len__(self) -> int:
        return len(self.loader)


def mend_evaluator() -> None:
    """Let NNI's Lightning evaluators, in this process, train several models, each with a trainer of its own."""
    from nni.nas.evaluator.pytorch.lightning import Lightning

    traced = Lightning.__wrapped__  # what `Classification` and `Regression` are derived from
    evaluate_once = traced.evaluate

    @functools.wraps(evaluate_once)
    def evaluate(self: Any, model: Any) -> Any:
        if self.trainer.state.finished and hasattr(self.trainer, "trace_copy"):  # as NNI's own trainers have
            self.trainer = self.trainer.trace_copy().get()
        return evaluate_once(self, model)

    traced.evaluate = evaluate


def mend_grid() -> None:
    """Let each model of a space in NNI's raw format, in this process, keep its own sample."""
    from nni.nas.space import RawFormatModelSpace

    freeze_shared = RawFormatModelSpace.freeze

    @functools.wraps(freeze_shared)
    def freeze(self: Any, sample: dict[str, Any]) -> Any:
        return freeze_shared(self, copy.deepcopy(sample))

    RawFormatModelSpace.freeze = freeze


def mend_mutation() -> None:
    """Let a space that an NNI strategy, in this process, refuses to mutate stay as it was."""
    from nni.nas.nn.pytorch import ModelSpace
    from nni.nas.oneshot.pytorch.strategy import OneShotStrategy

    mutate_in_place = OneShotStrategy.mutate_model

    @functools.wraps(mutate_in_place)
    def mutate_model(self: Any, model: Any) -> Any:
        modules = model.modules() if isinstance(model, ModelSpace) else ()
        before = [(module, dict(module._modules)) for module in modules]
        try:
            return mutate_in_place(self, model)
        except Exception:
            for module, children in before:
                module._modules = children
            raise

    OneShotStrategy.mutate_model = mutate_model


def mend_proxyless(keeping: Callable[..., Any]) -> None:
    """Let NNI's Proxyless, in this process, run a candidate in its backward as it would have in its forward.

    Parameters
    ----------
    keeping
        ``keeping(run, module)``, called in the forward with what runs a candidate of a module, returns what the
        backward calls instead.
    """
    from nni.nas.oneshot.pytorch.supermodule.proxyless import _ProxylessFunction

    forward_alone = _ProxylessFunction.forward

    @functools.wraps(forward_alone)
    def forward(ctx: Any, run: Any, *arguments: Any) -> Any:
        return forward_alone(ctx, keeping(run, run.__self__), *arguments)

    _ProxylessFunction.forward = staticmethod(forward)


def mend_cells(frozen: Callable[[Any, Any], Any]) -> None:
    """Let the cells of NNI's one-shot supernets freeze.

    Parameters
    ----------
    frozen
        ``frozen(cell, sample)`` returns a cell of one architecture.
    """
    from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingCell

    PathSamplingCell.freeze = lambda cell, sample: frozen(cell, sample)


def mend_resume() -> None:
    """Let NNI's dispatcher in this process give the tuner every final result, also of trials that it does not know."""
    from nni.runtime import msg_dispatcher

    dispatcher, known = msg_dispatcher.MsgDispatcher, msg_dispatcher._trial_params
    if getattr(dispatcher, "_mended_by_nni_dynconv", False):
        return
    handle_known = dispatcher._handle_final_metric_data

    def is_created_in_previous_exp(self: Any, param_id: int | None) -> bool:
        return param_id in self.recovered_trial_params and param_id not in known

    @functools.wraps(handle_known)
    def handle_final(self: Any, data: dict[str, Any]) -> None:
        if data["parameter_id"] is None or data["parameter_id"] in known:
            handle_known(self, data)
        else:
            logging.getLogger(__name__).info("A result of parameter id %s came early", data["parameter_id"])
            self.tuner.import_data([{"parameter": None, "value": data["value"]}])

    dispatcher.is_created_in_previous_exp = is_created_in_previous_exp
    dispatcher._handle_final_metric_data = handle_final
    dispatcher._mended_by_nni_dynconv = True


def mend_start() -> None:
    """Let ``nnictl``, in this process, wait for the manager that it starts as long as that lives.

    The folders that it makes are the user's alone; what the manager starts has the umask of this process.
    """
    from nni.experiment import launcher, rest

    started: list[Any] = []
    mask, start = os.umask(0o077), launcher._start_rest_server
    rest.timeout = 120

    @functools.wraps(start)
    def start_rest_server(*arguments: Any) -> Any:
        os.umask(mask)
        started.append(start(*arguments))
        return started[-1]

    @functools.wraps(launcher._check_rest_server)
    def check_rest_server(port: int, retry: int = 0, url_prefix: str | None = None) -> None:
        while started[-1].poll() is None:
            with contextlib.suppress(Exception):  # it does not listen yet, or shows its start page
                rest.get(port, "/check-status", url_prefix)
                if _listens(started[-1].pid, port):
                    return
            time.sleep(0.5)
        raise RuntimeError(f"NNI's manager ended with status {started[-1].returncode} as it started, on port {port}.")

    launcher._start_rest_server = start_rest_server
    launcher._check_rest_server = check_rest_server


def _listens(process: int, port: int) -> bool:
    """Whether it is this process that listens; where a system does not tell, it is believed."""
    import psutil

    try:
        found = psutil.Process(process).net_connections("tcp")
    except psutil.AccessDenied:
        return True
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found)


def say_if_late() -> None:
    """Say in the tuner's log that NNI has given it up, where nobody has mended that."""
    import psutil

    age = time.time() - psutil.Process().create_time()
    if age > CONNECT_SECONDS and PATIENT not in os.environ:
        logging.getLogger(__name__).warning(
            "The tuner's process is %.0f s old, and NNI gives it %.0f to connect: the machine is busy. Start the "
            "experiment by `nni-dynconv launch` or `nni-dynconv nnictl create`, which wait.",
            age,
            CONNECT_SECONDS,
        )
