"""A network as a program of ``torch.export``: read by ``torch.export.load``, without this package."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...errors import ExportError
from ...generation import DynamicNetwork
from ..examples import Shown
from .checked import Checked, Flattened, Form, check_same, fastest, flat, largest_difference

__all__ = ["export_program"]


def export_program(
    network: DynamicNetwork,
    path: str | Path,
    shown: Shown,
    form: Form = "dynamic",
    *,
    batch: int = 1,
    context: Any = None,
) -> Checked:
    """Write a network as a program, and beside it, in ``path.json``, how far it differs when it is read back.

    Parameters
    ----------
    network, shown, form, batch, context
        As of :func:`~nni_dynconv.export.export_onnx`.
    path
        The file; torch wants it to end in ``.pt2``.

    Raises
    ------
    ExportError
        Torch does not take the network, or what is read back computes something else. There is no file then.
    """
    path, given = Path(path), flat(network, shown, form, batch, context)
    partial = path.with_name(f"partial-{path.name}")
    try:
        with given.exporting():
            program = torch.export.export(given.module, given.example, dynamic_shapes=given.shapes, strict=False)
            torch.export.save(program, partial)
            again = torch.export.load(partial).module()
        checked = _compared(given, again, path.name)
        partial.replace(path)
    except ExportError:
        raise
    except Exception as error:  # whatever torch raises
        raise ExportError(
            f"The network cannot be written as a program ({form}): {type(error).__name__}: {error}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    checked.write(path)
    return checked


@torch.no_grad()
def _compared(given: Flattened, again: Any, name: str) -> Checked:
    error = 0.0
    for tensors in given.calls.values():
        error = max(error, largest_difference(again(*tensors), given.reference(*tensors)))
    check_same(error, "The program that is read back")
    seconds = [fastest(partial(run, *tensors)) for run in (again, given.reference)]
    return Checked(name, given.form, given.inputs, given.outputs, tuple(given.calls), error, None, *seconds)
