"""Configuration: one frozen model per step, every field documented, unknown keys refused. Units are in the names."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Range = tuple[float, float]
Encoding = Literal["hash_grid", "dense"]
Implementation = Literal["auto", "tcnn", "triton", "torch"]
Sampling = Literal["auto", "dense", "occupancy"]
Acceleration = Literal["compile", "graphs", "none"]


class Section(BaseModel):
    """Base of all sections: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DatasetConfig(Section):
    """Photo sets that DVC tracks, found when a run needs them, not when it is scheduled."""

    url: str | None = None
    """Git URL or folder of the DVC repository; None is the checkout that runs, with its data.dvc."""
    rev: str | None = None
    """Branch, tag or commit; None is the default branch of a URL, and the files as they are of a folder."""
    path: Annotated[str, Field(pattern=r"^[^/].*[^/]$|^[^/]$")] = "data"
    """The tracked folder there, with one folder per subject."""

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        parts = urlsplit(self.url or "")
        userinfo = parts.netloc.rpartition("@")[0]
        # Over HTTP a user's name alone is how access tokens are given.
        if ":" in userinfo or (userinfo and parts.scheme in ("http", "https")):
            raise ValueError(
                "url holds a password or token, which would be logged: leave it to Git's credential helper"
            )
        return self


class PhotosConfig(Section):
    """Which photos, and how strictly they are checked. `subject`, or `dir` with `class_noun`; `dir` wins."""

    subject: str | None = None
    """A folder name under data/, described by its subject.yaml."""
    dataset: DatasetConfig | None = None
    """Where `subject` comes from when not from this checkout's data/: it is fetched when it is needed."""
    dir: str | None = None
    """A folder of photos outside data/, relative to the current directory; needs class_noun or a subject.yaml there."""
    class_noun: str | None = None
    """What the subject is, for example dog; overrides subject.yaml."""
    identifier: str | None = None
    """A rare token that will stand for the subject; overrides subject.yaml. Default sks."""
    description: str | None = None
    """The subject's caption without identifier, for R-precision."""
    min_count: Positive = 3
    """Fewer photos are an error."""
    max_count: Positive = 20
    """More photos are an error."""
    min_side_px: Positive = 64
    """A shorter side below this is an error."""
    duplicate_distance_bits: Annotated[int, Field(ge=0, le=64)] = 4
    """Perceptual hashes (64 bits) that differ by at most this many bits are near-duplicates."""
    min_sharpness: Annotated[float, Field(ge=0)] = 5.0e-4
    """Variance of the Laplacian at 128 px below which a photo counts as blurred."""
    exposure_range: Range = (0.08, 0.96)
    """Mean luminance outside this range gives a warning."""
    min_subject_share: Share = 0.02
    """Estimated share of the frame below which the subject counts as small."""


class BaseModelConfig(Section):
    """The text-to-image model to personalise, in Stable Diffusion's layout."""

    path: str = "models/toybox"
    """Hub id or local folder."""
    revision: str | None = None
    """Commit, branch or tag of a hub model; default main. A run keeps to the commit that it resolves to."""
    variant: str | None = None
    """Weight variant such as fp16; networks that lack it are loaded from their plain weights."""


class ScorersConfig(Section):
    """Two different CLIP models: one steers, the other only judges."""

    selector: str = "models/selector"
    """Scorer of everything that steers: checkpoint selection, guards. A local folder, or a hub id such as owner/name or
    owner/name@commit."""
    judge: str = "models/judge"
    """Scorer of the evaluation, loaded by evaluate and evaluate_context only; a folder or hub id like the selector."""


