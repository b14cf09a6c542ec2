"""The file in which each finished run of a benchmark is kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nni_dynconv.errors import ConfigError

__all__ = ["Ledger"]


class Ledger:
    """A JSON file of finished work: what is in it is not done again, and each result is written at once.

    Parameters
    ----------
    path
        Made when it is missing.
    settings
        A dataclass; those of the file must be the same.

    Raises
    ------
    ConfigError
        The file holds results of other settings.
    """

    def __init__(self, path: Path, settings: Any):
        self.path, self.settings = path, settings
        own = json.loads(json.dumps(asdict(settings)))  # lists for tuples, as a file has them
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"settings": own}
        theirs = self.data["settings"]
        if theirs != own:
            name = next(key for key in {**own, **theirs} if own.get(key) != theirs.get(key))
            raise ConfigError(
                f"{path}: `{name}` is {theirs.get(name)!r} there, but {own.get(name)!r} now. Name another file with "
                "--output, or remove that one."
            )

    def note(self, section: str, key: str, value: Any) -> Any:
        """Write one result and return it."""
        self.data.setdefault(section, {})[key] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1) + "\n")
        part.replace(self.path)
        return value

    def known(self, section: str, key: str) -> Any:
        """Return a result, or ``None``."""
        return self.data.get(section, {}).get(key)
