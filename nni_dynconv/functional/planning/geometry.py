"""What one convolution, or linear map, is asked to do, checked once for given shapes; no tensor is touched here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..checks import Axes, is_whole
from .sets import Counts, bind_sets

__all__ = [
    "Geometry",
    "GeometryLinear",
    "GeometryNd",
    "Pair",
    "Sizes",
    "check_output_padding",
    "check_padding",
    "measure",
    "measure_linear",
    "measure_nd",
    "measure_transposed",
    "sizes_of",
]

Pair = tuple[int, int]
Sizes = tuple[int, ...]
Options = tuple[list[int], list[int], list[int], bool, list[int]]  # stride, padding, dilation, transposed, at the end
SPACE = {1: "L", 2: "H W", 3: "T H W"}
KERNEL = {1: "K", 2: "Kh Kw", 3: "Kt Kh Kw"}


class Geometry(NamedTuple):
    """Sizes and options of one 2-D convolution, with ``padding="same"`` already turned into numbers."""

    B: int
    Cin: int
    H: int
    W: int
    Cout: int
    Kh: int
    Kw: int
    G: int
    Ho: int
    Wo: int
    stride: Pair
    padding: Pair  # rows, columns: the same on both sides
    extra: Pair  # rows below and columns right, on top of `padding`: an even kernel with "same"
    dilation: Pair
    per_sample: bool
    counts: Counts | None = None  # samples that each set of weights serves, where that is neither one nor all
    bias_counts: Counts | None = None  # the same of the bias, where its sets are not those of the weight

    @property
    def transposed(self) -> bool:
        """Whether it is the gradient of a convolution: never."""
        return False

    @property
    def size(self) -> Pair:
        """Height and width of the input."""
        return self.H, self.W

    @property
    def kernel(self) -> Pair:
        """Height and width of the kernel."""
        return self.Kh, self.Kw

    @property
    def out(self) -> Pair:
        """Height and width of the output."""
        return self.Ho, self.Wo

    @property
    def output(self) -> Sizes:
        """Shape of the output."""
        return self.B, self.Cout, self.Ho, self.Wo

    @property
    def sets(self) -> int:
        """How many sets of weights there are."""
        return _sets(self)

    @property
    def values(self) -> int:
        """How many values one set of weights has."""
        return _values(self)

    @property
    def depthwise(self) -> bool:
        """Whether each channel has a kernel of its own."""
        return self.G == self.Cin == self.Cout

    @property
    def options(self) -> Options:
        """The options as torch's operators take them."""
        return list(self.stride), list(self.padding), list(self.dilation), False, [0, 0]

    @property
    def convolves_backward(self) -> bool:
        """Whether both gradients are convolutions of stride 1 as well: no padding is wider than a kernel reaches."""
        pads = zip(self.padding, self.dilation, self.kernel, strict=True)
        return self.stride == (1, 1) and all(p <= d * (k - 1) for p, d, k in pads)

    @property
    def pointwise(self) -> bool:
        """Whether the convolution only mixes channels."""
        return self.Kh == self.Kw == 1 and self.padding == (0, 0)

    def padded(self) -> Geometry:
        """The same convolution of an input to which ``extra`` has been added."""
        rows, columns = self.extra
        return self._replace(H=self.H + rows, W=self.W + columns, extra=(0, 0))


class GeometryNd(NamedTuple):
    """Sizes and options of one convolution, or transposed convolution, over 1, 2 or 3 axes of space."""

    B: int
    Cin: int
    size: Sizes
    Cout: int
    kernel: Sizes
    G: int
    out: Sizes
    stride: Sizes
    padding: Sizes
    extra: Sizes  # at the far end of each axis: of x, as in `Geometry`; transposed: of the output (`output_padding`)
    dilation: Sizes
    per_sample: bool
    counts: Counts | None = None
    bias_counts: Counts | None = None
    transposed: bool = False

    @property
    def pointwise(self) -> bool:
        """Whether the convolution only mixes channels."""
        mixes = set(self.kernel) == {1} and not any(self.padding)
        return mixes and not (self.transposed and (any(self.extra) or set(self.stride) != {1}))

    @property
    def output(self) -> Sizes:
        """Shape of the output."""
        return self.B, self.Cout, *self.out

    @property
    def options(self) -> Options:
        """The options as torch's operators take them; ``extra`` of what is not transposed is no part of them."""
        further = list(self.extra) if self.transposed else [0] * len(self.size)
        return list(self.stride), list(self.padding), list(self.dilation), self.transposed, further

    @property
    def sets(self) -> int:
        """How many sets of weights there are."""
        return _sets(self)

    @property
    def values(self) -> int:
        """How many values one set of weights has."""
        return _values(self)

    @property
    def multiply_adds(self) -> int:
        """Multiplications of the whole batch."""
        applied, channels = (self.size, self.Cin) if self.transposed else (self.out, self.Cout)
        per_channel = (self.Cout if self.transposed else self.Cin) // self.G * math.prod(self.kernel)
        return self.B * channels * math.prod(applied) * per_channel

    def adjoint(self) -> GeometryNd:
        """The convolution that a transposed one is the gradient of, with respect to its input."""
        turned = self._replace(size=self.out, out=self.size, Cin=self.Cout, Cout=self.Cin)
        return turned._replace(extra=(0,) * len(self.size), transposed=False)

    def planar(self) -> Geometry:
        """The same over two axes; one axis gets a first one of size 1."""
        (H, W), (Kh, Kw), (Ho, Wo) = _two(self.size, 1), _two(self.kernel, 1), _two(self.out, 1)
        options = _two(self.stride, 1), _two(self.padding, 0), _two(self.extra, 0), _two(self.dilation, 1)
        sets = self.per_sample, self.counts, self.bias_counts
        return Geometry(self.B, self.Cin, H, W, self.Cout, Kh, Kw, self.G, Ho, Wo, *options, *sets)

    def padded(self) -> GeometryNd:
        """The same convolution of an input to which ``extra`` has been added."""
        size = tuple(one + more for one, more in zip(self.size, self.extra, strict=True))
        return self._replace(size=size, extra=(0,) * len(size))