class RecipeConfig(Section):
    """Which stages run, and with which checkpoint."""

    init_from: Literal["partial", "full"] = "partial"
    """Checkpoint that guides the first radiance field."""
    pseudo_views: bool = True
    """Make pseudo views with the full checkpoint."""
    multiview: bool = True
    """Fine-tune the partial checkpoint on pseudo and real photos together."""
    refine_with: Literal["multiview", "full", "none"] = "multiview"
    """Checkpoint that guides the refinement; none exports the first field."""

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        if self.multiview and not self.pseudo_views:
            raise ValueError("multiview needs pseudo_views: set recipe.pseudo_views=true or recipe.multiview=false")
        if self.refine_with == "multiview" and not self.multiview:
            raise ValueError("refine_with=multiview needs recipe.multiview=true")
        return self


class TrainerConfig(Section):
    """What DreamBooth fine-tuning and its multi-view continuation share: the trainer's options."""

    batch_size: Positive = 4
    """Images per step; with prior preservation as many class images come on top."""
    train_text_encoder: bool = True
    """Also train the text encoder."""
    text_encoder_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the text encoder; by default that of the UNet."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Rank of a LoRA on the attention's projections, which is trained in place of the weights; its alpha equals the
    rank. With mixed_precision the frozen weights are kept in half precision. 0 trains all weights."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """adamw_8bit keeps the optimiser's state in 8 bits; it needs the package bitsandbytes."""
    adam_betas: tuple[Decay, Decay] = (0.9, 0.999)
    """AdamW's decay of its first and second moment."""
    adam_epsilon: Annotated[float, Field(gt=0)] = 1.0e-8
    """AdamW's epsilon."""
    weight_decay: Annotated[float, Field(ge=0)] = 1.0e-2
    """AdamW weight decay."""
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    """Maximum norm of the gradient."""
    gradient_accumulation_steps: Positive = 1
    """Batches per optimiser step, whose mean gradient it takes."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Passed to accelerate."""
    acceleration: Acceleration = "none"
    """How forward and backward pass run on CUDA: graphs launches both as one CUDA graph; compile fuses their kernels
    before, which takes minutes the first time; none calls them as they are, as happens also with several processes,
    gradient_accumulation_steps or gradient_checkpointing."""
    processes: Positive = 1
    """Processes that train together, each on a GPU and on batch_size images of its own."""
    snr_gamma: Annotated[float, Field(gt=0)] | None = None
    """Min-SNR weighting of the loss (Hang et al. 2023): the signal-to-noise ratio above which a timestep's weight
    falls; the paper's is 5. None weighs all timesteps alike."""
    noise_offset: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of an offset per image and channel that is added to the noise; 0 turns it off."""
    ema_decay: Decay = 0.0
    """Decay per step of the exponential moving average of the trained weights, which the checkpoints then hold; it
    warms up as (1 + step) / (10 + step). 0 turns it off."""
    sample_batch_size: Positive = 16
    """Images drawn at once, for class images and sample grids."""
    sample_guidance_scale: float = 4.0
    """Classifier-free guidance scale of the sample grids."""
    sample_inference_steps: Positive = 12
    """Denoising steps of the sample grids."""
    photo_view_prompts: bool = True
    """Train on each photo also under the prompt of its view, as the selector sees it, so that prompts of views that
    the photos show bring the subject."""
    background_augmentation: bool = False
    """Replace near-uniform photo backgrounds at random, so that they are not learned as part of the subject."""

    @model_validator(mode="after")
    def _text_encoder_is_trained(self) -> Self:
        if self.text_encoder_learning_rate is not None and not self.train_text_encoder:
            raise ValueError("text_encoder_learning_rate needs train_text_encoder=true: set it, or remove the former")
        return self


class FinetuneConfig(TrainerConfig):
    """DreamBooth fine-tuning of UNet and text encoder with prior preservation."""

    pretrained: str | None = None
    """A folder of fine-tuned models in diffusers' layout, which are taken in place of training: one model, or several
    in sub-folders such as checkpoint-150. Relative to the working directory or the repository. A model whose folder
    names no step counts as step `steps`."""
    steps: Positive = 400
    """Optimiser steps."""
    checkpoint_every: Positive = 50
    """A loadable UNet and text-encoder pair is kept every so many steps."""
    checkpoints_kept: Positive | None = None
    """Only so many of the newest checkpoints are kept, and the one of step 0; None keeps all."""
    learning_rate: Annotated[float, Field(gt=0)] = 5.0e-5
    """Peak learning rate of AdamW."""
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    """Linear warm-up."""
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the prior-preservation loss; 0 turns it off."""
    class_images: Positive = 64
    """Images of the class, generated once by the base model and cached by content."""
    class_guidance_scale: float = 3.0
    """Classifier-free guidance scale for the class images."""
    class_inference_steps: Positive = 20
    """Denoising steps for the class images."""
    class_view_prompts: bool = False
    """Also generate class images under view prompts (front, side, back, overhead), so that these keep their meaning."""
    sample_every_checkpoint: bool = True
    """Draw a sample grid per checkpoint under fixed prompts and seeds."""


