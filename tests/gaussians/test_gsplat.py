"""gsplat on CUDA against the dense rasteriser, which other tests hold against a loop over pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dreambooth3d.cameras import PosedCameras
from dreambooth3d.config.gaussians import Rasterizer
from dreambooth3d.gaussians.projection import Splats
from dreambooth3d.gaussians.rasterization import Raster, rasterize
from tests.gaussians.test_compositing import VIEWS, some_splats

pytestmark = pytest.mark.gpu
HEIGHT, WIDTH = 48, 64


def leaves() -> list[Tensor]:
    splats = some_splats(80, 0.08)
    values = (splats.means, splats.covariances, splats.opacities, splats.features, VIEWS.camera_to_world)
    return [value.float().cuda().requires_grad_() for value in values]


def shown(values: list[Tensor], implementation: Rasterizer, **given: Tensor) -> Raster:
    *of_splats, poses = values
    cameras = PosedCameras(poses, VIEWS.fov_y_deg.float().cuda())
    return rasterize(Splats(*of_splats), cameras, HEIGHT, WIDTH, implementation=implementation, **given)


@pytest.mark.parametrize("some", [False, True])
def test_images_and_gradients_are_those_of_the_dense_rasteriser(some: bool) -> None:
    pytest.importorskip("gsplat")
    given = {"places": torch.arange(5, HEIGHT * WIDTH, 7, device="cuda")} if some else {}
    expected, found = leaves(), leaves()
    images = [shown(expected, "dense", **given), shown(found, "gsplat", **given)]
    assert images[0].opacity.max() > 0.8 and images[0].opacity.min() == 0
    solid = images[0].opacity > 0.1
    torch.testing.assert_close(images[1].features, images[0].features, atol=5e-3, rtol=0)
    torch.testing.assert_close(images[1].opacity, images[0].opacity, atol=5e-3, rtol=0)
    torch.testing.assert_close(images[1].depth[solid], images[0].depth[solid], atol=2e-2, rtol=0)
    weights = torch.rand(images[0].features.shape, generator=torch.Generator().manual_seed(1)).cuda()
    for image in images:
        ((image.features * weights).sum() + image.opacity.square().sum()).backward()
    for one, other in zip(expected, found, strict=True):
        assert one.grad is not None and other.grad is not None
        pair = [leaf.grad for leaf in (one, other)]
        if one.shape[1:] == (3, 3):  # a covariance is symmetric: how its halves share a gradient says nothing
            pair = [(gradient + gradient.mT) / 2 for gradient in pair]
        difference = (pair[0] - pair[1]).norm() / pair[0].norm()
        assert difference < 0.02, (tuple(one.shape), difference.item())
