"""Use what `make search` found on your own video: ``python denoise.py RUN VIDEO --noise 25 --output clean.mp4``."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project, so that this file also runs as a script

import nni_dynconv
from examples.video_denoising.data import normalise, psnr
from examples.video_denoising.media import decode
from examples.video_denoising.plotting import WithoutContext
from examples.video_denoising.tiling import add_noise, denoise_video, to_uint8
from nni_dynconv.errors import DynConvError, MediaError

NAMES = {"noisy": "noisy", "static_twin": "static twin", "dynamic": "dynamic"}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Remove noise from a video with a searched network. Colour is left out: only luma is read."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a search, such as runs/quickstart")
    parser.add_argument(
        "video", type=Path, metavar="VIDEO", help="a video file, or .npy frames (T, H, W[, 3]) of uint8"
    )
    parser.add_argument(
        "--noise", type=_sigma, metavar="SIGMA", help="add Gaussian noise of this sigma (of 255) and report PSNR"
    )
    parser.add_argument("--output", type=Path, metavar="OUT.mp4", help="write the cleaned frames as a grey video")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args(arguments)


def _sigma(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"sigma must be positive, not {text}")
    return value


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Clean the video and give the report.

    Raises
    ------
    MediaError
        When the result would be written over the video.
    """
    if options.output is not None and options.output.resolve() == options.video.resolve():
        raise MediaError(f"`--output` is the video itself, `{options.video}`. Name another file.")
    twin = WithoutContext(nni_dynconv.load(options.run / "static_twin"))
    networks = {"static_twin": twin, "dynamic": nni_dynconv.load(options.run)}
    frames = decode(options.video)
    began = time.monotonic()
    clean = normalise(torch.from_numpy(frames))
    noisy = clean if options.noise is None else add_noise(frames, options.noise)
    report: dict[str, Any] = {"frames": len(frames), "size": list(frames.shape[1:]), "sigma": options.noise}
    if options.noise is None:
        result = denoise_video(networks["dynamic"], noisy)
    else:
        report["psnr"], result = _compare(networks, noisy, clean)
    if options.output is not None:
        write(options.output, to_uint8(result), frame_rate(options.video))
        report["output"] = str(options.output)
    return {**report, "seconds": round(time.monotonic() - began, 1)}


def _compare(networks: dict[str, nn.Module], noisy: Tensor, clean: Tensor) -> tuple[dict[str, float], Tensor]:
    results = {"noisy": noisy} | {name: denoise_video(net, noisy) for name, net in networks.items()}
    return {name: round(psnr(result, clean).mean().item(), 3) for name, result in results.items()}, results["dynamic"]


def frame_rate(video: Path) -> Fraction:
    """Give the frames per second of a video file, or 25 where none is told."""
    if video.suffix == ".npy":
        return Fraction(25)
    with av.open(str(video)) as container:
        return container.streams.video[0].average_rate or Fraction(25)


def write(path: Path, frames: np.ndarray, rate: Fraction) -> None:
    """Write grey frames (T, H, W) as H.264; a side of odd length repeats its last line, for the codec wants even ones.

    Raises
    ------
    MediaError
        When the file cannot be written.
    """
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2)), mode="edge")
    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "16"})
            stream.height, stream.width, stream.pix_fmt = *even.shape[1:], "yuv420p"
            for frame in even:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
            container.mux(stream.encode())
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"`{path}` cannot be written as a video: {error}.\nGive a name that ends in .mp4, in a folder that exists."
        ) from error


def text(report: dict[str, Any]) -> str:
    """Lay the report out for reading."""
    height, width = report["size"]
    lines = [f"{report['frames']} frames of {width}x{height} in {report['seconds']} s"]
    if "psnr" in report:
        lines += [f"PSNR in dB at sigma {report['sigma']:g}:"]
        lines += [f"  {NAMES[name]:<12}{value:6.2f}" for name, value in report["psnr"].items()]
    if "output" in report:
        lines += [f"written: {report['output']}"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is 2 when the run or the video cannot be used."""
    options = parse(arguments)
    try:
        report = run(options)
    except DynConvError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(report) if options.json else text(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
