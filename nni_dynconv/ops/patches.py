"""A convolution whose weights vary over the image, one set for each patch of a grid."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import ParamsError
from .conv import DynamicConv2d, Size, sizes

__all__ = ["DynamicPatchConv2d"]


class DynamicPatchConv2d(DynamicConv2d):
    """2-D convolution whose weights are made for each patch of the image; patches do not show where weights are alike.

    One set of weights is made for each patch where codes have places: from a :class:`~nni_dynconv.PatchContext`, or
    from the op's own input (:class:`~nni_dynconv.OwnInputContext`), which is averaged patch by patch. From any other
    code it is a convolution like any other: patches of a sample share its weights.

    Parameters
    ----------
    in_channels, out_channels, kernel_size
        As in :class:`torch.nn.Conv2d`.
    grid
        Patches of the output along its height and its width, or one number for both.
    stride, padding, dilation, groups, bias, padding_mode
        As in torch.

    Raises
    ------
    ShapeError
        As of :class:`~nni_dynconv.DynamicConv2d`; when it is called: the output has fewer places than patches.
    ConfigError
        There is no such ``padding_mode``.

    References
    ----------
    Nirkin et al., HyperSeg: Patch-wise hypernetwork for real-time semantic segmentation, CVPR 2021.

    Examples
    --------
    >>> import torch
    >>> conv = DynamicPatchConv2d(1, 1, 1, grid=2, bias=False)
    >>> conv(torch.ones(1, 1, 2, 4), {"weight": torch.arange(4.0).reshape(1, 2, 2, 1, 1, 1, 1)})
    tensor([[[[0., 0., 1., 1.],
              [2., 2., 3., 3.]]]])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        grid: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
        self.grid = sizes(self._axes(), "grid", grid, 2)

    @property
    def patch_grid(self) -> tuple[int, int]:  # type: ignore[override]
        """Patches that have sets of their own."""
        return self.grid[0], self.grid[1]

    def _checked(self, params: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found, axes = {name: one.dim() for name, one in params.items()}, {}
        for spec in self.weight_specs():
            axes[spec.name] = len(spec.shape)
        if not any(found.get(name, 0) > rank + 1 for name, rank in axes.items()):
            return super()._checked(params)
        for spec in self.weight_specs():
            shape = tuple(params[spec.name].shape) if spec.name in params else None
            if shape is None or shape not in (
                spec.shape,
                (*self.grid, *spec.shape),
                (*shape[:1], *self.grid, *spec.shape),
            ):
                raise ParamsError(
                    f"{self._where()}: `{spec.name}` must be {spec.shape}, for patches {(*self.grid, *spec.shape)}, or "
                    f"that behind an axis of samples, but is {shape}."
                )
        return params

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, grid={self.grid}"
