"""Pooling that keeps what a shift of the input should not change, an option of every net that pools.

Max pooling of a size and a stride is a dense maximum, stride 1, and then subsampling. What follows the dense maximum
here is a low-pass filter (BlurPool of Zhang 2019, or trainable: TLPF), a grid chosen by the signal (adaptive polyphase
sampling, APS, of Chaman and Dokmanic 2021), or both. Fonseca et al. 2021, "Improving sound event classification by
increasing shift invariance in convolutional neural networks", compares them; initial values and norms are those of its
public code. Filters are centred, where TensorFlow's padding of even maps lies half a step to the side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

BINOMIAL = {3: (1.0, 2.0, 1.0), 4: (1.0, 3.0, 3.0, 1.0), 5: (1.0, 4.0, 6.0, 4.0, 1.0)}  # Zhang 2019, section 4
INITIAL_DEVIATION = 0.01  # of the trainable filters before the softmax, as published: nearly a box
LONGEST_FILTER = 15  # frames or bands

Pooling = Literal["max", "blur3", "blur4", "blur5", "tlpf", "aps", "tlpf-aps"]
Norm = Literal["l1", "l2", "l1_matrix"]
Borders = Literal["zeros", "reflect", "circular"]
Size = tuple[int, int]  # frames and bands


@dataclass(frozen=True)
class Options:
    """Choose what follows a dense maximum or a convolution of stride 1.

    `filter` of tlpf is frames x bands; `aps_norm` chooses the grid: l1 and l2 over all channels, or l1_matrix, the
    induced norm that the public code of Fonseca et al. computes; `borders` is what filters see beyond the map.
    """

    pooling: Pooling = "max"
    filter: str = "5x5"
    aps_norm: Norm = "l1"
    borders: Borders = "zeros"


def filter_size(text: str) -> Size:
    """Return the size of a filter given as frames x bands; raise ValueError for another text.

    >>> filter_size("5x3")
    (5, 3)
    """
    match = re.fullmatch(r"(\d{1,2})x(\d{1,2})", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(1 <= side <= LONGEST_FILTER for side in size):
        raise ValueError(f"filter is {text!r}; it is frames x bands of 1 to {LONGEST_FILTER}, as 5x5")
    return size


def pool(
    options: Options, channels: int, size: int | Size = 2, stride: int | Size = 2, same: bool = False
) -> nn.Module:
    """Return max pooling, or what an option puts in its place: a dense maximum, then `subsample`.

    Maps become as large as max pooling makes them: without padding, or where `same` with all of an incomplete last
    window. Shape: [batch, channels, frames, bands].
    """
    size, stride = _pair(size), _pair(stride)
    if options.pooling == "max":
        if not same:
            return nn.MaxPool2d(size, stride)
        half = (size[0] // 2, size[1] // 2) if size[0] % 2 and size[1] % 2 else (0, 0)
        return nn.MaxPool2d(size, stride, half, ceil_mode=half == (0, 0))
    return nn.Sequential(DenseMax(size, same, options.borders), subsample(options, channels, stride))


def subsample(
    options: Options, channels: int, stride: int | Size = 2, grid: Grid | None = None, lead: bool = True
) -> nn.Module:
    """Return what makes a map smaller by a stride: a filter, the choice of a grid, or both; every second row for max.

    Two branches that meet again share a `grid`: the one that does not `lead` takes the grid that the other chose.
    Shape: [batch, channels, frames, bands].
    """
    stride, kind = _pair(stride), options.pooling
    if stride == (1, 1):
        return nn.Identity()
    if kind == "max":
        return Stride(stride)
    if kind.startswith("blur"):
        return LowPass(channels, _binomial(int(kind[4:])), stride, options.borders)
    filters: list[nn.Module] = []
    if kind.startswith("tlpf"):
        size = filter_size(options.filter)
        filters.append(TrainableLowPass(channels, size, (1, 1) if kind.endswith("aps") else stride, options.borders))
    if kind.endswith("aps"):
        filters.append(Polyphase(stride, options.aps_norm, options.borders, grid, lead))
    return nn.Sequential(*filters)


class DenseMax(nn.Module):
    """Take the maximum of every window of a size, stride 1; `same` keeps the map as large as it was."""

    def __init__(self, size: Size, same: bool, borders: Borders = "zeros") -> None:
        super().__init__()
        self.size, self.same, self.borders = size, same, borders

    def forward(self, maps: Tensor) -> Tensor:
        """Return maxima. Shape: [batch, channels, frames, bands]."""
        if self.borders == "circular":
            maps = functional.pad(maps, _around(self.size), "circular")
        elif self.same:
            maps = functional.pad(maps, _around(self.size), value=-torch.inf)
        return functional.max_pool2d(maps, self.size, 1)


class Stride(nn.Module):
    """Take every so-manieth row and column, from the first."""

    def __init__(self, stride: Size) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        """Return fewer rows and columns. Shape: [batch, channels, frames, bands]."""
        return maps[:, :, :: self.stride[0], :: self.stride[1]]


class LowPass(nn.Module):
    """Filter each channel by a fixed kernel [m, n] that sums to one, and subsample."""

    kernel: Tensor

    def __init__(self, channels: int, kernel: Tensor, stride: Size, borders: Borders = "zeros") -> None:
        super().__init__()
        self.channels, self.stride, self.borders = channels, stride, borders
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the filtered maps. Shape: [batch, channels, frames, bands]."""
        kernel = self.kernel.expand(self.channels, 1, -1, -1)
        return _filtered(maps, kernel, self.stride, self.borders)


