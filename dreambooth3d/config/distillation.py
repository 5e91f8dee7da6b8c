"""The stages that train an asset."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dreambooth3d.config.base import Count, Positive, RisingRange, Section, Share
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.gaussians import GaussiansConfig
from dreambooth3d.config.guards import EditGuardsConfig, GuardsConfig
from dreambooth3d.config.guidance import EditGuidanceConfig, GuidanceConfig
from dreambooth3d.config.mesh import MeshConfig
from dreambooth3d.config.painted import PaintedConfig
from dreambooth3d.config.photo_targets import EditPhotoTargetsConfig, InitPhotoTargetsConfig, PhotoTargetsConfig
from dreambooth3d.config.rendering import (
    CameraConfig,
    CameraJitterConfig,
    ProgressiveConfig,
    RenderConfig,
    ShadingConfig,
)
from dreambooth3d.config.representation import SETTINGS, RepresentationKind
from dreambooth3d.config.sketch import SketchConfig


def _in_order(points: Course) -> Course:
    shares = [share for share, _ in points]
    if shares != sorted(shares):
        raise ValueError("the shares of the stage are not in order: sort the points by their first number")
    return points


Course = tuple[tuple[Share, Annotated[float, Field(ge=0)]], ...]
"""Points (share of the stage, factor): linear between them, constant before the first and after the last; two points at
one share are a jump, and none are the factor 1."""
Factor = Annotated[Course, AfterValidator(_in_order)]


class RegularizerSchedule(Section):
    """By which factor the weight of the same name is multiplied in the course of the stage, as points such as
    [[0, 0.01], [0.5, 1]]: from a hundredth at the start to the whole weight at half of the stage."""

    sparsity: Factor = ()
    """Of sparsity; a fresh asset's grows over the first fifth besides."""
    opacity: Factor = ()
    """Of opacity; a fresh asset's grows over the first fifth besides."""
    orientation: Factor = ()
    """Of orientation."""
    distortion: Factor = ()
    """Of distortion."""
    smoothness: Factor = ()
    """Of smoothness."""
    emptiness: Factor = ()
    """Of emptiness, besides its rise."""
    center_depth: Factor = ()
    """Of center_depth."""
    depth_variance: Factor = ()
    """Of depth_variance."""


class RegularizerConfig(Section):
    """Weights of the regularisers."""

    sparsity: Annotated[float, Field(ge=0)] = 25.0
    """sqrt(opacity^2 + 0.01), mean over rays; of Gaussians, over these. A mesh, which is opaque, has none."""
    opacity: Annotated[float, Field(ge=0)] = 12.0
    """Binary entropy of the opacity, likewise."""
    orientation: Annotated[float, Field(ge=0)] = 0.0
    """Normals that face away from the camera, as in Ref-NeRF."""
    distortion: Annotated[float, Field(ge=0)] = 0.0
    """Spread of the weights along a ray, as in Mip-NeRF 360."""
    smoothness: Annotated[float, Field(ge=0)] = 0.0
    """Total variation of the logits between neighbouring voxels, or cells of the finest level of a hash grid."""
    emptiness: Annotated[float, Field(ge=0)] = 0.0
    """log(1 + emptiness_scale * weight), mean over all samples of a ray, as in Score Jacobian Chaining: space should be
    empty, and what little there is costs the most."""
    emptiness_scale: Annotated[float, Field(gt=0)] = 10.0
    """How soon a sample's weight counts in full."""
    emptiness_rise: Annotated[float, Field(gt=0)] = 20.0
    """Factor on emptiness once the shape has formed."""
    emptiness_rise_at: Share = 0.5
    """Share of the stage after which that factor counts."""
    center_depth: Annotated[float, Field(ge=0)] = 0.0
    """-log(mean depth in the middle of an image - mean depth at its rim), as in Score Jacobian Chaining, where nothing
    has the depth 0: the subject should be in the middle."""
    depth_variance: Annotated[float, Field(ge=0)] = 0.0
    """Variance of the depth along rays that are more than half opaque, in squared world units, as in HiFA: a surface
    should be thin."""
    schedule: RegularizerSchedule = RegularizerSchedule()


class ReconstructionConfig(Section):
    """What pseudo views are for: they are reconstructed alongside, and say where guidance looks from."""

    weight: Annotated[float, Field(ge=0)] = 6.0e4
    """Weight of the reconstruction loss: Huber, mean over pixels and colour channels; 0 turns it off."""
    silhouette_weight: Annotated[float, Field(ge=0)] = 2.0e3
    """Weight of the binary cross entropy of opacity against the subject's mask in a pseudo view; it clears the haze."""
    views_per_step: Positive = 2
    """Pseudo views per step."""
    camera_poses: Literal["random", "pseudo_views"] = "random"
    """Where distillation looks from: all around at random, or only from where the pseudo views were taken."""