class GeometryLinear(NamedTuple):
    """Sizes of one linear map."""

    B: int
    between: Sizes  # axes of x between the batch and the channels
    Cin: int
    Cout: int
    per_sample: bool
    counts: Counts | None = None
    bias_counts: Counts | None = None

    @property
    def output(self) -> Sizes:
        """Shape of the output."""
        return self.B, *self.between, self.Cout

    @property
    def sets(self) -> int:
        """How many sets of weights there are."""
        return _sets(self)

    @property
    def values(self) -> int:
        """How many values one set of weights has."""
        return self.Cin * self.Cout

    @property
    def rows(self) -> int:
        """How many rows of x all sets map together."""
        return self.B * math.prod(self.between)

    @property
    def multiply_adds(self) -> int:
        """Multiplications of the whole batch."""
        return self.rows * self.values


def _values(geometry: Geometry | GeometryNd) -> int:
    return geometry.Cin * geometry.Cout // geometry.G * math.prod(geometry.kernel)


def _sets(geometry: Geometry | GeometryNd | GeometryLinear) -> int:
    if not geometry.per_sample:
        return 1
    return geometry.B if geometry.counts is None else len(geometry.counts)


def measure(
    x: Sequence[int],
    weight: Sequence[int],
    bias: Sequence[int] | None,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    counts: Sequence[int] | None = None,
) -> Geometry:
    """Check the shapes of ``conv2d`` against each other and return its :class:`Geometry`.

    Raises
    ------
    ShapeError
        If an axis, an option or the size of the output does not fit; the text shows both values.
    """
    return measure_nd(2, x, weight, bias, stride, padding, dilation, groups, counts).planar()


def measure_nd(
    rank: int,
    x: Sequence[int],
    weight: Sequence[int],
    bias: Sequence[int] | None,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    counts: Sequence[int] | None = None,
) -> GeometryNd:
    """Check the shapes of a convolution over ``rank`` axes; as :func:`measure`."""
    axes = Axes(f"conv{rank}d")
    space, kernels = SPACE[rank].split(), KERNEL[rank].split()
    axes.bind("x", x, f"B Cin {SPACE[rank]}")
    _divide(axes, "Cin", "x", groups)
    sets = bind_sets(axes, weight, bias, f"Cout Cin/G {KERNEL[rank]}", counts)
    _divide(axes, "Cout", "weight", groups)
    steps, spacing = sizes_of(axes, "stride", stride, 1, rank), sizes_of(axes, "dilation", dilation, 1, rank)
    spans = [d * (axes[k] - 1) + 1 for k, d in zip(kernels, spacing, strict=True)]
    pads, extra = _padding(axes, padding, steps, spans)
    size, kernel = tuple(axes[one] for one in space), tuple(axes[one] for one in kernels)
    padded = [n + 2 * p + e for n, p, e in zip(size, pads, extra, strict=True)]
    out = tuple(_output_size(axes, *one) for one in zip(space, kernels, padded, spans, steps, strict=True))
    head = axes["B"], axes["Cin"], size, axes["Cout"], kernel, groups, out
    return GeometryNd(*head, steps, pads, extra, spacing, *sets)


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
) -> GeometryNd:
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
    head = axes["B"], axes["Cin"], size, axes["Cout"], kernel, groups, out
    return GeometryNd(*head, steps, pads, more, spacing, *sets, transposed=True)


def measure_linear(
    x: Sequence[int], weight: Sequence[int], bias: Sequence[int] | None, counts: Sequence[int] | None = None
) -> GeometryLinear:
    """Check the shapes of a linear map; as :func:`measure`."""
    axes = Axes("linear")
    if len(x) < 2:
        axes.fail(f"`x` has {len(x)} axes, {tuple(x)}, but needs 2 or more: B ... Cin. For one sample, pass `x[None]`.")
    axes.bind("x", x, " ".join(["B", *[f"N{i}" for i in range(1, len(x) - 1)], "Cin"]))
    sets = bind_sets(axes, weight, bias, "Cout Cin", counts)
    return GeometryLinear(axes["B"], tuple(x[1:-1]), axes["Cin"], axes["Cout"], *sets)


def _divide(axes: Axes, axis: str, tensor: str, groups: int) -> None:
    axes.check_whole("groups", groups)
    if axes[axis] % groups:
        axes.fail(f"axis `{axis}` is {axes[axis]} in `{tensor}`, which `groups={groups}` does not divide.")
    axes.derive(f"{axis}/G", axes[axis] // groups, f"`{tensor}` with `groups={groups}`")


def _two(sizes: Sizes, new: int) -> Pair:
    return (new, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def sizes_of(axes: Axes, name: str, value: int | Sequence[int], least: int, rank: int) -> Sizes:
    """Write an option as one number for each of ``rank`` axes of space.

    Raises
    ------
    ShapeError
        It has another number of them, or one is no whole number of ``least`` or more.
    """
    sizes: tuple[Any, ...] = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    if len(sizes) == 1:
        sizes *= rank
    if len(sizes) != rank or not all(is_whole(one, least) for one in sizes):
        many = {1: "one whole number", 2: "one or two whole numbers", 3: "one or three whole numbers"}[rank]
        axes.fail(f"`{name}` is {value!r}, but must be {many} of {least} or more.")
    return sizes


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
