"""A door: what it names lives in ``nni_dynconv.search.ranking``."""

from .search.ranking import *  # noqa: F403
from .search.ranking import __all__ as __all__