def _no_field(value: object) -> object:
    if value is not None:
        raise ValueError("this stage goes on from an earlier stage's field, so set init_nerf.field instead")
    return value


def _no_reconstruction(value: object) -> object:
    if value is not None:
        raise ValueError("this stage has no pseudo views; they are reconstructed by refine_nerf.reconstruction")
    return value


NoField = Annotated[None, BeforeValidator(_no_field)]
NoReconstruction = Annotated[None, BeforeValidator(_no_reconstruction)]


GuidedOn = Literal["color", "normals", "textureless"]
Learning = Literal["all", "shape", "appearance"]


class DistillConfig(Section):
    """One stage of score distillation."""

    representation: RepresentationKind | None = None
    """What the asset is made of: field, mesh, gaussians, or painted for a mesh that is given; nothing leaves it as it
    is where the stage begins."""
    field: FieldConfig | None = None
    """What a fresh field is made of; nothing where the stage goes on from an earlier one's."""
    gaussians: GaussiansConfig | None = None
    """What Gaussians are made of, fresh ones or those made of another kind of asset, and how they learn; nothing for
    the defaults, or for those of the Gaussians that the stage goes on from."""
    mesh: MeshConfig | None = None
    """Likewise, a mesh."""
    painted: PaintedConfig | None = None
    """Which mesh is painted, and what its colours are made of."""
    sketch: SketchConfig = SketchConfig()
    reconstruction: ReconstructionConfig | None = None
    """What pseudo views are for; nothing where there are none."""
    steps: Positive = 600
    """Optimiser steps."""
    views_per_step: Positive = 4
    """Cameras per step."""
    processes: Positive = 1
    """Processes that share each step's cameras, each on a GPU of its own."""
    learning_rate: Annotated[float, Field(gt=0)] = 1.0e-2
    """Adam's learning rate at the start."""
    final_learning_rate: Annotated[float, Field(gt=0)] = 2.0e-3
    """Adam's learning rate at the end (exponential decay)."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the running average of the field's parameters, which takes the noise of distillation out of
    previews, camera searches and the result; 0 turns it off."""
    render: RenderConfig = RenderConfig()
    cameras: CameraConfig = CameraConfig()
    camera_jitter: CameraJitterConfig = CameraJitterConfig()
    progressive: ProgressiveConfig = ProgressiveConfig()
    guidance: GuidanceConfig = GuidanceConfig()
    guide_on: GuidedOn = "color"
    """What guidance looks at. color: renders, by `shading`. normals: normals in the camera's frame, from [-1, 1] to
    [0, 1], as Fantasia3D's geometry stage. textureless: the shape in grey under a random light."""
    latents_until: Share = 0.0
    """With guide_on normals: share of the stage in which normals and mask, downsampled, are the latents, in four
    channels; 0 encodes pictures of the normals from the start."""
    learns: Learning = "all"
    """What the stage changes: all, the shape alone, or the appearance alone on the shape that there is. Of a field both
    are one, and only all can be learned."""
    shading: ShadingConfig = ShadingConfig()
    regularizers: RegularizerConfig = RegularizerConfig()
    photos: PhotoTargetsConfig = PhotoTargetsConfig()
    guards: GuardsConfig = GuardsConfig()
    face_front: bool = False
    """Where no photos say where the front is, turn the field to where the selector sees it: at 40 % of the stage, so
    that the view words that follow fit, and in the end."""
    random_background_probability: Share = 1.0
    """Probability per step of a random plain background instead of the field's own."""
    random_background_range: RisingRange = (0.3, 1.0)
    """Range of each colour channel of a random plain background."""
    convergence_patience: Count = 0
    """Stop when previews have changed by less than convergence_tolerance for this many checks; 0 never stops."""
    convergence_tolerance: Annotated[float, Field(gt=0)] = 2.0e-3
    """Mean absolute change of the previews between checks that counts as none."""
    check_every: Positive = 100
    """Steps between previews, guard checks and convergence checks."""
    collapse_retries: Count = 1
    """New seeds to try after a collapse."""

    @model_validator(mode="after")
    def _latents_can_be_rendered(self) -> Self:
        if self.render.space == "rgb":
            return self
        if self.representation not in (None, "field"):
            raise ValueError(
                f"render.space: latent is for a field, and representation is {self.representation}: set render.space "
                "to rgb, or representation to field"
            )
        if self.guide_on != "color":
            raise ValueError("render.space: latent has nothing but latents to look at: set guide_on to color")
        if self.guidance.image_weight > 0:
            raise ValueError("render.space: latent has no images to compare: set guidance.image_weight to 0")
        if self.shading.albedo_only_share < 1:
            raise ValueError("render.space: latent has no colours to light: set shading.albedo_only_share to 1")
        return self

    @model_validator(mode="after")
    def _mesh_files_are_used(self) -> Self:
        given = [name for name in ("mesh", "painted") if getattr(getattr(self, name), "file", None) is not None]
        if given and not isinstance(self, InitNerfConfig):
            raise ValueError(
                f"{given[0]}.file is what a fresh asset begins from, and this stage goes on or fits a truth: set it in "
                "init_nerf"
            )
        if "mesh" in given and self.representation != "mesh":
            raise ValueError(
                f"mesh.file is what a mesh begins from, and representation is {self.representation}: set "
                "representation to mesh, or name the file as sketch.file or painted.file"
            )
        if isinstance(self, InitNerfConfig) and ("painted" in given) != (self.representation == "painted"):
            raise ValueError("representation: painted and painted.file go together: set both, or neither")
        return self

    @model_validator(mode="after")
    def _painted_meshes_stay(self) -> Self:
        if self.representation != "painted":
            return self
        if not isinstance(self, InitNerfConfig):
            raise ValueError("representation: painted begins from a given mesh: set it, and painted.file, in init_nerf")
        if self.guide_on != "color" or self.learns == "shape":
            raise ValueError("a painted mesh has nothing but colours to learn: set guide_on=color and learns=all")
        if self.face_front:
            raise ValueError("a painted mesh stays as it stands, and face_front would turn it: set face_front=false")
        return self

    @model_validator(mode="after")
    def _sketch_steers_a_field(self) -> Self:
        if self.sketch.file is None:
            return self
        if self.representation not in (None, "field"):
            raise ValueError(
                f"sketch.file steers a field, and representation is {self.representation}: set representation to "
                "field, or begin from the mesh itself by mesh.file"
            )
        if isinstance(self, FitTrueViewsConfig):
            raise ValueError("sketch.file steers what guidance shapes, and here true views are fitted: remove it")
        if self.face_front:
            raise ValueError("sketch.file says where the front is, and face_front would turn it: set face_front=false")
        return self

    @model_validator(mode="after")
    def _guidance_sees_what_learns(self) -> Self:
        if self.latents_until > 0 and self.guide_on != "normals":
            raise ValueError(
                f"latents_until={self.latents_until:g} takes normals for latents, and guide_on={self.guide_on}: set "
                "guide_on=normals, or latents_until=0"
            )
        kept_apart = self.representation in (None, "mesh", "painted")
        if self.learns != "all" and not kept_apart:
            raise ValueError(
                f"learns={self.learns} needs an asset whose shape and appearance are kept apart, and representation is "
                f"{self.representation}: set representation=mesh, or learns=all"
            )
        if self.mesh is not None and self.mesh.material == "pbr" and self.shading.albedo_only_share < 1:
            raise ValueError(
                "mesh.material: pbr is lit by its environment, and shading would light it otherwise: set "
                "shading.albedo_only_share=1"
            )
        if self.learns == "appearance" and self.guide_on != "color":
            raise ValueError(
                f"learns=appearance: guide_on={self.guide_on} shows nothing of the appearance. Set guide_on=color"
            )
        return self

    @model_validator(mode="after")
    def _processes_have_work(self) -> Self:
        if self.processes > self.views_per_step:
            raise ValueError(
                f"processes={self.processes} needs at least as many views_per_step, and these are "
                f"{self.views_per_step}: raise views_per_step or lower processes"
            )
        if self.processes > 1 and self.guidance.needs.render_model:
            raise ValueError(
                f"guidance.loss={self.guidance.loss} trains a LoRA in one process only: set processes=1 or another loss"
            )
        return self


