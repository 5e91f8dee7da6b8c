"""The Kubernetes preset as it is shipped, with the real models: two ticks on the emulated cluster and CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import yaml

from tests.orchestrators.conftest import Checkout
from tests.orchestrators.fleet import PRESET, ROOT, SUBJECTS, Fleet, scheduled

pytestmark = [
    pytest.mark.slow, pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
]  # fmt: skip


@pytest.fixture(scope="module")
def fleet(on_cluster: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The shipped schedule; only the models, which the image would carry, are named by their place."""

    def with_models(parameters: dict[str, Any]) -> None:
        models = ROOT / "models"
        parameters["training"] |= {
            "base_model": {"path": str(models / "toybox")},
            "scorers": {name: str(models / name) for name in ("selector", "judge")},
        }

    with scheduled(on_cluster, tmp_path_factory.mktemp("retraining"), with_models) as made:
        yield made


def test_two_ticks_with_the_shipped_settings(fleet: Fleet) -> None:
    """The first promotes what passes the shipped gates, having used the GPU where the preset asks for one."""
    fleet.suspend()  # test_retraining.py waits for the schedule's own tick
    fleet.fire()
    assert fleet.wait_for_tick(1) == dict.fromkeys(SUBJECTS, ("promoted", "there is no production version yet"))
    on_gpu = {step for step, own in yaml.safe_load(PRESET.read_text())["steps"].items() if "settings" in own}
    for row in fleet.rows("dreambooth3d"):
        memory = {name.split("/")[0] for name, value in row["metrics"].items() if name.endswith("/peak_memory_mib")}
        assert memory == on_gpu and row["status"] == "FINISHED"
    fleet.fire()
    assert {action for action, _ in fleet.wait_for_tick(2).values()} == {"skipped"}
