"""What one convolution is asked to do, checked once per combination of shapes; no tensor is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..checks import Axes

__all__ = ["Geometry", "measure"]

Pair = tuple[int, int]
_PLAIN_NAMES, _SAMPLE_NAMES = "Cout Cin/G Kh Kw", "B Cout Cin/G Kh Kw"


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

    @property
    def depthwise(self) -> bool:
        """Whether each channel has a kernel of its own."""
        return self.G == self.Cin == self.Cout

    @property
    def pointwise(self) -> bool:
        """Whether the convolution only mixes channels."""
        return self.Kh == self.Kw == 1 and self.padding == (0, 0)

    def padded(self) -> Geometry:
        """The same convolution of an input to which ``extra`` has been added."""
        rows, columns = self.extra
        return self._replace(H=self.H + rows, W=self.W + columns, extra=(0, 0))


def measure(
    x: Sequence[int],
    weight: Sequence[int],
    bias: Sequence[int] | None,
    stride: int | Pair,
    padding: str | int | Pair,
    dilation: int | Pair,
    groups: int,
) -> Geometry:
    """Check the shapes of a convolution against each other and return its :class:`Geometry`.

    Raises
    ------
    ShapeError
        If an axis, an option or the size of the output does not fit; the text shows both values.
    """
    axes = Axes("conv2d")
    per_sample = _bind(axes, x, weight, bias, groups)
    stride, dilation = _pair(axes, "stride", stride, 1), _pair(axes, "dilation", dilation, 1)
    spans = [d * (axes[k] - 1) + 1 for k, d in zip(("Kh", "Kw"), dilation, strict=True)]
    padding, extra = _padding(axes, padding, stride, spans)
    Ho, Wo = [
        _output_size(axes, axis, axes[axis] + 2 * p + e, span, s)
        for axis, p, e, span, s in zip("HW", padding, extra, spans, stride, strict=True)
    ]
    B, Cin, H, W, Cout, Kh, Kw = (axes[name] for name in ("B", "Cin", "H", "W", "Cout", "Kh", "Kw"))
    return Geometry(B, Cin, H, W, Cout, Kh, Kw, groups, Ho, Wo, stride, padding, extra, dilation, per_sample)


def _bind(axes: Axes, x: Sequence[int], weight: Sequence[int], bias: Sequence[int] | None, groups: int) -> bool:
    axes.bind("x", x, "B Cin H W")
    if len(weight) not in (4, 5):
        axes.fail(
            f"`weight` has {len(weight)} axes, {tuple(weight)}, but needs 4 when all samples share it "
            f"({_PLAIN_NAMES}) or 5 when each sample has its own ({_SAMPLE_NAMES})."
        )
    if isinstance(groups, (bool, float, str)) or groups < 1:
        axes.fail(f"`groups` is {groups!r}, but must be a whole number of 1 or more.")
    if axes["Cin"] % groups:
        axes.fail(f"axis `Cin` is {axes['Cin']} in `x`, which `groups={groups}` does not divide.")
    axes.derive("Cin/G", axes["Cin"] // groups, f"`x` with `groups={groups}`")
    per_sample = len(weight) == 5
    axes.bind("weight", weight, _SAMPLE_NAMES if per_sample else _PLAIN_NAMES)
    if axes["Cout"] % groups:
        axes.fail(f"axis `Cout` is {axes['Cout']} in `weight`, which `groups={groups}` does not divide.")
    if bias is not None:
        axes.bind("bias", bias, "B Cout" if len(bias) == 2 else "Cout")
    return per_sample


def _pair(axes: Axes, name: str, value: int | Sequence[int], least: int) -> Pair:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) == 1:
        pair *= 2
    if len(pair) != 2 or any(isinstance(one, (bool, float, str)) or one < least for one in pair):
        axes.fail(f"`{name}` is {value!r}, but must be one or two whole numbers of {least} or more.")
    return pair


def _padding(axes: Axes, padding: str | int | Sequence[int], stride: Pair, spans: Sequence[int]) -> tuple[Pair, Pair]:
    if not isinstance(padding, str):
        return _pair(axes, "padding", padding, 0), (0, 0)
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        axes.fail(f'`padding` is {padding!r}, but must be "same", "valid" or numbers.')
    if stride != (1, 1):
        axes.fail(f'`padding="same"` needs stride 1, but `stride` is {stride}. Give the padding in numbers.')
    total = [span - 1 for span in spans]
    return (total[0] // 2, total[1] // 2), (total[0] % 2, total[1] % 2)


def _output_size(axes: Axes, axis: str, padded: int, span: int, stride: int) -> int:
    if padded < span:
        axes.fail(
            f"the kernel spans {span} along `{axis}` (`K{'h' if axis == 'H' else 'w'}` and `dilation`), "
            f"but `x` with its padding has only {padded}. Pad more, or take a smaller kernel or dilation."
        )
    return (padded - span) // stride + 1
