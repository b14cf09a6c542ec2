"""Sizes and options of one call, as its paths and the rules read them; :mod:`.measuring` checks and makes them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .sets import Counts

__all__ = ["Geometry", "Sizes"]

Sizes = tuple[int, ...]
Options = tuple[list[int], list[int], list[int], bool, list[int]]  # stride, padding, dilation, transposed, at the end


class Geometry(NamedTuple):
    """Of a convolution, or transposed convolution, over 1, 2 or 3 axes of space, or of a linear map: over none.

    The sizes of a linear map are those of the axes between the batch and the channels; it has neither kernel nor
    options. ``padding="same"`` has been turned into numbers.
    """

    B: int
    Cin: int
    size: Sizes
    Cout: int
    kernel: Sizes
    G: int
    out: Sizes
    stride: Sizes
    padding: Sizes  # the same on both sides
    extra: Sizes  # at the far end, on top: of x, an even kernel with "same"; transposed: of the output
    dilation: Sizes
    per_sample: bool
    counts: Counts | None = None  # samples that each set of weights serves, where that is neither one nor all
    bias_counts: Counts | None = None  # the same of the bias, where its sets are not those of the weight
    transposed: bool = False
    grid: Sizes = ()  # patches of the output, each with weights of its own: how many along each axis

    @property
    def axes(self) -> int:
        """How many axes of space there are; negative: transposed; 0: a linear map."""
        return -len(self.kernel) if self.transposed else len(self.kernel)

    @property
    def output(self) -> Sizes:
        """Shape of the output."""
        return (self.B, self.Cout, *self.out) if self.kernel else (self.B, *self.out, self.Cout)

    @property
    def sets(self) -> int:
        """How many sets of weights there are."""
        of_samples = (self.B if self.counts is None else len(self.counts)) if self.per_sample else 1
        return of_samples * math.prod(self.grid)

    @property
    def values(self) -> int:
        """How many values one set of weights has."""
        return self.Cin * self.Cout // self.G * math.prod(self.kernel)

    @property
    def multiply_adds(self) -> int:
        """Multiplications of the whole batch."""
        return self.B * self.values * math.prod(self.size if self.transposed else self.out)

    @property
    def depthwise(self) -> bool:
        """Whether each channel of an image has a kernel of its own."""
        return self.G == self.Cin == self.Cout and len(self.kernel) == 2 and not self.transposed

    @property
    def pointwise(self) -> bool:
        """Whether a convolution only mixes channels."""
        mixes = set(self.kernel) == {1} and not any(self.padding)
        return mixes and not (self.transposed and (any(self.extra) or set(self.stride) != {1}))

    @property
    def convolves_backward(self) -> bool:
        """Whether both gradients are convolutions of stride 1 as well: no padding is wider than a kernel reaches."""
        pads = zip(self.padding, self.dilation, self.kernel, strict=True)
        return set(self.stride) == {1} and all(p <= d * (k - 1) for p, d, k in pads)

    @property
    def options(self) -> Options:
        """The options as torch's operators take them; ``extra`` of what is not transposed is no part of them."""
        further = list(self.extra) if self.transposed else [0] * len(self.size)
        return list(self.stride), list(self.padding), list(self.dilation), self.transposed, further

    def arguments(self, groups: int) -> tuple[Any, ...]:
        """Return the options as the call takes them behind the bias, for another number of groups."""
        if self.transposed:
            return self.stride, self.padding, self.extra, groups, self.dilation
        return (self.stride, self.padding, self.dilation, groups) if self.kernel else ()

    def adjoint(self) -> Geometry:
        """The convolution that a transposed one is the gradient of, with respect to its input."""
        turned = self._replace(size=self.out, out=self.size, Cin=self.Cout, Cout=self.Cin)
        return turned._replace(extra=(0,) * len(self.size), transposed=False)

    def as_image(self) -> Geometry:
        """A sequence as an image of one row."""
        image = self._replace(size=(1, *self.size), kernel=(1, *self.kernel), out=(1, *self.out))
        image = image._replace(stride=(1, *self.stride), dilation=(1, *self.dilation))
        return image._replace(padding=(0, *self.padding), extra=(0, *self.extra))

    def padded(self) -> Geometry:
        """The same convolution of an input to which ``extra`` has been added."""
        size = tuple(one + more for one, more in zip(self.size, self.extra, strict=True))
        return self._replace(size=size, extra=(0,) * len(size))
