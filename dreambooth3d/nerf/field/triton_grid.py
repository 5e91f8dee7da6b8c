"""The multi-resolution hash grid as Triton kernels: compiled on first use, so nothing has to be built beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from dreambooth3d.config.field import FieldConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.field.hash_grid import HASH_PRIMES, HashEncoding, initial_table

FEATURE_COUNTS = (1, 2, 4, 8)
DTYPES = (torch.float32, torch.float16)
LAYOUT_COLUMNS = tl.constexpr(6)


@dataclass(frozen=True)
class Launch:
    """How a kernel is cut into programs; none of it changes a result.

    Attributes:
        block: points per program, a power of two.
        warps: groups of 32 threads per program.
        levels: levels that a program loops over, or all. The programs of one group of levels run before those of the
            next, so that the tables in use stay in the L2 cache; a few at a time fill whole 32-byte sectors of the
            features.
    """

    block: int
    warps: int
    levels: int | None = None


ENCODE = Launch(block=256, warps=8, levels=4)
SCATTER = Launch(block=256, warps=8, levels=4)
LOCATE = Launch(block=128, warps=4)


@triton.jit
def _point(pointer, inside):
    """The three coordinates of each point; 0 where it is not inside the list."""
    x = tl.load(pointer, mask=inside, other=0.0)
    y = tl.load(pointer + 1, mask=inside, other=0.0)
    return x, y, tl.load(pointer + 2, mask=inside, other=0.0)


@triton.jit
def _level(scales, layout, level):
    """One level: scale, first entry, entries, highest cell, factors of y and z, whether it is hashed."""
    row = layout + level * LAYOUT_COLUMNS
    scale = tl.load(scales + level)
    first = tl.load(row).to(tl.int64)
    return scale, first, tl.load(row + 1), tl.load(row + 2), tl.load(row + 3), tl.load(row + 4), tl.load(row + 5) != 0


@triton.jit
def _cell(coordinate, scale, last):
    """Cell and fraction within it, of a coordinate in [-1, 1]. NaN gives some valid cell and the fraction NaN."""
    position = (coordinate + 1.0) * 0.5 * scale + 0.5
    lower = tl.floor(position)
    return tl.minimum(tl.maximum(lower, 0.0), last.to(tl.float32)).to(tl.int32), position - lower


@triton.jit
def _corner(corner: tl.constexpr, x, y, z, factor_y, factor_z, size, hashed):
    """Row within a level of one corner of the cells (x, y, z).

    int32 wraps as uint32 does, so that the hash is the same bit by bit. A dense level's row is below twice its size,
    which spares the division of a remainder.
    """
    x = x + (corner & 1)
    y = (y + ((corner >> 1) & 1)) * factor_y
    z = (z + (corner >> 2)) * factor_z
    dense = x + y + z
    dense = tl.where(dense >= size, dense - size, dense)
    return tl.where(hashed, (x ^ y ^ z) & (size - 1), dense)


@triton.jit
def _side(corner: tl.constexpr, axis: tl.constexpr, fraction):
    """Linear weight of a corner along one axis."""
    if (corner >> axis) & 1:
        weight = fraction
    else:
        weight = 1.0 - fraction
    return weight


@triton.jit(do_not_specialize=["count"])
def _encode(
    points, table, scales, layout, out, count,
    LEVELS: tl.constexpr, FEATURES: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Features (count, LEVELS * FEATURES) of points (count, 3)."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    local = tl.arange(0, BLOCK)
    inside = start + local < count
    point_x, point_y, point_z = _point(points + start * 3 + local * 3, inside)
    feature = tl.arange(0, FEATURES)[None, :]
    target = out + start * (LEVELS * FEATURES) + local[:, None] * (LEVELS * FEATURES) + feature
    for step in range(GROUP):
        level = tl.program_id(1) * GROUP + step
        if level < LEVELS:
            scale, first, size, last, factor_y, factor_z, hashed = _level(scales, layout, level)
            x, part_x = _cell(point_x, scale, last)
            y, part_y = _cell(point_y, scale, last)
            z, part_z = _cell(point_z, scale, last)
            entries = table + first * FEATURES
            total = tl.zeros([BLOCK, FEATURES], tl.float32)
            for corner in tl.static_range(8):
                row = _corner(corner, x, y, z, factor_y, factor_z, size, hashed)
                weight = _side(corner, 0, part_x) * _side(corner, 1, part_y) * _side(corner, 2, part_z)
                total += weight[:, None] * tl.load(entries + row[:, None] * FEATURES + feature).to(tl.float32)
            tl.store(target + level * FEATURES, total.to(out.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=["count"])
def _scatter(
    points, gradient, scales, layout, table_gradient, count,
    LEVELS: tl.constexpr, FEATURES: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Add to the table's gradient (float32) that of the features (count, LEVELS * FEATURES)."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    local = tl.arange(0, BLOCK)
    inside = start + local < count
    point_x, point_y, point_z = _point(points + start * 3 + local * 3, inside)
    feature = tl.arange(0, FEATURES)[None, :]
    source = gradient + start * (LEVELS * FEATURES) + local[:, None] * (LEVELS * FEATURES) + feature
    for step in range(GROUP):
        level = tl.program_id(1) * GROUP + step
        if level < LEVELS:
            scale, first, size, last, factor_y, factor_z, hashed = _level(scales, layout, level)
            x, part_x = _cell(point_x, scale, last)
            y, part_y = _cell(point_y, scale, last)
            z, part_z = _cell(point_z, scale, last)
            entries = table_gradient + first * FEATURES
            incoming = tl.load(source + level * FEATURES, mask=inside[:, None], other=0.0).to(tl.float32)
            for corner in tl.static_range(8):
                row = _corner(corner, x, y, z, factor_y, factor_z, size, hashed)
                weight = _side(corner, 0, part_x) * _side(corner, 1, part_y) * _side(corner, 2, part_z)
                # The features of an entry lie side by side: on sm_90 one vector instruction adds up to four of them.
                tl.atomic_add(
                    entries + row[:, None] * FEATURES + feature,
                    weight[:, None] * incoming,
                    mask=inside[:, None],
                    sem="relaxed",
                )


@triton.jit(do_not_specialize=["count"])
def _locate(
    points, table, gradient, scales, layout, point_gradient, count,
    LEVELS: tl.constexpr, FEATURES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient (count, 3) of the points, from that of the features (count, LEVELS * FEATURES)."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    local = tl.arange(0, BLOCK)
    inside = start + local < count
    point_x, point_y, point_z = _point(points + start * 3 + local * 3, inside)
    feature = tl.arange(0, FEATURES)[None, :]
    source = gradient + start * (LEVELS * FEATURES) + local[:, None] * (LEVELS * FEATURES) + feature
    slope_x = tl.zeros([BLOCK], tl.float32)
    slope_y = tl.zeros([BLOCK], tl.float32)
    slope_z = tl.zeros([BLOCK], tl.float32)
    for level in range(LEVELS):
        scale, first, size, last, factor_y, factor_z, hashed = _level(scales, layout, level)
        x, part_x = _cell(point_x, scale, last)
        y, part_y = _cell(point_y, scale, last)
        z, part_z = _cell(point_z, scale, last)
        entries = table + first * FEATURES
        incoming = tl.load(source + level * FEATURES, mask=inside[:, None], other=0.0).to(tl.float32) * (0.5 * scale)
        for corner in tl.static_range(8):
            row = _corner(corner, x, y, z, factor_y, factor_z, size, hashed)
            values = tl.load(entries + row[:, None] * FEATURES + feature).to(tl.float32)
            slope = tl.sum(values * incoming, axis=1)
            side_x, side_y, side_z = _side(corner, 0, part_x), _side(corner, 1, part_y), _side(corner, 2, part_z)
            slope_x += (2 * (corner & 1) - 1) * side_y * side_z * slope
            slope_y += (2 * ((corner >> 1) & 1) - 1) * side_x * side_z * slope
            slope_z += (2 * (corner >> 2) - 1) * side_x * side_y * slope
    target = point_gradient + start * 3 + local * 3
    tl.store(target, slope_x, mask=inside)
    tl.store(target + 1, slope_y, mask=inside)
    tl.store(target + 2, slope_z, mask=inside)


class _Context(FunctionCtx):
    """What PyTorch's stubs do not say of a context, and what `_Encode` keeps in it."""

    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]
    grid: TritonGrid
    entries: int


