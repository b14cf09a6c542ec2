"""A door: what it names lives in ``nni_dynconv.sites.spec``."""

from .sites.spec import *  # noqa: F403
