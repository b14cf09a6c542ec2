"""Networks for who has no nni_dynconv: ONNX and `torch.export`, with weights that are made, or made once.

What is written is run, and compared with the network, before it counts.
"""

from .baking import Baked, bake
from .checked import Checked
from .clustering import cluster
from .losing import Clusters, try_clusters
from .onnx import export_onnx, has_onnx
from .program import export_program
from .static import export_static, make_static

__all__ = [
    "Baked",
    "Checked",
    "Clusters",
    "bake",
    "cluster",
    "export_onnx",
    "export_program",
    "export_static",
    "has_onnx",
    "make_static",
    "try_clusters",
]