class TrainableLowPass(nn.Module):
    """Filter each channel by its own kernel, trained; a softmax keeps it positive and its sum one."""

    def __init__(self, channels: int, size: Size, stride: Size, borders: Borders = "zeros") -> None:
        super().__init__()
        self.size, self.stride, self.borders = size, stride, borders
        self.weight = nn.Parameter(torch.empty(channels, size[0] * size[1]))
        nn.init.normal_(self.weight, std=INITIAL_DEVIATION)

    @property
    def kernel(self) -> Tensor:
        """The kernels. Shape: [channels, 1, m, n]."""
        return self.weight.softmax(1).unflatten(1, self.size).unsqueeze(1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the filtered maps. Shape: [batch, channels, frames, bands]."""
        return _filtered(maps, self.kernel, self.stride, self.borders)


class Grid:
    """Hold the grid that one branch chose, for another that meets it again. Shape: [batch]."""

    chosen: Tensor | None = None


class Polyphase(nn.Module):
    """Keep, of the grids into which a stride divides a map, that of the largest norm; one for the whole example.

    A map whose sides are no multiple of the stride is padded at its end, by reflection or as `borders` go around.
    Gradients flow through the grid that was chosen alone.
    """

    def __init__(
        self, stride: Size, norm: Norm = "l1", borders: Borders = "zeros", grid: Grid | None = None, lead: bool = True
    ) -> None:
        super().__init__()
        self.stride, self.norm, self.borders, self.grid, self.lead = stride, norm, borders, grid, lead

    def forward(self, maps: Tensor) -> Tensor:
        """Return the chosen grids. Shape: [batch, channels, frames, bands] to as many rows and columns as one has."""
        (rows, columns), (height, width) = self.stride, maps.shape[2:]
        lacking = (-width % columns, -height % rows)
        if any(lacking):
            mode = "circular" if self.borders == "circular" else "reflect"
            fits = lacking[0] < width and lacking[1] < height
            maps = functional.pad(maps, (0, lacking[0], 0, lacking[1]), mode if fits else "replicate")
        parts = maps.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))
        grids = parts.permute(0, 3, 5, 1, 2, 4).flatten(1, 2)  # [batch, grids, channels, frames, bands]
        if self.grid is not None and not self.lead:
            assert self.grid.chosen is not None, "the branch that leads runs first"
            chosen = self.grid.chosen
        else:
            chosen = _norms(grids.detach(), self.norm).argmax(1)
        if self.grid is not None:
            self.grid.chosen = chosen if self.lead else None
        return grids[torch.arange(len(grids), device=grids.device), chosen]


def _norms(grids: Tensor, norm: Norm) -> Tensor:
    """Return the norm of each grid. Shape: [batch, grids, channels, frames, bands] to [batch, grids]."""
    size = grids.float().abs()
    if norm == "l2":
        return size.square().sum((2, 3, 4))
    sums = size.sum((3, 4))
    return sums.sum(2) if norm == "l1" else sums.amax(2)


def _binomial(size: int) -> Tensor:
    row = torch.tensor(BINOMIAL[size])
    return row[:, None] * row[None, :]


def _filtered(maps: Tensor, kernel: Tensor, stride: Size, borders: Borders) -> Tensor:
    """Filter each channel by its kernel, centred. Shape: [batch, channels, frames, bands], [channels, 1, m, n]."""
    around = _around((kernel.shape[2], kernel.shape[3]))
    fits = all(max(around[2 * axis : 2 * axis + 2]) < maps.shape[3 - axis] for axis in (0, 1))
    if borders == "zeros":
        maps = functional.pad(maps, around)
    else:
        maps = functional.pad(maps, around, borders if fits else "replicate")
    return functional.conv2d(maps, kernel.to(maps.dtype), stride=stride, groups=maps.shape[1])


def _around(size: Size) -> tuple[int, int, int, int]:
    """Return the padding, bands before frames, with which a window of a size keeps a map as large as it was."""
    (rows, columns) = size
    return (columns - 1) // 2, columns // 2, (rows - 1) // 2, rows // 2


def _pair(size: int | Size) -> Size:
    return (size, size) if isinstance(size, int) else size
