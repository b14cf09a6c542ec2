"""Networks and supernets on disk: safetensors and JSON, ONNX, and programs. A network is read without NNI or its class.

What a run leaves beside them, and reports of it, are none of this wing's.
"""

from .elsewhere import Baked as Baked
from .elsewhere import Checked as Checked
from .elsewhere import Clusters as Clusters
from .elsewhere import bake, cluster, export_onnx, export_program, export_static, has_onnx, make_static, try_clusters
from .examples import Port as Port
from .examples import Shown as Shown
from .files import example_in, load, save
from .modules import describe_module as describe_module
from .modules import make_module as make_module
from .supernets import load_supernet, save_supernet

__all__ = [
    "bake",
    "cluster",
    "example_in",
    "export_onnx",
    "export_program",
    "export_static",
    "has_onnx",
    "load",
    "load_supernet",
    "make_static",
    "save",
    "save_supernet",
    "try_clusters",
]
