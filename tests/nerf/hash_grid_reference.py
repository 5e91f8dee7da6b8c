"""The multi-resolution hash encoding by loops, slow and readable: what every implementation is tested against."""

from __future__ import annotations

import math

from torch import Tensor

from dreambooth3d.config.field import FieldConfig

SMALL = FieldConfig(levels=5, log2_table_size=9, base_resolution=4, level_scale=1.7, volume_resolution=12)
"""Some of its levels are dense and some are hashed."""


def reference_hash_grid(params: Tensor, config: FieldConfig, point: list[float]) -> list[float]:
    """Features of one point in [-1, 1]^3, given the flat table, by loops over levels, corners and features."""
    table = params.tolist()
    features, offset, count = [], 0, config.features_per_level
    for level in range(config.levels):
        scale = config.base_resolution * config.level_scale**level - 1
        resolution = math.ceil(scale) + 1
        size = min(8 * math.ceil(resolution**3 / 8), 2**config.log2_table_size)
        position = [(value + 1) / 2 * scale + 0.5 for value in point]
        cell = [math.floor(value) for value in position]
        total = [0.0] * count
        for corner in range(8):
            bits = [(corner >> axis) & 1 for axis in range(3)]
            vertex = [cell[axis] + bits[axis] for axis in range(3)]
            weight = 1.0
            for axis in range(3):
                part = position[axis] - cell[axis]
                weight *= part if bits[axis] else 1 - part
            if resolution**3 <= size:
                row = (vertex[0] + vertex[1] * resolution + vertex[2] * resolution**2) % size
            else:
                row = (vertex[0] ^ (vertex[1] * 2654435761) ^ (vertex[2] * 805459861)) % 2**32 % size
            for feature in range(count):
                total[feature] += weight * table[(offset + row) * count + feature]
        features += total
        offset += size
    return features
