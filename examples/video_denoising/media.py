"""Read video files and arrays of frames as grey levels. What the clips are for stands in ``data.py``."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from nni_dynconv.errors import MediaError


def decode(path: str | Path) -> np.ndarray:
    """Decode the luma of every frame of a video, or read an ``.npy`` file of grey or colour frames.

    Returns
    -------
    numpy.ndarray
        ``(T, H, W)``, uint8.

    Raises
    ------
    MediaError
        When the file is missing, is no video, or holds no frame.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"There is no video at `{path}`.")
    frames = _read_npy(path) if path.suffix == ".npy" else _decode_video(path)
    if frames.size == 0:
        raise MediaError(f"The video `{path}` has no frame.")
    return frames


def _decode_video(path: Path) -> np.ndarray:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"`{path}` has no video stream.")
            container.streams.video[0].thread_type = "AUTO"
            frames = [luma(frame) for frame in container.decode(video=0)]
    except (av.FFmpegError, OSError) as error:
        raise MediaError(
            f"`{path}` cannot be decoded as a video: {error}.\n"
            "Give a file that FFmpeg can read, or `.npy` frames (T, H, W) or (T, H, W, 3) of uint8."
        ) from error
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
        raise MediaError(f"The frames of `{path}` change their size: {sorted(shapes)}.")
    return np.stack(frames) if frames else np.empty((0, 0, 0), np.uint8)


def luma(frame: av.VideoFrame) -> np.ndarray:
    """Give the grey levels ``(H, W)``, uint8, of one decoded frame."""
    return frame.to_ndarray(format="gray")


def _read_npy(path: Path) -> np.ndarray:
    try:
        frames = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MediaError(f"`{path}` cannot be read as an array of frames: {error}.") from error
    colour = isinstance(frames, np.ndarray) and frames.ndim == 4 and frames.shape[3] == 3
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or not (frames.ndim == 3 or colour):
        found = f"{frames.shape} of {frames.dtype}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise MediaError(f"Frames in `{path}` must be (T, H, W), or (T, H, W, 3) in colour, of uint8, not {found}.")
    return _luma_of(frames) if colour else frames


def _luma_of(frames: np.ndarray) -> np.ndarray:
    """Give the grey levels of colour frames ``(T, H, W, 3)``, red first, by the weights of ITU-R BT.601."""
    return np.rint(frames @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
