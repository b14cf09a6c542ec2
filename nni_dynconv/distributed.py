"""A door: what it names lives in ``nni_dynconv.samplers.distributed``."""

from .samplers.distributed import *  # noqa: F403
from .samplers.distributed import __all__ as __all__
