"""The folder of a run: where its files lie, and what `run.json` says. What is in the files is not known here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files import write_atomically
from .history import History

__all__ = ["CRASH_FILE", "ERROR_FILE", "TRAINED", "UNTRAINED", "WHERE", "Run"]

FORMAT = 1
WHERE = "where.txt"
"""Says in words, beside the checkpoints, where the newest is."""
EXPORTED = tuple(f"model{form}.{ending}" for ending in ("onnx", "pt2") for form in ("", "-grouped", "-baked"))
"""What `nni-dynconv export --to` writes; what was found of each lies beside it."""
STATIC = "static"
"""Where `--to static` writes."""
ERROR_FILE, CRASH_FILE = "error.txt", "crash.txt"
"""What a trial leaves that ended by an error, in words; and one whose interpreter crashed."""
UNTRAINED, TRAINED = "searched", "trained"
"""How far a run came, `state` in `run.json`: an architecture is found; its network is trained to the end."""


class Run:
    """One run's folder.

    Parameters
    ----------
    folder
        Need not be there yet.

    Attributes
    ----------
    facts
        What `run.json` says; empty where there is none.
    begun
        Whether this object has started the run.

    Examples
    --------
    >>> Run("runs/mine").supernet.as_posix()
    'runs/mine/supernet'
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.facts: dict[str, Any] = {}
        self.begun = False
        if self.file.is_file():
            self.facts = self._read()

    @property
    def file(self) -> Path:
        """What says how far the run came."""
        return self.folder / "run.json"

    @property
    def supernet(self) -> Path:
        """Folder of the supernet that was searched."""
        return self.folder / "supernet"

    @property
    def weights(self) -> Path:
        """All tensors of the network in memory, by its own names: what a failed export starts from."""
        return self.folder / "weights.safetensors"

    @property
    def network(self) -> Path:
        """What is there when the network was exported, with the tensors and the sample beside it."""
        return self.folder / "network.json"

    @property
    def table(self) -> Path:
        """The comparison with baselines; the same for reading is `baselines.txt`."""
        return self.folder / "baselines.json"

    @property
    def twin(self) -> Path:
        """Folder of the static twin that the network was compared with, exported as the network is."""
        return self.folder / "static_twin"

    def use(self, folder: str | Path | None = None) -> str:
        """Return lines of Python that read the exported network.

        Parameters
        ----------
        folder
            As of :meth:`told`.
        """
        trust, place = json.loads(self.network.read_text(encoding="utf-8")).get("trust"), folder or self.folder
        if not trust:
            return f'import nni_dynconv\nnet = nni_dynconv.load("{place}")'
        code = self.facts.get("code_directory", "where its classes are found")
        return f'import nni_dynconv  # in {code}\nnet = nni_dynconv.load("{place}", trust={json.dumps(trust)})'

    @property
    def clusters(self) -> Path:
        """What few sets of weights lose; the network with as many as are enough is in the folder `clusters`."""
        return self.folder / "clusters.json"

    @property
    def history(self) -> History:
        """What happened in the run, in order."""
        return History(self.folder / "history.jsonl")

    @property
    def report(self) -> Path:
        """The page that shows the run; the same as data is `report.json`."""
        return self.folder / "report.html"

    @property
    def slides(self) -> Path:
        """Folder of what the user's own report adds to the page."""
        return self.folder / "slides"

    @property
    def checkpoints(self) -> Path:
        """Folder of what a run that is not over goes on from."""
        return self.folder / "checkpoints"

    @property
    def is_unfinished(self) -> bool:
        """Whether there is something to go on from."""
        return any(self.checkpoints.glob("*.checkpoint"))

    @property
    def where(self) -> str | None:
        """Where the newest checkpoint is, in words; ``None`` where there is none."""
        path = self.checkpoints / WHERE
        return path.read_text(encoding="utf-8") if self.is_unfinished and path.is_file() else None

    def over(self) -> None:
        """Remove the checkpoints: nothing is left to do."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def own(self) -> list[Path]:
        """Return what a run writes, there or not."""
        names = ("architecture.json", "network.safetensors", "baselines.txt", "example.npz", "report.json")
        own = [self.file, self.supernet, self.weights, self.network, self.table, self.twin]
        own += [self.history.file, self.report, self.slides, self.checkpoints]
        own += [self.clusters, self.clusters.with_suffix("")]
        exported = (f"{name}{ending}" for name in EXPORTED for ending in ("", ".json"))
        return [*own, *(self.folder / one for one in (*names, *exported, STATIC))]

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        """Return the run of a folder.

        Raises
        ------
        RunError
            There is none.
        """
        try:
            run = cls(folder)
        except RunError:
            raise
        except (TypeError, ValueError, OSError) as error:  # no path, or one that is too long
            raise RunError(f"{folder!r} is no folder: {getattr(error, 'strerror', None) or error}.") from None
        if not run.facts:
            raise RunError(
                f"There is no run in `{folder}`: it has no `run.json`. `nni-dynconv launch CONFIG --output {folder}` "
                f"makes one, and so does `mutator.strategy(folder=...)`."
            )
        return run

    @staticmethod
    def supernet_in(folder: str | Path) -> Path:
        """Return where the supernet lies: of a run, or the folder itself, such as a checkpoint's."""
        found = Run(folder).supernet
        return found if found.is_dir() else Path(folder)

    def _read(self) -> dict[str, Any]:
        try:
            facts = json.loads(self.file.read_text(encoding="utf-8"))
            known = facts["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"`{self.file}` cannot be read: {type(error).__name__}: {error}") from None
        if known != FORMAT:
            raise RunError(f"`{self.file}` has format {known}, but this version reads {FORMAT}.")
        return facts

    def begin(self, **facts: Any) -> None:
        """Start anew: what an earlier run left in this folder goes, other files stay.

        Raises
        ------
        RunError
            It is no folder.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"A run is a folder, but `{self.folder}` is a file. Name a folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        for one in self.own():
            if one.is_dir():
                shutil.rmtree(one)
            else:
                one.unlink(missing_ok=True)
        self.facts, self.begun = {}, True
        self.note(**facts)

    def note(self, **facts: Any) -> None:
        """Add to what `run.json` says, at once or not at all."""
        self.facts = {"format": FORMAT, **self.facts, **facts}
        write_atomically(self.file, (json.dumps(self.facts, indent=2) + "\n").encode())

    def write_architecture(self, sample: Mapping[str, Any]) -> None:
        """Write the sample, as the exported network has it beside it."""
        text = json.dumps({"architecture": dict(sample)}, indent=2) + "\n"
        write_atomically(self.folder / "architecture.json", text.encode())

    @property
    def architecture(self) -> dict[str, Any]:
        """What the run found, by which its weights are read.

        Raises
        ------
        RunError
            It found nothing, or its two files say different things: one of them is damaged.
        """
        if "architecture" not in self.facts:
            raise RunError(f"The run in `{self.folder}` has found nothing: its search did not end. Start it again.")
        found, beside = self.facts["architecture"], self.folder / "architecture.json"
        if not beside.is_file():
            return dict(found)
        try:
            other = json.loads(beside.read_text(encoding="utf-8"))["architecture"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"`{beside}` cannot be read: {type(error).__name__}: {error}") from None
        if found != other:
            raise RunError(
                f"`{self.file}` says that the run found {found}, but `{beside}` says {other}. One of them is damaged: "
                f"put right the one that is not what the run printed."
            )
        return dict(found)

    # What went wrong, without ending the run

    @property
    def problems(self) -> dict[str, str]:
        """What failed after the search, and why: `export`, `baselines` or `report`."""
        return dict(self.facts.get("problems", {}))

    def mark(self, what: str, why: str | None) -> None:
        """Note that something failed, or, with ``None``, that it does not any more."""
        problems = {key: one for key, one in self.problems.items() if key != what}
        self.note(problems=problems if why is None else {**problems, what: why})

    def told(self, folder: str | Path | None = None) -> list[str]:
        """Return lines that say what is left to do, and the command that does it.

        Parameters
        ----------
        folder
            How to call the folder; its own path by default.
        """
        place, lines = self.folder if folder is None else folder, []
        if self.facts.get("state") == UNTRAINED:
            lines.append(f"The network is NOT trained to the end. `nni-dynconv train {place}` trains it.")
        lines += [f"CUT: {one}" for one in self.facts.get("cut", [])]
        for what, why in self.problems.items():
            lines.append(f"FAILED: {what}: {why}")
        if "export" in self.problems:
            lines.append(f"Nothing is lost. `nni-dynconv export {place}` tries the export again.")
        return lines