class SelectConfig(Section):
    """Choice of the partial and the full checkpoint by measurement."""

    partial_step: int | None = None
    """Force the partial checkpoint."""
    full_step: int | None = None
    """Force the full checkpoint."""
    samples_per_view: Positive = 4
    """Images per view prompt and checkpoint."""
    guidance_scale: float = 4.0
    """Classifier-free guidance scale of the samples."""
    inference_steps: Positive = 15
    """Denoising steps of the samples."""
    batch_size: Positive = 16
    """Samples drawn at once."""
    plateau_tolerance: Share = 0.01
    """full is the first step whose subject similarity is within this share of the best."""


class FieldConfig(Section):
    """The radiance field."""

    encoding: Encoding = "hash_grid"
    """Where features come from: a multi-resolution hash grid, or a dense volume."""
    implementation: Implementation = "auto"
    """What computes the hash grid; auto is on CUDA the first of triton, tcnn and torch that works, on a CPU torch."""
    levels: Positive = 10
    """Levels of the hash grid."""
    features_per_level: Positive = 2
    """Features per level."""
    log2_table_size: Annotated[int, Field(ge=8, le=24)] = 17
    """Entries per level of the hash table, as a power of two."""
    base_resolution: Positive = 8
    """Cells per side of the coarsest level."""
    level_scale: Annotated[float, Field(gt=1)] = 1.5
    """Growth of the resolution from level to level."""
    volume_resolution: Positive = 48
    """Cells per side of the dense volume (encoding: dense)."""
    hidden_width: Positive = 64
    """Width of the small network behind the hash grid."""
    density_scale: Annotated[float, Field(gt=0)] = 25.0
    """Factor on the activated density, in inverse world units."""
    blob_density: float = 10.0
    """Logit of the initial density blob at the origin; it falls linearly to 0 at blob_radius and on below it."""
    blob_radius: Annotated[float, Field(gt=0)] = 0.5
    """Radius of the initial density blob in world units."""
    background: Literal["learned", "white", "network"] = "learned"
    """What lies behind the field while it learns: one learned colour, white, or a small environment network."""


class RenderConfig(Section):
    """How rays are sampled."""

    sampler: Sampling = "auto"
    """dense everywhere, or nerfacc's occupancy grid on CUDA; auto picks by device."""
    size: Positive = 64
    """Rays per image side while training; images are upsampled to the guidance's size."""
    samples_per_ray: Positive = 64
    """Samples between the two bounds of a ray."""
    occupancy_resolution: Positive = 32
    """Cells per side of the grid that masks empty space."""
    occupancy_every: Positive = 16
    """Steps between updates of that grid."""
    occupancy_threshold: Annotated[float, Field(gt=0)] = 0.01
    """Opacity of a cell below which it counts as empty."""


class CameraConfig(Section):
    """The range of random training cameras."""

    elevation_deg: Range = (-10.0, 80.0)
    """Elevation range."""
    distance: Range = (2.3, 2.7)
    """Distance range in world units."""
    fov_y_deg: Range = (39.0, 45.0)
    """Range of the vertical field of view."""


