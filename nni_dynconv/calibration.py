"""A door: what it names lives in ``nni_dynconv.supernet.calibration``."""

from .supernet.calibration import *  # noqa: F403
from .supernet.calibration import __all__ as __all__
