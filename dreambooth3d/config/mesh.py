"""The surface mesh."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dreambooth3d.config.base import Filled, Section
from dreambooth3d.config.field import EncodingConfig
from dreambooth3d.config.mesh_file import MeshFileConfig

_Weight = Annotated[float, Field(ge=0)]
_Length = Annotated[float, Field(gt=0, lt=0.95)]
_Factor = Annotated[float, Field(gt=0)]


class TextureConfig(EncodingConfig):
    """Colours in space, read at the surface; as those of a radiance field (`FieldConfig`)."""


class LightConfig(Section):
    """The light around a physically based material; it goes with the mesh wherever that is turned."""

    environment: Filled = "studio"
    """studio: a bright room with two lamps. white: as much light from everywhere. Else the file of a high-dynamic-range
    picture over latitude and longitude with the front in its middle: Radiance .hdr, or what imageio reads as floats."""
    digest: str = ""
    """SHA-256 of the file, which a run fills in, so that another picture of that name is another input."""
    brightness: _Factor = 0.7
    """Mean radiance, to which any environment is scaled; white matt surfaces are on average that bright, linearly."""


class MeshConfig(MeshFileConfig):
    """The surface mesh: a signed distance on a deformable grid of tetrahedra, and colours in space.

    A fresh mesh has the shape of `file`, or is an ellipsoid.
    """

    learning: ClassVar[frozenset[str]] = frozenset(
        {
            "distance_rate", "offset_rate", "texture_rate", "material_rate", "laplacian", "normal_consistency",
            "sign_changes", "rasterizer",
        }
    )  # fmt: skip
    """What also holds in a stage that goes on from a mesh; the rest says what a fresh one is."""

    rasterizer: Literal["auto", "torch", "nvdiffrast"] = "auto"
    """What finds the triangle of each pixel: PyTorch alone, or nvdiffrast on CUDA, where it has been installed; its
    licence allows no commercial use, so that auto is torch. Both show the same."""
    resolution: Annotated[int, Field(ge=8, le=128)] = 32
    """Cubes per side of the grid; each has twelve tetrahedra around its middle."""
    texture: TextureConfig | None = None
    """Where colours come from; nothing shares those of the field that it begins from, or is the default."""
    material: Literal["albedo", "pbr"] = "albedo"
    """albedo: colours as they are seen. pbr: base colour, roughness, metalness and offsets of the normals, physically
    based, under `light`. A later stage goes on with the material that its mesh has."""
    light: LightConfig = LightConfig()
    """The environment with material pbr."""
    relief: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Largest offset of a normal along each axis with material pbr; 0 leaves the surface's own."""
    initial_radii: tuple[_Length, _Length, _Length] = (0.45, 0.45, 0.45)
    """Semi-axes of the ellipsoid that a fresh mesh is without a file, in world units."""
    background: Literal["learned", "white", "texture", "network"] = "learned"
    """What lies behind a fresh mesh while it learns: one learned colour, white, or what is seen in each direction, by a
    learned picture or a small network. A mesh that begins from a field has the field's."""
    distance_rate: _Factor = 2.0
    """Factor on the learning rate for signed distances, which are in edges of the grid's cubes."""
    offset_rate: _Factor = 2.0
    """Factor on the learning rate for the offsets of the grid's vertices."""
    texture_rate: _Factor = 1.0
    """Factor on the learning rate for colours."""
    material_rate: _Factor = 0.5
    """Factor on the learning rate for roughness, metalness and offsets of normals."""
    laplacian: _Weight = 0.0
    """Weight of the squared distance of vertices from the middle of their neighbours, in squared cubes' edges."""
    normal_consistency: _Weight = 20.0
    """Weight of 1 - cosine between the normals of neighbouring triangles."""
    sign_changes: _Weight = 0.5
    """Weight of the cross entropy of signs along the grid's edges that the surface crosses, as in nvdiffrec: it removes
    surfaces that nothing asks for."""