class GuidanceConfig(Section):
    """Score distillation."""

    loss: Literal["sds", "sjc", "csd", "nfsd", "sdi", "vsd"] = "sds"
    """Direction of the latents' gradient. sds: guided noise prediction - noise. sjc: the same over sigma, which is the
    score of the blurred images. csd: guidance_scale * (conditional - unconditional). nfsd: that, and away from bad
    images. sdi: sds with noise from DDIM inversion of the render. vsd: guided prediction - that of a LoRA which is
    trained on the renders alongside."""
    guidance_scale: Range = (7.5, 7.5)
    """Classifier-free guidance scale at the start and at the end."""
    max_timestep: Range = (0.98, 0.5)
    """Largest timestep as a share of all, at the start and at the end."""
    min_timestep: Range = (0.02, 0.02)
    """Smallest timestep as a share of all, at the start and at the end."""
    weighting: Literal["sds", "uniform"] = "sds"
    """w(t): sds is 1 - alpha_bar, uniform is 1."""
    perp_neg: bool = False
    """Perp-Neg: subtract the perpendicular part of the other views' scores."""
    perp_neg_weight: Annotated[float, Field(ge=0)] = 1.0
    """Strength of the Perp-Neg term."""
    negative_prompt: str = ""
    """Prompt of the unconditional branch."""
    rescale: Share = 0.0
    """Rescaling of the guided score towards the conditional one's spread (0 off), against over-saturation."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = None
    """Clip each latent gradient element to this magnitude."""
    nfsd_negative_prompt: str = (
        "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
    )
    """With loss nfsd: prompt of bad images, subtracted from the unconditional branch at all but weak noise."""
    inversion_steps: Positive = 5
    """With loss sdi: DDIM steps from a render to its noise, each of which costs as much as a whole step of sds."""
    inversion_guidance_scale: float = -7.5
    """With loss sdi: guidance scale of the inversion; the paper's is minus the guidance_scale."""
    acceleration: Acceleration = "graphs"
    """How UNet and VAE encoder run on CUDA: graphs launches each as one CUDA graph; compile fuses their kernels before,
    which takes minutes the first time and pays for models of Stable Diffusion's size; none calls them as they are."""
    lora_rank: Positive = 4
    """With loss vsd: rank of the LoRA."""
    lora_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """With loss vsd: learning rate of the LoRA, which takes one step of AdamW with each of the field's."""

    @model_validator(mode="after")
    def _loss_has_what_it_needs(self) -> Self:
        if self.rescale > 0 and self.loss in ("csd", "nfsd"):
            raise ValueError(
                f"rescale changes a guided prediction, and loss={self.loss} takes only differences of predictions: "
                "set rescale=0, or loss to sds, sjc, sdi or vsd"
            )
        if self.loss == "nfsd" and self.nfsd_negative_prompt == self.negative_prompt:
            raise ValueError(
                "loss=nfsd needs two prompts, and nfsd_negative_prompt is the same as negative_prompt: let the former "
                "describe bad images"
            )
        return self


class ShadingConfig(Section):
    """Albedo first, then also diffuse and textureless shading under a random light."""

    albedo_only_share: Share = 1.0
    """Share of the stage that uses albedo only."""
    diffuse_probability: Share = 0.5
    """Afterwards: probability of diffuse shading; textureless takes half of it."""
    ambient: Share = 0.6
    """Ambient light of the diffuse shading."""


class RegularizerConfig(Section):
    """Weights of the regularisers."""

    sparsity: Annotated[float, Field(ge=0)] = 25.0
    """sqrt(opacity^2 + 0.01), mean over rays."""
    opacity: Annotated[float, Field(ge=0)] = 12.0
    """Binary entropy of the opacity, mean over rays."""
    orientation: Annotated[float, Field(ge=0)] = 0.0
    """Normals that face away from the camera, as in Ref-NeRF."""
    distortion: Annotated[float, Field(ge=0)] = 0.0
    """Spread of the weights along a ray, as in Mip-NeRF 360."""
    smoothness: Annotated[float, Field(ge=0)] = 0.0
    """Total variation of the logits between neighbouring voxels, or cells of the finest level of a hash grid."""