def require_same_making(**stages: DistillConfig) -> None:
    """Check that stages which go on from each other's assets ask for no other making of these.

    Args:
        stages: by name, each going on from the one before.

    Raises:
        ValueError: a stage asks for another making of the mesh or the Gaussians that it goes on from.
    """
    kind, made, first = None, None, ""
    for name, stage in stages.items():
        asked = getattr(stage, stage.representation or kind or "field")
        if stage.representation not in (None, kind):
            kind, first = stage.representation, name
            made = asked or SETTINGS[kind]()
        elif asked is not None and made is not None and (other := other_making(made, asked)) is not None:
            raise ValueError(
                f"{name}.{kind}.{other}={getattr(asked, other)}: {name} goes on with the {kind} of {first}, made with "
                f"{getattr(made, other)}, which cannot change: remove the key, or set {first}.{kind}.{other}"
            )


def other_making(made: Section, asked: Section) -> str | None:
    """The first setting of how an asset is made that is neither the asset's nor the default; None if there is none."""
    learning = getattr(type(made), "learning", frozenset())
    for name, field in type(made).model_fields.items():
        default = field.get_default(call_default_factory=True)
        if name not in learning and getattr(asked, name) not in (getattr(made, name), default):
            return name
    return None


class InitNerfConfig(DistillConfig):
    """Stage 1: a first field by score distillation from the partial checkpoint."""

    representation: RepresentationKind = "field"  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """What the asset is made of: field, mesh, gaussians, or painted for a mesh that is given."""
    field: FieldConfig = FieldConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    gaussians: GaussiansConfig = GaussiansConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    mesh: MeshConfig = MeshConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    painted: PaintedConfig = PaintedConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    reconstruction: NoReconstruction = None  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """Nothing: there are no pseudo views yet."""
    photos: InitPhotoTargetsConfig = InitPhotoTargetsConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen


