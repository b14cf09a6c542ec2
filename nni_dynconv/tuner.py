"""A door: what it names lives in ``nni_dynconv.experiments.tuner``."""

from .experiments.tuner import *  # noqa: F403
from .experiments.tuner import __all__ as __all__
