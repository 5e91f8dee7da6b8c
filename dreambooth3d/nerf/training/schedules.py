"""How weights change in the course of a stage."""

from __future__ import annotations

from dreambooth3d.config.distillation import Course, RegularizerConfig


def weights_at(config: RegularizerConfig, progress: float) -> RegularizerConfig:
    """The weights of the regularisers in force at a position in [0, 1] of the stage."""
    factors = {name: factor_at(course, progress) for name, course in config.schedule if course}
    if not factors:
        return config
    return config.model_copy(update={name: factor * getattr(config, name) for name, factor in factors.items()})


def factor_at(course: Course, progress: float) -> float:
    """The factor of a course at a position in [0, 1]; at a jump that after it."""
    if not course:
        return 1.0
    before = [point for point in course if point[0] <= progress]
    after = [point for point in course if point[0] > progress]
    if not before or not after:
        return (before[-1] if before else after[0])[1]
    (start, low), (end, high) = before[-1], after[0]
    return low + (high - low) * (progress - start) / (end - start)