class RefineNerfConfig(DistillConfig):
    """Stage 3: distillation on random cameras alongside reconstruction of the pseudo views."""

    field: NoField = None  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """Nothing: the stage goes on from the first field."""
    reconstruction: ReconstructionConfig = ReconstructionConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen


class EditRegularizerConfig(RegularizerConfig):
    """The same for a context, where no photo clears the haze or smooths the colours."""

    sparsity: Annotated[float, Field(ge=0)] = 6.0
    """As for any stage."""
    smoothness: Annotated[float, Field(ge=0)] = 20.0
    """Total variation of the logits between neighbouring voxels, or cells of the finest level of a hash grid."""


class EditNerfConfig(DistillConfig):
    """A context's asset: distillation from the partial checkpoint under its prompt, from where the asset is."""

    field: NoField = None  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """Nothing: the stage goes on from the asset."""
    reconstruction: NoReconstruction = None  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """Nothing: a context has no pseudo views."""
    steps: Positive = 200
    """Optimiser steps."""
    learning_rate: Annotated[float, Field(gt=0)] = 5.0e-3
    """Adam's learning rate at the start."""
    final_learning_rate: Annotated[float, Field(gt=0)] = 1.0e-3
    """Adam's learning rate at the end (exponential decay)."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay per step of the running average of the field's parameters; 0 turns it off."""
    guidance: EditGuidanceConfig = EditGuidanceConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    regularizers: EditRegularizerConfig = EditRegularizerConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    photos: EditPhotoTargetsConfig = EditPhotoTargetsConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    guards: EditGuardsConfig = EditGuardsConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen


class GenerateNerfConfig(InitNerfConfig):
    """A first field from a prompt alone: there are no photos to reconstruct or to compare with."""

    photos: InitPhotoTargetsConfig = InitPhotoTargetsConfig(weight=0)
    face_front: bool = True
    """As for any stage."""
    guards: EditGuardsConfig = EditGuardsConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen


class RegenerateNerfConfig(RefineNerfConfig):
    """The refinement of a field that was made from a prompt: it is distilled on, and there are no pseudo views."""

    steps: Positive = 150
    """Optimiser steps."""
    learning_rate: Annotated[float, Field(gt=0)] = 4.0e-3
    """Adam's learning rate at the start."""
    photos: EditPhotoTargetsConfig = EditPhotoTargetsConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    guards: EditGuardsConfig = EditGuardsConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen


class FitTrueViewsConfig(DistillConfig):
    """The ceiling: a fresh field fitted to true views, without guidance."""

    representation: RepresentationKind = "field"  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """What the asset is made of: field, mesh or gaussians."""
    field: FieldConfig = FieldConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    gaussians: GaussiansConfig = GaussiansConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    mesh: MeshConfig = MeshConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    reconstruction: ReconstructionConfig = ReconstructionConfig()  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
    """How the true views are reconstructed, in place of pseudo views."""
    count: Positive = 36
    """True views, evenly around the subject."""
    azimuths: Literal["around", "photos"] = "around"
    """`photos` takes as many views as there are photos, each from a photo's true azimuth: what that few can tell."""
    elevations_deg: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0, 15.0, 35.0)
    """Elevations that they cycle through."""
    view_size: Positive = 64
    """Side of the true views in pixels."""
    background: tuple[Share, Share, Share] = (0.7, 0.75, 0.8)
    """Colour behind the subject in them."""
    photos: InitPhotoTargetsConfig = InitPhotoTargetsConfig(weight=0)  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen
