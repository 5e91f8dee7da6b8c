"""`dreambooth3d generate`: an asset from a prompt alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from dreambooth3d.errors import ConfigError
from dreambooth3d.places import repository

DEFAULT_PRESET = "sds"
_PREFIX = "text_to_3d"


def run_generation(
    prompt: str,
    preset: str = DEFAULT_PRESET,
    overrides: Sequence[str] = (),
    *,
    negative: str | None = None,
    guide: str | None = None,
    live: bool = False,
) -> None:
    """Check the resolved configuration, then make the asset.

    Args:
        prompt: what to make, in place of the preset's.
        preset: a name such as sds, or a YAML file.
        overrides: `key.sub=value`, below the file's parameters.
        negative: prompt of the unconditional branch.
        guide: as `generation.guide`.
        live: show in a browser what is made meanwhile.

    Raises:
        DreamBooth3DError: a user's error, also one in a step.
    """
    import typer

    from dreambooth3d.cli.live.starting import require_live, watching
    from dreambooth3d.cli.setup import ensure_stack
    from dreambooth3d.cli.train import resolve
    from dreambooth3d.config.generation import TextTo3dConfig
    from operations.launch.checking import check_preset
    from operations.launch.presets import as_file

    if live:
        require_live()
    # The command's own word goes last. Settings are texts, which an override takes as they stand.
    named = {"prompt": prompt, "negative_prompt": negative, "guide": guide}
    given = [f"generation.{name}={value}" for name, value in named.items() if value is not None]
    resolved = resolve(str(preset_file(preset)), [*overrides, *given])
    # A prompt among its parameters says whose they are.
    parameters = cast(TextTo3dConfig, check_preset(resolved))
    # Loads for seconds, which what is wrong in the settings alone need not wait for.
    from operations.launch.preflight import preflight

    # Before ZenML is started, so that a bad input costs nothing and writes nothing.
    preflight(parameters)
    ensure_stack(typer.echo)
    from pipelines.generation import text_to_3d

    with as_file(resolved) as whole, watching(live, typer.echo):
        text_to_3d.with_options(config_path=str(whole))()


def preset_file(preset: str) -> Path:
    """The YAML file of a preset's name, or the file itself.

    Raises:
        ConfigError: there is no such preset.
    """
    if preset.endswith((".yaml", ".yml")):
        return Path(preset)
    found = presets()
    if preset not in found:
        raise ConfigError(f"generate: there is no preset {preset!r}. Choose one of {', '.join(found)}, or a YAML file.")
    return found[preset]


def presets() -> dict[str, Path]:
    """The presets by name, sds first: configs/text_to_3d.yaml and configs/text_to_3d_NAME.yaml."""
    here = Path("configs")
    folder = here if here.is_dir() else repository() / "configs"
    files = sorted(folder.glob(f"{_PREFIX}_*.yaml"))
    others = {file.stem.removeprefix(f"{_PREFIX}_"): file for file in files}
    return {DEFAULT_PRESET: folder / f"{_PREFIX}.yaml", **others}
