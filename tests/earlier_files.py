"""Networks in the files of format 3, which earlier versions wrote: a `torch.fx` graph of functions and layers."""

from __future__ import annotations

import json
from dataclasses import asdict

from safetensors.torch import save_file
from torch import fx, nn
from torch.fx.node import _get_qualified_name

from nni_dynconv.export.files import describe_controller
from nni_dynconv.export.modules import describe_module
from nni_dynconv.export.values import encode
from nni_dynconv.generation import context, dim_of
from nni_dynconv.ops import DynamicOp

LEAVES = (DynamicOp, context.VectorContext, context.FeatureMapContext, context.SequenceContext)


class Tracer(fx.Tracer):
    def is_leaf_module(self, module, name):
        torchs_own = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
        return torchs_own or isinstance(module, LEAVES)


def save_in_format_3(network, folder, change=lambda description: None):
    """Write a network as it was written then; `change` makes its description one of an older format."""
    source, traced = network.source, trace(network.network)
    encoder = None if source.encoder is None else trace(nn.Sequential(source.encoder).eval())
    description = {
        "format": 3,
        "network": described(traced),
        "encoder": None if encoder is None else {**described(encoder), "out_dim": source.context_dim},
        "architecture_dim": dim_of(source.architecture),
        "controller": describe_controller(source.controller),
        "ops": {path: one.site for path, one in traced.named_modules() if isinstance(one, DynamicOp)},
        "sites": [{**asdict(site), "recipe": asdict(source.recipes[name])} for name, site in source.sites.items()],
    }
    tensors = {f"network.{name}": one for name, one in traced.state_dict().items()}
    tensors |= {f"encoder.{name}": one for name, one in ({} if encoder is None else encoder.state_dict()).items()}
    own = {name: one for name, one in source.state_dict().items() if not name.startswith("encoder.")}
    tensors |= {f"source.{name}": one for name, one in own.items()}
    change(description)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "architecture.json").write_text(json.dumps({"architecture": network.architecture}))
    (folder / "network.json").write_text(json.dumps(description))
    save_file(
        {name: one.detach().contiguous().clone() for name, one in tensors.items()}, folder / "network.safetensors"
    )


def trace(network):
    traced = fx.GraphModule(network, Tracer().trace(network.eval()))
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    return traced


def described(traced):
    layers, tensors = {}, {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            layers[node.target] = describe_module(traced.get_submodule(node.target), node.target)
        elif node.op == "get_attr":
            owner, _, name = node.target.rpartition(".")
            tensor = getattr(traced.get_submodule(owner), name)
            tensors[node.target] = {"shape": list(tensor.shape), "parameter": isinstance(tensor, nn.Parameter)}
    return {"nodes": [written(node) for node in traced.graph.nodes], "layers": layers, "tensors": tensors}


def written(node):
    target = node.target
    if node.op == "call_function":
        target = "builtins.getattr" if target is getattr else _get_qualified_name(target)
    return {
        "name": node.name,
        "op": node.op,
        "target": target,
        "args": data(node.args),
        "kwargs": data(node.kwargs)["dict"],
    }


def data(value):
    if isinstance(value, dict):
        return {"dict": {key: data(one) for key, one in value.items()}}
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [data(one) for one in value]}
    return {"node": value.name} if isinstance(value, fx.Node) else encode(value)