class PhotoTargetsConfig(Section):
    """The photos as targets of reconstruction, once their cameras have been found by comparison with the field."""

    weight: Annotated[float, Field(ge=0)] = 6.0e4
    """Weight of the reconstruction loss on the photos: Huber, mean over pixels and colour channels; 0 turns it off."""
    silhouette_weight: Annotated[float, Field(ge=0)] = 2.0e3
    """Weight of the binary cross entropy of opacity against the subject's mask in a photo."""
    hold_out: bool = False
    """Between two searches leave one photo out in turn, so that its camera is searched without what it taught."""
    anchor_weight: Annotated[float, Field(ge=0)] = 0.2
    """Factor on both weights while a fresh field has no camera yet: until the first search, the most frontal photo
    stands for a view from the front; 0 leaves that out."""
    start: Share = 0.0
    """Share of the stage after which the cameras are searched for the first time."""
    search_every: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the stage after which they are searched again."""
    search_until: Share = 0.9
    """Share of the stage after which they are not searched any more, and all that were found are used."""
    searches_until_all: Positive = 1
    """Searches until all photos are used; before, those whose cameras are surest."""
    subject_radius: Annotated[float, Field(gt=0, le=1)] = 0.845
    """Usual radius of a subject's outline in world units, by which the photos' distances get their scale."""
    usual_distance: Annotated[float, Field(gt=0)] = 2.58
    """Usual distance of a photo in world units, the other guess at their scale."""
    camera_learning_rate: Annotated[float, Field(ge=0)] = 0.2
    """Adam's learning rate of the cameras between searches: degrees of azimuth and elevation, of which one stands for
    1.7 % of distance and of focal length."""
    exposure_learning_rate: Annotated[float, Field(ge=0)] = 0.01
    """Adam's learning rate of the logarithm of each photo's exposure; 0 takes all photos for equally exposed."""
    views_per_step: Positive = 2
    """Photos per step."""
    mirror_weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor on both weights for the photos as a mirror shows them, which tell the other side of a symmetric subject;
    they count after the first search, as far as they fit. 0 turns it off."""
    mirror_error: Range = (2.2, 3.2)
    """Error of mirrored photos as a multiple of that of the photos: up to the first value their colours count in full,
    from the second on not at all."""
    min_overlap: Share = 0.8
    """A fresh field whose renders overlap with the photos' subjects by less, in the mean, is tried again with another
    seed, as after a collapse; the last attempt is kept as it is."""


class InitPhotoTargetsConfig(PhotoTargetsConfig):
    """The same for a fresh field, which first needs a shape to compare the photos with."""

    start: Share = 0.4
    """Share of the stage after which the cameras are searched for the first time."""
    search_every: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the stage after which they are searched again."""
    searches_until_all: Positive = 2
    """Searches until all photos are used; before, those whose cameras are surest."""
    hold_out: bool = True
    """Between two searches leave one photo out in turn, so that its camera is searched without what it taught."""


GateAction = Literal["stop", "retry", "warn", "off"]


class GateConfig(Section):
    """One gate: what the field is held to at each check, every `check_every` steps and at the end."""

    action: GateAction = "warn"
    """When it trips: stop ends the run with an error, retry begins the stage again with another seed
    (collapse_retries times, then the run ends with an error), warn goes on; off does not look at all."""


class NanGateConfig(GateConfig):
    """Values that are not finite, in the previews and in the parts of the loss that are logged."""

    action: GateAction = "retry"
    """As for any gate."""
    max_count: Annotated[int, Field(ge=0)] = 0
    """So many are let pass."""


class OpacityGateConfig(GateConfig):
    """Mean opacity of the previews: is there a field at all, and does it leave a background?"""

    action: GateAction = "retry"
    """As for any gate."""
    min_opacity: Share = 0.005
    """Below it the field counts as empty; subjects have 0.2 to 0.4."""
    max_opacity: Share = 0.95
    """Above it the field counts as one that fills the frame."""


class OccupancyGateConfig(GateConfig):
    """Share of the unit ball's occupancy cells that hold density: also a fog too thin for `opacity` fills them all."""

    min_share: Share = 0.002
    """Below it the field is a speck."""
    max_share: Share = 0.7
    """Above it the field is a fog; a subject fills 0.1 to 0.35, a young field up to 0.45, a fog 0.75 and more."""
    start: Share = 0.5
    """Share of the stage after which it counts; before, a fresh field may be anywhere."""


