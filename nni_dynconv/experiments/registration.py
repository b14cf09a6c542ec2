"""Make the tuner's name known to NNI, through NNI's own registration; what NNI keeps lies in its own config file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..settings import TUNER_NAME

__all__ = ["META_FILE", "is_registered", "register", "remove"]

META_FILE = Path(__file__).with_name("algorithm.yml")


def is_registered() -> bool:
    """Whether NNI knows our tuner, by our class."""
    from nni.tools.nnictl.algo_management import read_reg_meta_list
    from nni.tools.package_utils import get_algo_meta

    known = get_algo_meta(TUNER_NAME)
    return known is not None and known.class_name == read_reg_meta_list(str(META_FILE))[0].class_name


def register() -> bool:
    """Register the tuner unless it is; return whether anything changed. NNI imports the class to verify it."""
    from nni.tools.nnictl.algo_management import algo_reg

    if is_registered():
        return False
    algo_reg(Namespace(meta_path=str(META_FILE)))
    return True


def remove() -> bool:
    """Take the registration back; return whether there was one."""
    from nni.tools.nnictl.algo_management import algo_unreg
    from nni.tools.package_utils import get_algo_meta

    if get_algo_meta(TUNER_NAME) is None:
        return False
    algo_unreg(Namespace(name=[TUNER_NAME]))
    return True
