"""What a call is asked, checked once for given shapes and written as its geometry; no tensor is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checks import Axes, is_whole
from .geometry import Geometry, Sizes
from .grids import bind_grid, check_grid
from .sets import bind_sets

__all__ = [
    "check_output_padding",
    "check_padding",
    "measure",
    "measure_convolution",
    "measure_linear",
    "measure_transposed",
    "sizes_of",
]

LIMIT = 2**31 - 1
"""Of options and of an output's axes: no tensor has as many places, and sums of larger ones overflow in kernels."""
SPACE = {1: "L", 2: "H W", 3: "T H W"}
KERNEL = {1: "K", 2: "Kh Kw", 3: "Kt Kh Kw"}


def measure(axes: int, *problem: Any) -> Geometry:
    """Check the shapes of a call against each other, and its options.

    Parameters
    ----------
    axes
        Of space; negative: of a transposed convolution; 0: of a linear map.
    *problem
        The shapes of ``x``, weight and bias, and the options behind them, ``counts`` at the end.

    Raises
    ------
    ShapeError
        If an axis, an option or the size of the output does not fit; the text shows both values.
    """
    if not axes:
        return measure_linear(*problem)
    return measure_transposed(-axes, *problem) if axes < 0 else measure_convolution(axes, *problem)


def measure_convolution(
    rank: int,
    x: Sequence[int],
    weight: Sequence[int],
    bias: Sequence[int] | None,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    counts: Sequence[int] | None = None,
    *,
    where: str | None = None,
) -> Geometry:
    """Check the shapes of a convolution over ``rank`` axes; as :func:`measure`, also of a function ``where``."""
    axes = Axes(where or f"conv{rank}d")
    space, kernels = SPACE[rank].split(), KERNEL[rank].split()
    axes.bind("x", x, f"B Cin {SPACE[rank]}")
    _divide(axes, "Cin", "x", groups)
    names, in_patches = f"Cout Cin/G {KERNEL[rank]}", rank == 2 and len(weight) in (6, 7)
    sets = (
        (*bind_grid(axes, weight, bias, names, counts), None)
        if in_patches
        else bind_sets(axes, weight, bias, names, counts)
    )
    _divide(axes, "Cout", "weight", groups)
    steps, spacing = sizes_of(axes, "stride", stride, 1, rank), sizes_of(axes, "dilation", dilation, 1, rank)
    spans = [d * (axes[k] - 1) + 1 for k, d in zip(kernels, spacing, strict=True)]
    pads, extra = _padding(axes, padding, steps, spans)
    size, kernel = tuple(axes[one] for one in space), tuple(axes[one] for one in kernels)
    padded = [n + 2 * p + e for n, p, e in zip(size, pads, extra, strict=True)]
    out = tuple(_output_size(axes, *one) for one in zip(space, kernels, padded, spans, steps, strict=True))
    _check_limit(axes, f"the output would have the size {out}", out)
    head = axes["B"], axes["Cin"], size, axes["Cout"], kernel, groups, out
    grid = check_grid(axes, space, out) if in_patches else ()
    return Geometry(*head, steps, pads, extra, spacing, *sets, grid=grid)


