"""The Kubernetes preset as it is shipped, with the real models: a tick on the emulated cluster and CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from operations.launch.presets import read_preset
from tests.orchestrators.conftest import Checkout
from tests.orchestrators.fleet import PRESET, ROOT, SUBJECTS, Fleet, scheduled

pytestmark = [
    pytest.mark.slow, pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
]  # fmt: skip
SUBJECT = SUBJECTS[0]


@pytest.fixture(scope="module")
def fleet(on_cluster: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The shipped schedule for one subject; the models, which the image would carry, are named by their place."""

    def with_models(parameters: dict[str, Any]) -> None:
        models = ROOT / "models"
        parameters["subjects"] = [SUBJECT]
        parameters["training"] |= {
            "base_model": {"path": str(models / "toybox")},
            "scorers": {name: str(models / name) for name in ("selector", "judge")},
        }

    with scheduled(on_cluster, tmp_path_factory.mktemp("retraining"), with_models) as made:
        yield made


def test_the_shipped_settings_train_what_passes_the_shipped_gates(fleet: Fleet) -> None:
    """Each step that the preset gives a GPU has used one, and no other step has."""
    fleet.suspend()  # test_retraining.py waits for the schedule's own tick
    fleet.fire()
    assert fleet.wait_for_tick(1) == {SUBJECT: ("promoted", "there is no production version yet")}
    on_gpu = {step for step, own in read_preset(PRESET).values["steps"].items() if "settings" in own}
    (row,) = fleet.rows("dreambooth3d")
    assert row["status"] == "FINISHED"
    assert {name.split("/")[2] for name in row["metrics"] if name.startswith("steps/peak_memory_mib/")} == on_gpu
