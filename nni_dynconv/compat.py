"""What is broken in NNI 3.0 on today's Python and torch, each with how to see it. Nothing happens on import.

1. Import order (:func:`load_nni_nas`). ``import nni.nas.oneshot.pytorch.strategy`` before ``nni.nas.strategy`` goes
   round in a circle, and NNI's one-shot strategies silently become ``ImportFailedStrategy``. See it: import both in
   that order, then look at ``nni.nas.strategy.DARTS``.
2. Import noise (:func:`load_nni_nas`). ``import nni.nas.nn.pytorch`` warns that it does not know torch's newer
   classes (``Buffer``, ``LinearCrossEntropyOptions``). See it: ``python -W error -c "import nni.nas.nn.pytorch"``.
3. Resumed experiments (:func:`mend_resume`). A trial that was interrupted runs again as soon as ``nnictl resume``
   starts. When it ends before the tuner has loaded, NNI's dispatcher drops its result ("Find unknown job parameter
   id"); it also takes parameter id 0 for one of the earlier run, and dies of ``KeyError: 0``. See it: resume an
   experiment whose tuner sleeps for 30 s in ``update_search_space``.
4. ``nnictl`` imports ``pkg_resources``, which setuptools 81 dropped. See it: ``pip install -U setuptools; nnictl``.
   The package asks for ``setuptools<81``; nothing is done here.
"""

import functools
import logging
import warnings
from typing import Any

__all__ = ["load_nni_nas", "mend_resume"]


def load_nni_nas() -> None:
    """Import ``nni.nas`` in the order that works, without its noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nni.nas.strategy
        import nni.nas.nn.pytorch  # noqa: F401 (the order is the point)


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
