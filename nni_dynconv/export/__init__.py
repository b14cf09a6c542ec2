"""Networks and supernets on disk: safetensors and JSON. A network is read back without NNI or its class."""

from .files import load, save
from .supernets import load_supernet, save_supernet

__all__ = ["load", "load_supernet", "save", "save_supernet"]