def measure_transposed(
    rank: int,
    x: Sequence[int],
    weight: Sequence[int],
    bias: Sequence[int] | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    output_padding: int | Sequence[int],
    groups: int,
    dilation: int | Sequence[int],
    counts: Sequence[int] | None = None,
) -> Geometry:
    """Check the shapes of a transposed convolution over ``rank`` axes; as :func:`measure`."""
    axes = Axes(f"conv_transpose{rank}d")
    space, kernels = SPACE[rank].split(), KERNEL[rank].split()
    axes.bind("x", x, f"B Cin {SPACE[rank]}")
    _divide(axes, "Cin", "x", groups)
    lead = len(weight) == rank + 3
    if len(weight) >= rank + 2:
        axes.derive("Cout", weight[1 + lead] * groups, f"`weight` with `groups={groups}`")
    sets = bind_sets(axes, weight, bias, f"Cin Cout/G {KERNEL[rank]}", counts)
    steps, pads = sizes_of(axes, "stride", stride, 1, rank), sizes_of(axes, "padding", padding, 0, rank)
    more = sizes_of(axes, "output_padding", output_padding, 0, rank)
    spacing = sizes_of(axes, "dilation", dilation, 1, rank)
    check_output_padding(axes, more, steps, spacing)
    size, kernel = tuple(axes[one] for one in space), tuple(axes[one] for one in kernels)
    options = zip(size, steps, pads, spacing, kernel, more, strict=True)
    out = tuple((n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, s, p, d, k, e in options)
    if min(out) < 1:
        axes.fail(f"the output would have the size {out}. Take less `padding`, or a larger `x` or kernel.")
    _check_limit(axes, f"the output would have the size {out}", out)
    head = axes["B"], axes["Cin"], size, axes["Cout"], kernel, groups, out
    return Geometry(*head, steps, pads, more, spacing, *sets, transposed=True)


def measure_linear(
    x: Sequence[int], weight: Sequence[int], bias: Sequence[int] | None, counts: Sequence[int] | None = None
) -> Geometry:
    """Check the shapes of a linear map; as :func:`measure`."""
    axes = Axes("linear")
    if len(x) < 2:
        axes.fail(f"`x` has {len(x)} axes, {tuple(x)}, but needs 2 or more: B ... Cin. For one sample, pass `x[None]`.")
    axes.bind("x", x, " ".join(["B", *[f"N{i}" for i in range(1, len(x) - 1)], "Cin"]))
    sets = bind_sets(axes, weight, bias, "Cout Cin", counts)
    between, nothing = tuple(x[1:-1]), ((),) * 4
    return Geometry(axes["B"], axes["Cin"], between, axes["Cout"], (), 1, between, *nothing, *sets)


def _divide(axes: Axes, axis: str, tensor: str, groups: int) -> None:
    axes.check_whole("groups", groups)
    if axes[axis] % groups:
        axes.fail(f"axis `{axis}` is {axes[axis]} in `{tensor}`, which `groups={groups}` does not divide.")
    axes.derive(f"{axis}/G", axes[axis] // groups, f"`{tensor}` with `groups={groups}`")


def sizes_of(axes: Axes, name: str, value: int | Sequence[int], least: int, rank: int) -> Sizes:
    """Write an option as one number for each of ``rank`` axes of space.

    Raises
    ------
    ShapeError
        It has another number of them, or one is no whole number of ``least`` or more, or above 2**31 - 1.
    """
    sizes: tuple[Any, ...] = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    if len(sizes) == 1:
        sizes *= rank
    if len(sizes) != rank or not all(is_whole(one, least) for one in sizes):
        many = {1: "one whole number", 2: "one or two whole numbers", 3: "one or three whole numbers"}[rank]
        axes.fail(f"`{name}` is {value!r}, but must be {many} of {least} or more.")
    _check_limit(axes, f"`{name}` is {value!r}", sizes)
    return sizes


def _check_limit(axes: Axes, what: str, sizes: Sizes) -> None:
    if any(isinstance(one, int) and one > LIMIT for one in sizes):  # of a symbolic size that is not asked
        axes.fail(f"{what}, but none may be more than {LIMIT}.")


def _padding(
    axes: Axes, padding: str | int | Sequence[int], stride: Sizes, spans: Sequence[int]
) -> tuple[Sizes, Sizes]:
    nothing = (0,) * len(spans)
    if not isinstance(padding, str):
        return sizes_of(axes, "padding", padding, 0, len(spans)), nothing
    check_padding(axes, padding, stride)
    if padding == "valid":
        return nothing, nothing
    return tuple((span - 1) // 2 for span in spans), tuple((span - 1) % 2 for span in spans)


def check_padding(axes: Axes, padding: str, stride: Sizes) -> None:
    """Refuse a word for the padding that there is not, or that the stride does not allow.

    Raises
    ------
    ShapeError
        In words.
    """
    if padding not in ("same", "valid"):
        axes.fail(f'`padding` is {padding!r}, but must be "same", "valid" or numbers.')
    if padding == "same" and set(stride) != {1}:
        axes.fail(f'`padding="same"` needs stride 1, but `stride` is {stride}. Give the padding in numbers.')


def check_output_padding(axes: Axes, more: Sizes, stride: Sizes, dilation: Sizes) -> None:
    """Refuse more output at the far end than a transposed convolution can give.

    Raises
    ------
    ShapeError
        In words.
    """
    for e, s, d in zip(more, stride, dilation, strict=True):
        if e >= max(s, d):
            axes.fail(f"`output_padding` is {more}, but must be less than `stride` {stride} or `dilation` {dilation}.")


def _output_size(axes: Axes, axis: str, kernel: str, padded: int, span: int, stride: int) -> int:
    if padded < span:
        axes.fail(
            f"the kernel spans {span} along `{axis}` (`{kernel}` and `dilation`), but `x` with its padding has only "
            f"{padded}. Pad more, or take a smaller kernel or dilation."
        )
    return (padded - span) // stride + 1
