"""What the contenders and the test sets of the denoising benchmark are called in tables and pictures."""

from __future__ import annotations

__all__ = ["NAMES", "SETS"]

NAMES = {
    "dynamic": "searched dynamic, experts",
    "dynamic_chunked": "searched dynamic, chunked",
    "static_twin": "static twin",
    "static_equal_macs": "static twin, widened",
    "film": "FiLM",
    "mixture": "mixture of kernels",
    "unet_equal_macs": "U-Net, equal multiply-adds",
    "unet_equal_parameters": "U-Net, equal parameters",
}
SETS = {"unseen_shots": "unseen shots", "unseen_video": "unseen video"}
