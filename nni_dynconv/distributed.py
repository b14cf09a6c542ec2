"""A door: what it names lives in ``nni_dynconv.search.distributed``."""

from .search.distributed import *  # noqa: F403
from .search.distributed import __all__ as __all__