class SaturationGateConfig(GateConfig):
    """Mean CIELAB chroma of the previews where they are opaque, against that of the subject in the photos."""

    max_excess: Annotated[float, Field(ge=0)] = 20.0
    """Largest chroma beyond that of the photos; true renders are within 4 of them."""
    max_chroma: Annotated[float, Field(gt=0)] = 85.0
    """Largest chroma where no photo's subject can be told from the background; pure colours have 100 to 134."""
    start: Share = 0.5
    """Share of the stage after which it counts."""


class JanusGateConfig(GateConfig):
    """Share of the previews away from the front that the selector takes for the front."""

    min_azimuth_deg: Annotated[float, Field(ge=0, le=180)] = 60.0
    """Views at least so far from the front count: five of the eight previews."""
    max_share: Share = 0.3
    """Largest share: one of the five, as where a field's heading is off by a word, is let pass."""
    start: Share = 0.5
    """Share of the stage after which it counts."""


class ClipGateConfig(GateConfig):
    """Mean cosine of the selector's features of previews and photos (CLIP-I), against the best so far."""

    max_drop: Annotated[float, Field(ge=0)] = 0.1
    """Largest drop below the best."""
    patience: Positive = 2
    """Trips once so many checks in a row were lower."""


class GatesConfig(Section):
    """What guards a stage while it runs."""

    nan: NanGateConfig = NanGateConfig()
    opacity: OpacityGateConfig = OpacityGateConfig()
    occupancy: OccupancyGateConfig = OccupancyGateConfig()
    saturation: SaturationGateConfig = SaturationGateConfig()
    janus: JanusGateConfig = JanusGateConfig()
    clip_i: ClipGateConfig = ClipGateConfig()

    @property
    def need_selector(self) -> bool:
        """Whether a gate looks through the selector's eyes."""
        return self.janus.action != "off" or self.clip_i.action != "off"


class DistillConfig(Section):
    """One stage of score distillation."""

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
    guidance: GuidanceConfig = GuidanceConfig()
    shading: ShadingConfig = ShadingConfig()
    regularizers: RegularizerConfig = RegularizerConfig()
    photos: PhotoTargetsConfig = PhotoTargetsConfig()
    gates: GatesConfig = GatesConfig()
    random_background_probability: Share = 1.0
    """Probability per step of a random plain background instead of the field's own."""
    random_background_range: Range = (0.3, 1.0)
    """Range of each colour channel of a random plain background."""
    convergence_patience: int = 0
    """Stop when previews have changed by less than convergence_tolerance for this many checks; 0 never stops."""
    convergence_tolerance: Annotated[float, Field(gt=0)] = 2.0e-3
    """Mean absolute change of the previews between checks that counts as none."""
    check_every: Positive = 100
    """Steps between previews, guard checks and convergence checks."""
    collapse_retries: Annotated[int, Field(ge=0)] = 1
    """New seeds to try after a collapse."""

    @model_validator(mode="after")
    def _processes_have_work(self) -> Self:
        if self.processes > self.views_per_step:
            raise ValueError(
                f"processes={self.processes} needs at least as many views_per_step, and these are "
                f"{self.views_per_step}: raise views_per_step or lower processes"
            )
        if self.processes > 1 and self.guidance.loss == "vsd":
            raise ValueError("guidance.loss=vsd trains a LoRA in one process only: set processes=1 or another loss")
        return self


