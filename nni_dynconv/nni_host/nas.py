"""Imports ``nni.nas`` in the order that works, and mends it: import this module before anything of ``nni.nas``."""

from . import compat

compat.load_nni_nas()
compat.mend_candidates()
compat.mend_checkpoints()
compat.mend_constraints()
compat.mend_enas()
compat.mend_evaluator()
compat.mend_freeze()
compat.mend_grid()
compat.mend_mutation()
