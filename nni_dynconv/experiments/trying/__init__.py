"""An experiment tried before it is searched: all that a trial does, on one batch, and what is wrong told in words.

It runs in a process of its own, ``python -m nni_dynconv.experiments.trying CONFIG FOLDER``, which ``launching`` starts
and watches; nothing of an experiment is kept.
"""

from .attempt import attempt
from .measured import Measured

__all__ = ["Measured", "attempt"]
