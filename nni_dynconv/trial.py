"""A door, and what NNI starts: ``python3 -m nni_dynconv.trial``; it lives in ``nni_dynconv.experiments.trial``."""

import sys

from .experiments.trial import *  # noqa: F403
from .experiments.trial import __all__ as __all__
from .experiments.trial import main

if __name__ == "__main__":
    main(sys.argv[1:])
