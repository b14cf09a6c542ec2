"""``nni-dynconv export``."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Annotated, Any, Literal

import typer

from ..shared import quiet, say
from .arguments import RunConfig, RunFolder, settings_of

__all__ = ["export"]

Format = Literal["onnx", "pt2", "static", "clusters"]


def export(
    run: RunFolder,
    config: RunConfig = None,
    to: Annotated[Format | None, typer.Option(help="For who has no nni_dynconv: a file of another format.")] = None,
    form: Annotated[
        Literal["dynamic", "grouped", "baked"], typer.Option(help="How weights come about in it.")
    ] = "dynamic",
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Samples that a `grouped` file takes.")] = 1,
    clusters: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, help="Sets of weights to write.", show_default="what is recommended"),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X", min=0.0, help="How much worse each metric may be.", show_default="0.1 of a PSNR, else 1 %"
        ),
    ] = None,
    trust: Annotated[
        list[str] | None, typer.Option(metavar="MODULE", help="May be imported, for a network saved by its class.")
    ] = None,
) -> None:
    """Export the network of a run, from the weights that it keeps.

    After a failure, once its cause is mended, or as a file that needs no nni_dynconv, which is run and compared first;
    `static` is Python with torch's layers, of one context:

        nni-dynconv export runs/mine
        nni-dynconv export runs/mine --to onnx
        nni-dynconv export runs/mine --to onnx --form grouped --batch 8
        nni-dynconv export runs/mine --to static

    Or with few sets of weights in the place of the controller, once it is measured what that loses:

        nni-dynconv export runs/mine --to clusters
    """
    if to == "clusters":
        _few(run, clusters, tolerance, config)
        return
    if to is not None:
        say(str(_elsewhere(run, to, form, batch, trust or ())))
        return
    settings = settings_of(config)
    from ...experiments import again

    with quiet():
        exported = again.export_again(run, settings)
    say(f"Exported. Use it:\n{indent(exported.use(run), '  ')}")


def _elsewhere(run: Path, to: Format, form: Any, batch: int, trust: Any) -> Any:
    """Write a run's network in another format."""
    from ... import export as exporting
    from ...errors import RunError

    shown = exporting.example_in(run)
    if shown is None:
        raise RunError(
            f"An earlier version saved the network in `{run}`, without an example to try a file on. Load it, call it, "
            f"save it again: `nni_dynconv.export.save(network, folder, example=(x, context))`."
        )
    network = exporting.load(run, trust)
    if to == "static":
        return exporting.export_static(network, run / "static", shown)
    name = "model" if form == "dynamic" else f"model-{form}"
    if to == "onnx":
        return exporting.export_onnx(network, run / f"{name}.onnx", shown, form, batch=batch)
    return exporting.export_program(network, run / f"{name}.pt2", shown, form, batch=batch)


def _few(run: Path, clusters: int | None, tolerance: float | None, config: Path | None) -> None:
    settings = settings_of(config)
    from ...experiments import again

    with quiet():
        found, place = again.cluster_weights(run, clusters, tolerance, settings)
    say(str(found))
    if place is not None:
        say(f"Written: {place}; as ONNX by `nni-dynconv export {place} --to onnx`. Use it:")
        say(f'  import nni_dynconv\n  net = nni_dynconv.load("{place}")')
