"""Packages that only some commands need, which the product's extras bring."""

from __future__ import annotations

from importlib.util import find_spec

from dreambooth3d.errors import ConfigError


def require_extra(extra: str, package: str, what: str) -> None:
    """Check that an extra's package is installed, without importing it.

    Args:
        extra: such as live.
        package: that it brings.
        what: needs it, as the sentence's beginning.

    Raises:
        ConfigError: it is not.
    """
    if find_spec(package) is None:
        raise ConfigError(f"{what}: {package} is not installed. Run `pip install 'dreambooth3d[{extra}]'`.")
