"""A network as ONNX, run in ONNX Runtime and compared with torch before it counts."""

from __future__ import annotations

import importlib
import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...errors import ExportError
from ...generation import DynamicNetwork
from ..examples import Shown
from .checked import Checked, Flattened, Form, check_same, fastest, flat, largest_difference

__all__ = ["OPSET", "export_onnx", "has_onnx"]

OPSET = 20
LARGEST = 2_000_000_000
"""Bytes of tensors that one file holds; a protobuf has no more."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(
    network: DynamicNetwork,
    path: str | Path,
    shown: Shown,
    form: Form = "dynamic",
    *,
    batch: int = 1,
    context: Any = None,
    opset: int = OPSET,
) -> Checked:
    """Write a network as ONNX, and beside it, in ``path.json``, how far it differs from torch.

    Parameters
    ----------
    network
        In evaluation mode, on the CPU.
    path
        The file.
    shown
        Its example, as :func:`nni_dynconv.export.example_in` reads it.
    form
        ``dynamic``: weights are made for each sample, of any number. ``grouped``: the same by convolutions with groups,
        for ``batch`` samples. ``baked``: the weights of one context, for any number.
    batch
        Samples that a ``grouped`` file takes.
    context
        The one that is baked in; the example's first by default.
    opset
        Version of ONNX's operators.

    Raises
    ------
    ExportError
        A package is missing; the exporter does not take the network; ONNX Runtime does not take the file, or computes
        something else. There is no file then.
    """
    onnx, _, runtime = map(_package, NEEDED)
    path, given = Path(path), flat(network, shown, form, batch, context)
    partial = path.with_name(f"partial-{path.name}")
    try:
        _write(given, partial, opset)
        model = onnx.load(str(partial), load_external_data=False)
        _check_free(given, model)
        session = _session(runtime, partial)
        checked = _compared(given, session, path.name, _opset_of(model))
        check_same(checked.error, "ONNX Runtime")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    checked.write(path)
    return checked


def has_onnx() -> bool:
    """Whether the packages are installed that writing ONNX takes."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDED)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(
            f"To write ONNX takes the package `{name}`, which is not installed: `pip install 'nni_dynconv[onnx]'`."
        ) from error


def _write(given: Flattened, path: Path, opset: int) -> None:
    size = sum(one.numel() * one.element_size() for one in given.module.state_dict().values())
    with given.exporting():
        try:
            torch.onnx.export(
                given.module,
                given.example,
                path,
                input_names=list(given.inputs),
                output_names=list(given.outputs),
                dynamic_shapes=given.shapes,
                opset_version=opset,
                custom_translation_table={torch.ops.aten._prelu_kernel.default: _prelu},
                dynamo=True,
                external_data=size > LARGEST,
                verbose=False,
            )
        except Exception as error:  # whatever the exporter raises
            raise ExportError(f"The network cannot be written as ONNX ({given.form}): {_short(error)}") from error


def _prelu(x: Any, slope: Any) -> Any:
    """Write PReLU; torch's exporter lays slopes of samples' own along channels."""
    op = _package("onnxscript").opset18
    return op.Where(op.Less(x, op.CastLike(0.0, x)), op.Mul(slope, x), x)


def _short(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {text[0]}"


def _session(runtime: Any, path: Path) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes share no base
        raise ExportError(f"ONNX Runtime does not take the file: {_short(error)}") from error


def _check_free(given: Flattened, model: Any) -> None:
    """Refuse a file for one number of samples where it is to take any: the exporter binds it rather than to fail."""
    free = {name for name, one in zip(given.inputs, given.dynamic, strict=True) if one is not None}
    for one in model.graph.input if given.form != "grouped" else ():
        bound = one.name in free and one.type.tensor_type.shape.dim[0].dim_value
        if bound:
            raise ExportError(
                f"The network cannot be written as ONNX ({given.form}) for any number of samples: it was tried with "
                f"{bound}, and something in it, such as a loop over samples, depends on that. Take one number, "
                f'`form="grouped", batch=N`.'
            )


def _opset_of(model: Any) -> int:
    return next(one.version for one in model.opset_import if one.domain == "")


def _compared(given: Flattened, session: Any, name: str, opset: int) -> Checked:
    taken = {one.name for one in session.get_inputs()}  # what has no influence is left out by the exporter
    error = 0.0
    for tensors in given.calls.values():
        fed = {key: one.numpy() for key, one in zip(given.inputs, tensors, strict=True) if key in taken}
        with torch.no_grad():
            wanted = given.reference(*tensors)
        found = [torch.as_tensor(one) for one in _run(session, fed)]
        error = max(error, largest_difference(found, wanted))
    there, here = fastest(partial(_run, session, fed)), fastest(partial(given.reference, *tensors))
    names = [one for one in given.inputs if one in taken]
    return Checked(name, given.form, names, given.outputs, tuple(given.calls), error, opset, there, here)


def _run(session: Any, fed: dict[str, Any]) -> list[Any]:
    try:
        return list(session.run(None, fed))
    except Exception as error:
        raise ExportError(f"ONNX Runtime does not run the file: {_short(error)}") from error
