"""What is broken in NNI 3.0 on today's Python and torch, each with how to see it. Import NNI's NAS parts through here.

1. Import order. ``import nni.nas.oneshot.pytorch.strategy`` before ``nni.nas.strategy`` goes round in a circle, and
   NNI's one-shot strategies silently become ``ImportFailedStrategy``. See it: import both in that order, then look at
   ``nni.nas.strategy.DARTS``. Here ``nni.nas.strategy`` comes first.
2. Import noise. ``import nni.nas.nn.pytorch`` warns that it does not know torch's newer classes (``Buffer``,
   ``LinearCrossEntropyOptions``). See it: ``python -W error -c "import nni.nas.nn.pytorch"``. Here they are hidden.
3. ``nnictl`` imports ``pkg_resources``, which setuptools 81 dropped. See it: ``pip install -U setuptools; nnictl``. The
   package asks for ``setuptools<81``; nothing is done here.
"""

import logging
import warnings

__all__ = ["load_nni_nas"]


def load_nni_nas() -> None:
    """Import ``nni.nas`` in the order that works, without its noise."""
    logger = logging.getLogger("nni.nas.nn.pytorch._layers")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            import nni.nas.strategy
            import nni.nas.nn.pytorch  # noqa: F401 (the order is the point)
        finally:
            logger.setLevel(level)


load_nni_nas()
