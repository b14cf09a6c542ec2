"""A door: what it names lives in ``nni_dynconv.experiments.search_space``."""

from .experiments.search_space import *  # noqa: F403
from .experiments.search_space import __all__ as __all__