class _Encode(torch.autograd.Function):
    """Features of points, with gradients to the table and to the points; both once differentiable."""

    @staticmethod
    def forward(ctx: _Context, points: Tensor, table: Tensor, grid: TritonGrid) -> Tensor:
        """(n, levels * features) in the grid's dtype, of contiguous float32 points (n, 3) and the flat table."""
        values = table.detach().to(grid.dtype)
        out = torch.empty(len(points), grid.output_dim, dtype=grid.dtype, device=points.device)
        ctx.grid, ctx.entries = grid, len(table)
        kept = values if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(points, kept)  # pyright: ignore[reportArgumentType]  # None is kept as it is
        grid.launch(_encode, ENCODE, points, values, grid.scales, grid.layout, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # each function has gradients of its own
        ctx: _Context, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of the points (n, 3) and of the table, both float32."""
        points, values = ctx.saved_tensors
        grid, gradient = ctx.grid, gradient.contiguous()
        point_gradient = table_gradient = None
        if ctx.needs_input_grad[0]:
            point_gradient = torch.zeros(points.shape, device=points.device)
            grid.launch(_locate, LOCATE, points, values, gradient, grid.scales, grid.layout, point_gradient)
        if ctx.needs_input_grad[1]:
            table_gradient = torch.zeros(ctx.entries, device=points.device)
            grid.launch(_scatter, SCATTER, points, gradient, grid.scales, grid.layout, table_gradient)
        return point_gradient, table_gradient, None


class TritonGrid(HashEncoding):
    """The encoding of `HashGrid` by Triton kernels; CUDA only (or Triton's interpreter).

    Nothing in it waits for the device, so that it can be captured in a CUDA graph after one call has compiled it.

    Args:
        config: the grid; 1, 2, 4 or 8 features per level.
        dtype: of the features. The table is float32 in any case. With float16 each call gathers from a float16 copy of
            the table, sums the eight corners in float32 and rounds the features once; their gradient then arrives in
            float16, so the loss may need scaling, and is added up in float32.

    Raises:
        ConfigError: another number of features per level, or another dtype.
    """

    scales: Tensor
    layout: Tensor

    def __init__(self, config: FieldConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(config)
        if config.features_per_level not in FEATURE_COUNTS:
            raise ConfigError(
                f"field.features_per_level={config.features_per_level}: Triton's hash grid takes 1, 2, 4 or 8. "
                "Change it, or set field.implementation=torch."
            )
        if dtype not in DTYPES:
            raise ConfigError(f"dtype={dtype}: Triton's hash grid takes torch.float32 or torch.float16.")
        self.dtype = dtype
        self.grid = nn.ParameterDict({"params": initial_table(config)})
        self.register_buffer("scales", torch.tensor([scale for scale, _, _ in self.levels]), persistent=False)
        self.register_buffer("layout", _layout(self.levels), persistent=False)

    def encode(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n features"]:
        """See `HashEncoding`; differentiable once in points and table."""
        return _Encode.apply(points.float().contiguous(), self.grid["params"], self)

    def launch(self, kernel: triton.JITFunction, launch: Launch, points: Tensor, *tensors: Tensor) -> None:
        """Start a kernel over points (n, 3) and groups of levels."""
        if not len(points):
            return
        groups = triton.cdiv(len(self.levels), launch.levels) if launch.levels else 1
        grouped = {"GROUP": launch.levels} if launch.levels else {}
        programs = (triton.cdiv(len(points), launch.block), groups)
        with torch.cuda.device_of(points):
            kernel[programs](
                points, *tensors, len(points),
                LEVELS=len(self.levels), FEATURES=self.features, BLOCK=launch.block, **grouped,
                num_warps=launch.warps, num_stages=1,
            )  # fmt: skip


def _layout(levels: list[tuple[float, int, int]]) -> Tensor:
    """(levels, 6) int32, see `_level`.

    A dense level's row is x + y * resolution + z * resolution^2, a hashed one's x ^ y * prime ^ z * prime.
    """
    rows, first = [], 0
    for _, resolution, size in levels:
        hashed = resolution**3 > size
        factors = HASH_PRIMES[1:] if hashed else (resolution, resolution**2)
        signed = [factor - (1 << 32) if factor >= 1 << 31 else factor for factor in factors]
        rows.append([first, size, resolution, *signed, int(hashed)])
        first += size
    return torch.tensor(rows, dtype=torch.int32)
