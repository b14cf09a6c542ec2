"""NNI's tuner process, whose settings stand in its environment: a command line is everyone's to read."""

from __future__ import annotations

import logging
import os
import runpy
import sys

__all__ = ["PARAMS", "main"]

PARAMS = "NNI_DYNCONV_EXP_PARAMS"


def main() -> None:
    """Run NNI's dispatcher as NNI's manager does."""
    logging.raiseExceptions = False  # a line that no disk has room for is told by `launch`, and not by a traceback
    sys.argv[1:] = ["--exp_params", os.environ.pop(PARAMS)]
    runpy.run_module("nni", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
