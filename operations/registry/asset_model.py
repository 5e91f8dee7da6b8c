"""The registered model: renders of an asset from asked angles. MLflow stores this file instead of a pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from safetensors.torch import load_file

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import TURNTABLE_DISTANCE, TURNTABLE_FOV_Y_DEG, Cameras
from dreambooth3d.kinds import render_asset

SIZE, SAMPLES_PER_RAY = 128, 96


class AssetModel(PythonModel):
    """Rows of azimuth_deg and elevation_deg in, images (rows, 3, 128, 128) in [0, 1] on white out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the asset's safetensors and settings."""
        folder = Path(context.artifacts["field"])
        values = json.loads((folder / "field.json").read_text())
        state = load_file(folder / "field.safetensors")
        none = torch.empty(0, 3, 1, 1)
        self.asset = RadianceField(state, values["config"], none, values["steps"], kind=values["kind"])

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride] - MLflow declares no result
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Render one view per row."""
        azimuth, elevation = (
            torch.tensor(model_input[name].to_numpy(), dtype=torch.float32) for name in ("azimuth_deg", "elevation_deg")
        )
        full = torch.ones_like(azimuth)
        cameras = Cameras(azimuth, elevation, full * TURNTABLE_DISTANCE, full * TURNTABLE_FOV_Y_DEG)
        return render_asset(self.asset, cameras, size=SIZE, samples_per_ray=SAMPLES_PER_RAY).color.numpy()


set_model(AssetModel())
