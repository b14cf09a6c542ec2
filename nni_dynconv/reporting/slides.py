"""Pictures with a slider that the user's own report adds to a run's page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..runs import Run
from .data import Slides
from .drawing import in_page

__all__ = ["add_slides", "slides_of"]


def add_slides(
    folder: str | Path, title: str, captions: Sequence[str], images: Mapping[str, Sequence[np.ndarray]]
) -> None:
    """Add pictures with a slider to the page of a run; the page has them once it is written again.

    Call it in the ``report`` of an experiment's YAML.

    Parameters
    ----------
    folder
        Of the run.
    title
        Above them; slides of the same title are replaced.
    captions
        What each position of the slider is.
    images
        By name, one for each position: ``(H, W)`` or ``(H, W, 3)``, ``uint8``.

    Raises
    ------
    ConfigError
        There are not as many pictures as captions, or none.
    ShapeError
        A picture is of another shape or type.
    """
    for name, several in images.items():
        if len(several) != len(captions) or not captions:
            raise ConfigError(
                f"Slides `{title}`: `{name}` has {len(several)} pictures, but there are {len(captions)} captions. Give "
                f"one for each position of the slider."
            )
    made = Slides(title, tuple(captions), {name: tuple(map(in_page, several)) for name, several in images.items()})
    place = Run(folder).slides
    place.mkdir(parents=True, exist_ok=True)
    same = [
        one for one in sorted(place.glob("*.json")) if json.loads(one.read_text(encoding="utf-8"))["title"] == title
    ]
    path = same[0] if same else place / f"{len(list(place.glob('*.json'))):03d}.json"
    path.write_text(json.dumps(asdict(made)), encoding="utf-8")


def slides_of(run: Run) -> tuple[Slides, ...]:
    """Return what was added to a run's page, in order."""
    files = sorted(run.slides.glob("*.json"))
    return tuple(Slides(**json.loads(one.read_text(encoding="utf-8"))) for one in files)