class InitNerfConfig(DistillConfig):
    """Stage 1: a first field by score distillation from the partial checkpoint."""

    field: FieldConfig = FieldConfig()
    photos: InitPhotoTargetsConfig = InitPhotoTargetsConfig()


class PseudoViewsConfig(Section):
    """Stage 2: renders turned into views of the subject by img2img with the full checkpoint."""

    count: Positive = 20
    """Distinct cameras, evenly spread."""
    elevations_deg: tuple[float, ...] = (0.0, 15.0, 35.0)
    """Elevations that the cameras cycle through."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.4
    """img2img strength: the share of the noise schedule that is redone."""
    guidance_scale: float = 4.0
    """Classifier-free guidance scale."""
    inference_steps: Positive = 30
    """Denoising steps of the full schedule."""
    batch_size: Positive = 16
    """Views at once."""
    background: tuple[Share, Share, Share] = (0.7, 0.75, 0.8)
    """Colour behind the renders; not white, on which img2img loses the pale parts of a subject."""
    render: RenderConfig = RenderConfig()


class MultiviewConfig(TrainerConfig):
    """The partial checkpoint fine-tuned further on pseudo and real photos together."""

    steps: Positive = 100
    """Optimiser steps."""
    learning_rate: Annotated[float, Field(gt=0)] = 3.0e-5
    """Peak learning rate of AdamW."""
    warmup_steps: Annotated[int, Field(ge=0)] = 5
    """Linear warm-up."""
    real_share: Share = 0.4
    """Share of real photos in a batch."""


class RefineNerfConfig(DistillConfig):
    """Stage 3: distillation on random cameras alongside reconstruction of the pseudo views."""

    reconstruction_weight: Annotated[float, Field(ge=0)] = 6.0e4
    """Weight of the reconstruction loss: Huber, mean over pixels and colour channels; 0 turns it off."""
    silhouette_weight: Annotated[float, Field(ge=0)] = 2.0e3
    """Weight of the binary cross entropy of opacity against the subject's mask in a pseudo view; it clears the haze."""
    reconstruction_views: Positive = 2
    """Pseudo views per step."""
    camera_poses: Literal["random", "pseudo_views"] = "random"
    """Where distillation looks from: all around at random, or only from where the pseudo views were taken."""


class EditGuidanceConfig(GuidanceConfig):
    """The same for a context: first from noise that hides the old colours, in the end gently."""

    guidance_scale: Range = (7.5, 3.0)
    """Classifier-free guidance scale at the start and at the end."""
    max_timestep: Range = (0.8, 0.2)
    """Largest timestep as a share of all, at the start and at the end."""


class EditRegularizerConfig(RegularizerConfig):
    """The same for a context, where no photo clears the haze or smooths the colours."""

    sparsity: Annotated[float, Field(ge=0)] = 6.0
    """sqrt(opacity^2 + 0.01), mean over rays."""
    smoothness: Annotated[float, Field(ge=0)] = 20.0
    """Total variation of the logits between neighbouring voxels, or cells of the finest level of a hash grid."""


class EditPhotoTargetsConfig(PhotoTargetsConfig):
    """The same for a context: off, since the photos show the subject as it was."""

    weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the reconstruction loss on the photos: Huber, mean over pixels and colour channels; 0 turns it off."""


class EditGatesConfig(GatesConfig):
    """The same for a context, without those that compare with the photos."""

    saturation: SaturationGateConfig = SaturationGateConfig(action="off")
    clip_i: ClipGateConfig = ClipGateConfig(action="off")


class EditNerfConfig(DistillConfig):
    """A context's asset: distillation from the partial checkpoint under its prompt, from where the asset is."""

    steps: Positive = 200
    """Optimiser steps."""
    learning_rate: Annotated[float, Field(gt=0)] = 5.0e-3
    """Adam's learning rate at the start."""
    final_learning_rate: Annotated[float, Field(gt=0)] = 1.0e-3
    """Adam's learning rate at the end (exponential decay)."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay per step of the running average of the field's parameters; 0 turns it off."""
    guidance: EditGuidanceConfig = EditGuidanceConfig()
    regularizers: EditRegularizerConfig = EditRegularizerConfig()
    photos: EditPhotoTargetsConfig = EditPhotoTargetsConfig()
    gates: EditGatesConfig = EditGatesConfig()


