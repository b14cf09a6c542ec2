"""``--device`` of the benchmarks: which devices there are, and how each is made ready for a fair measurement."""

from __future__ import annotations

import argparse
import os

import torch
from timing import CPU, keep_freed_memory

__all__ = ["RESULTS", "add_options", "open_device", "output_of", "prepare"]

RESULTS = {True: "benchmarks/results.json", False: "benchmarks/results_gpu.json"}  # of the CPU, of another device


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark ask for ``--device``, ``--threads`` and ``--output``."""
    parser.add_argument("--device", default="cpu", help="cpu, or what torch calls another device: cuda, cuda:1")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU; of more than one name another file")
    parser.add_argument("--output", help=f"file of results: {RESULTS[True]}, of another device {RESULTS[False]}")


def output_of(arguments: argparse.Namespace) -> str:
    """Return the file that a benchmark writes: results of different devices do not mix unless they are told to.

    Raises
    ------
    SystemExit
        Several threads, and no file of their own.
    """
    if arguments.threads > 1 and not arguments.output:
        raise SystemExit(
            f"`--threads {arguments.threads}`: name a file by `--output`; the usual ones are of one thread."
        )
    return arguments.output or RESULTS[torch.device(arguments.device).type == "cpu"]


def prepare(name: str, threads: int = 1) -> torch.device:
    """Open a device and set what decides on its speed, for every contender alike.

    A CPU gets so many threads and keeps freed memory. Another device multiplies without TF32: torch allows it in
    convolutions but not in matrix products, so ways that differ in nothing else would differ in precision.
    """
    device = open_device(name)
    if device == CPU:
        keep_freed_memory()
        torch.set_num_threads(threads)
    elif device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.cuda.set_device(device)
    return device


def open_device(name: str) -> torch.device:
    """Return a device that is there.

    Raises
    ------
    SystemExit
        It is not; the text says which are, and the way out.
    """
    found = ["cpu", *_accelerators()]
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SystemExit(f"`--device {name}`: torch knows no such device. There is: {', '.join(found)}.") from None
    if device.type == "cpu":
        return CPU
    device = torch.device(device.type, device.index or 0)
    if str(device) not in found:
        raise SystemExit(f"`--device {name}`: there is no such device here, only {', '.join(found)}.\n  {_way_out()}")
    return device


def _accelerators() -> list[str]:
    kind = _kind()
    if kind is None:
        return []
    found = torch.accelerator if hasattr(torch, "accelerator") else torch.cuda
    return [f"{kind}:{number}" for number in range(found.device_count())] if found.is_available() else []


def _kind() -> str | None:
    """Return the type of accelerator that torch was built for."""
    if not hasattr(torch, "accelerator"):  # torch 2.6 has it
        return "cuda" if torch.version.cuda else None
    current = torch.accelerator.current_accelerator()
    return None if current is None else current.type


def _way_out() -> str:
    if _kind() is None:
        return f"torch {torch.__version__} was built for CPUs alone. Other builds: https://pytorch.org/get-started"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    narrowed = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES is {hidden!r})"
    return f"Take one of these, or see whether the driver finds the device, as `nvidia-smi` lists it{narrowed}."
