"""One architecture of the sweep, with random weights, and a batch for it."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LARGEST", "SMALL", "make_model"]

LARGEST = 12_000_000
"""Most values in the convolutions of a model."""
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
"""What a configuration of transformers has to know, and is made with."""
ALSO = {
    "vocab_size": 99,
    "intermediate_size": 64,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "image_size": 32,
    "patch_size": 8,
    "embedding_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BATCH = 2


def make_model(one: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    """Return a model in evaluation mode, and a batch of two."""
    torch.manual_seed(0)
    model, inputs = (_of_pytorchcv if one["package"] == "pytorchcv" else _of_transformers)(one["family"], one["model"])
    return model.eval(), inputs


def _of_pytorchcv(family: str, name: str) -> tuple[nn.Module, Tensor]:
    model: Any = getattr(importlib.import_module(f"pytorchcv.models.{family}"), name)()
    height, width = model.in_size
    if height > 224:
        raise ValueError(f"{name} takes images of {height} pixels")
    return model, torch.randn(BATCH, 3, height, width)


def _of_transformers(family: str, name: str) -> tuple[nn.Module, Tensor]:
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known = CONFIG_MAPPING[name]()
    config = CONFIG_MAPPING[name](**SMALL, **{word: value for word, value in ALSO.items() if hasattr(known, word)})
    model: Any = AutoModel.from_config(config)
    if model.main_input_name == "pixel_values":
        return model, torch.randn(BATCH, 3, 32, 32)
    if model.main_input_name == "input_values":
        return model, torch.randn(BATCH, 4000)
    return model, torch.randint(3, 99, (BATCH, 7))