class FitTrueViewsConfig(RefineNerfConfig, InitNerfConfig):
    """The ceiling: a fresh field fitted to true views, without guidance."""

    count: Positive = 36
    """True views, evenly around the subject."""
    azimuths: Literal["around", "photos"] = "around"
    """`photos` takes as many views as there are photos, each from a photo's true azimuth: what that few can tell."""
    elevations_deg: tuple[float, ...] = (0.0, 15.0, 35.0)
    """Elevations that they cycle through."""
    view_size: Positive = 64
    """Side of the true views in pixels."""
    background: tuple[Share, Share, Share] = (0.7, 0.75, 0.8)
    """Colour behind the subject in them."""
    photos: InitPhotoTargetsConfig = InitPhotoTargetsConfig(weight=0)


class EvaluateConfig(Section):
    """Evaluation with the judge, and against ground truth where it is known."""

    size: Positive = 64
    """Side of the scored images in pixels."""
    samples_per_ray: Positive = 96
    """Samples per ray of the scored renders."""


class ExportConfig(Section):
    """The exported asset."""

    mesh_resolution: Positive = 96
    """Grid cells per side for marching cubes."""
    mesh_threshold: Annotated[float, Field(gt=0)] = 10.0
    """Density of the surface, in inverse world units."""
    frame_size: Positive = 256
    """Side of the turntable frames in pixels."""
    frame_rays: Positive = 128
    """Rays per side for them; frames are upsampled."""
    samples_per_ray: Positive = 96
    """Samples per ray."""
    frames_per_second: Positive = 12
    """Speed of the turntable."""
    page_limit_mb: Annotated[float, Field(gt=0)] = 3.0
    """Largest size of the viewer page in megabytes; a larger mesh is shown there at a coarser resolution."""


CONTEXT_STEPS = ("edit_nerf", "evaluate_context", "export_context")
"""What runs once for each of `TrainingConfig.contexts`, as `edit_nerf_0` and so on."""


class TrainingConfig(Section):
    """The parameters of `pipelines.training.dreambooth3d`: one section per step."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    photos: PhotosConfig = PhotosConfig()
    base_model: BaseModelConfig = BaseModelConfig()
    scorers: ScorersConfig = ScorersConfig()
    recipe: RecipeConfig = RecipeConfig()
    contexts: tuple[str, ...] = ()
    """Prompts, such as `a photo of a red sks dog`: for each, one more asset is made of the finished one. They name the
    subject by its identifier and class noun."""
    finetune_dreambooth: FinetuneConfig = FinetuneConfig()
    select_checkpoints: SelectConfig = SelectConfig()
    init_nerf: InitNerfConfig = InitNerfConfig()
    generate_pseudo_views: PseudoViewsConfig = PseudoViewsConfig()
    finetune_multiview: MultiviewConfig = MultiviewConfig()
    refine_nerf: RefineNerfConfig = RefineNerfConfig()
    edit_nerf: EditNerfConfig = EditNerfConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export_asset: ExportConfig = ExportConfig()


class CeilingConfig(Section):
    """The parameters of `pipelines.ceiling.multiview_truth`: one section per step."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    photos: PhotosConfig = PhotosConfig()
    scorers: ScorersConfig = ScorersConfig()
    fit_true_views: FitTrueViewsConfig = FitTrueViewsConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export_asset: ExportConfig = ExportConfig()
