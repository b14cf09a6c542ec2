"""Diagnosis: gains of the sites, whether the controller is alive, and whether the search is stuck."""

from .callback import DiagnosisCallback, DiagnosisWarning
from .diagnosing import diagnose
from .findings import Diagnosis, Finding

__all__ = ["Diagnosis", "DiagnosisCallback", "DiagnosisWarning", "Finding", "diagnose"]
