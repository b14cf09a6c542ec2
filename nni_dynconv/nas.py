"""Imports ``nni.nas`` in the order that works: import this module before anything of ``nni.nas``."""

from .compat import load_nni_nas

load_nni_nas()
