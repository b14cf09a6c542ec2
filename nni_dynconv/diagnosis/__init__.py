"""Is it healthy: gains of the sites, whether the controller is alive, and whether the search is stuck.

Nothing here changes a network or a search.
"""

from .callback import DiagnosisCallback, DiagnosisWarning
from .diagnosing import diagnose
from .diagnosis import Diagnosis
from .findings import Finding
from .measuring import architectures, within
from .spots import candidates_of

__all__ = [
    "Diagnosis",
    "DiagnosisCallback",
    "DiagnosisWarning",
    "Finding",
    "architectures",
    "candidates_of",
    "diagnose",
    "within",
]
