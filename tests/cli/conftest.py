"""One initialised product per worker, and the console script in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from tests.product import Product, make_product


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A product with its photos pulled, and ZenML initialised; tests leave it as they found it."""
    made = make_product(tmp_path_factory.mktemp("cli"))
    result = made.dreambooth3d("setup")
    assert result.returncode == 0, result.stderr
    made.write_config()
    return made


@pytest.fixture
def invoke(product: Product, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run the console script in this process, in the product's folder; nothing but kept masks may be written there."""
    from dreambooth3d.cli.main import app

    monkeypatch.chdir(product.root)
    for name, value in product.environment.items():
        monkeypatch.setenv(name, value)

    def files() -> set[str]:
        return {name for name in product.files() if not name.startswith(".dreambooth3d/masks/")}

    before = files()
    yield lambda *arguments: CliRunner().invoke(app, list(arguments))
    assert files() == before
