"""Pure functions ``(x, weights) -> y``: shared or per sample is a shape, and a plan says by which path.

Where weights come from is not known here; no module with state is, either. What is imported ``as`` itself is for other
wings, and not public.
"""

from .checks import Axes as Axes
from .composed import COMPOSED as COMPOSED
from .composed import Composed as Composed
from .composed import LowRank, Mixed, Scaled
from .composed import form_all as form_all
from .conv import conv1d, conv2d, conv3d
from .explain import explain
from .linear import linear
from .norm import affine, batch_norm, group_norm, instance_norm, layer_norm
from .pixels import conv2d_pixels
from .planning.measuring import check_output_padding as check_output_padding
from .planning.measuring import check_padding as check_padding
from .planning.measuring import sizes_of as sizes_of
from .planning.modes import PLAIN as PLAIN
from .planning.modes import deterministic, grouped, portable, without_kernels
from .planning.modes import imagined as imagined
from .planning.modes import is_exporting as is_exporting
from .planning.modes import is_imagined as is_imagined
from .planning.modes import is_saving_watched as is_saving_watched
from .planning.modes import is_transformed as is_transformed
from .planning.modes import noted as noted
from .planning.tuning import tune
from .planning.tuning import wait_for as wait_for
from .transposed import conv_transpose1d, conv_transpose2d, conv_transpose3d

__all__ = [
    "LowRank",
    "Mixed",
    "Scaled",
    "affine",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv2d_pixels",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "deterministic",
    "explain",
    "group_norm",
    "grouped",
    "instance_norm",
    "layer_norm",
    "linear",
    "portable",
    "tune",
    "without_kernels",
]
