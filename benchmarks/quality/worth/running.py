"""How every one of these experiments is begun: by the same words, on one thread, with a file of its own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.ledger import Ledger
from benchmarks.timing import keep_freed_memory, machine

__all__ = ["ledger_at", "parser"]

QUICK = Path("runs/worth")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return what reads a command line; every experiment has ``--quick``."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help=f"few of everything, into {QUICK}: whether it runs")
    return made


def ledger_at(path: Path, settings: Any, quick: Any = None) -> Ledger:
    """Return the file of what is finished, with the machine in it; from now on one thread computes.

    Parameters
    ----------
    quick
        Settings of a quick run, where it is one, which keeps its results elsewhere.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    ledger = Ledger(path, settings) if quick is None else Ledger(QUICK / path.name, quick)
    ledger.data.setdefault("machine", machine())
    return ledger
