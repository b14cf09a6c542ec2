"""What can be said in a YAML or a constructor: names, types, ranges, references, and the checks of them.

Neither torch nor Lightning nor ``nni.nas`` is imported here, and nothing is built or run.
"""

from .checking import check
from .class_args import check_class_args, check_end
from .experiment import check_config, code_directory_of, search_path
from .final import check_final
from .hyper_parameters import check_search_space, with_hyper_parameters
from .named import SAMPLERS, TABLES, Named, parse_named
from .parts import (
    COSTS,
    ArchitectureSettings,
    BasisSettings,
    ChunkedSettings,
    CoordinateSettings,
    DartsSettings,
    EnasSettings,
    Encoding,
    ExpertsSettings,
    FeatureMapContextSettings,
    FlatSettings,
    GdasSettings,
    LowRankSettings,
    Nesting,
    Nonlinearity,
    OwnInputContextSettings,
    PatchContextSettings,
    Routing,
    ScaleRule,
    SequenceContextSettings,
    Shares,
    StrategySettings,
    VectorContextSettings,
    check_arguments,
)
from .reading import load_yaml
from .recipe import MAKING_BUDGET, Recipe, check_budget, check_recipe, check_settings, recipes_of
from .references import call_object, check_reference, load_object
from .run import TUNER_NAME, BaselineSettings, RunSettings
from .schema import experiment_schema

__all__ = [
    "COSTS",
    "MAKING_BUDGET",
    "SAMPLERS",
    "TABLES",
    "TUNER_NAME",
    "ArchitectureSettings",
    "BaselineSettings",
    "BasisSettings",
    "ChunkedSettings",
    "CoordinateSettings",
    "DartsSettings",
    "EnasSettings",
    "Encoding",
    "ExpertsSettings",
    "FeatureMapContextSettings",
    "FlatSettings",
    "GdasSettings",
    "LowRankSettings",
    "Named",
    "Nesting",
    "Nonlinearity",
    "OwnInputContextSettings",
    "PatchContextSettings",
    "Recipe",
    "Routing",
    "RunSettings",
    "ScaleRule",
    "SequenceContextSettings",
    "Shares",
    "StrategySettings",
    "VectorContextSettings",
    "call_object",
    "check",
    "check_arguments",
    "check_budget",
    "check_class_args",
    "check_config",
    "check_end",
    "check_final",
    "check_recipe",
    "check_reference",
    "check_search_space",
    "check_settings",
    "code_directory_of",
    "experiment_schema",
    "load_object",
    "load_yaml",
    "parse_named",
    "recipes_of",
    "search_path",
    "with_hyper_parameters",
]
