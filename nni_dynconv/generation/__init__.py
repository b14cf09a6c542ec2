"""How weights come about: contexts and codes, controllers, base and delta, and the network that makes its own.

Nothing here chooses an architecture.
"""

from .architecture import ArchitectureEncoder, FixedArchitecture, Shares
from .calling import Call, Example, refusing_pairs, takes_of, unasked_in
from .codes import dim_of
from .context import FeatureMapContext, OwnInputContext, PatchContext, SequenceContext, VectorContext
from .controllers import (
    BasisController,
    ChunkedController,
    Controller,
    CoordinateController,
    ExpertsController,
    FlatController,
    LowRankController,
)
from .controllers.clustered import ClusteredController
from .decision import Decision, site_of
from .given import ORIGINAL, Original, bind_own_input, own_inputs_of, recipes_for, start_as_given
from .installing import NAME, install, uninstall
from .loading import load_original
from .making import WeightMaker
from .network import DynamicNetwork
from .parts import upgraded
from .source import WeightSource

__all__ = [
    "NAME",
    "ORIGINAL",
    "ArchitectureEncoder",
    "BasisController",
    "Call",
    "ChunkedController",
    "ClusteredController",
    "Controller",
    "CoordinateController",
    "Decision",
    "DynamicNetwork",
    "Example",
    "ExpertsController",
    "FeatureMapContext",
    "FixedArchitecture",
    "FlatController",
    "LowRankController",
    "Original",
    "OwnInputContext",
    "PatchContext",
    "SequenceContext",
    "Shares",
    "VectorContext",
    "WeightMaker",
    "WeightSource",
    "bind_own_input",
    "dim_of",
    "install",
    "load_original",
    "own_inputs_of",
    "recipes_for",
    "refusing_pairs",
    "site_of",
    "start_as_given",
    "takes_of",
    "unasked_in",
    "uninstall",
    "upgraded",
]
