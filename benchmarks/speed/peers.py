"""Other implementations, as the caller has them installed or checked out; nothing is downloaded or built.

Each runs as it is in a process of its own, by `python -m benchmarks.speed.peers KIND OUTPUT ...`, which writes the time
of each step and the peak memory to OUTPUT.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.speed.timing import Stopwatch, Timing, reset_peaks
from dreambooth3d.runtime import ALLOCATOR_SETTINGS

WARM_UP = 10
LIMIT_S = 420


def diffusers_dreambooth(script: Path, model: Path, folder: Path, steps: int) -> dict[str, Any]:
    """diffusers' `train_dreambooth.py` with the settings of `dreambooth.settings`."""
    for kind in ("instance", "class"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for index in range(4):
            noise = torch.randint(0, 256, (512, 512, 3), generator=torch.Generator().manual_seed(index))
            Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / kind / f"{index}.png")
    options = {
        "pretrained_model_name_or_path": model,
        "instance_data_dir": folder / "instance",
        "class_data_dir": folder / "class",
        "instance_prompt": "a photo of a sks dog",
        "class_prompt": "a photo of a dog",
        "num_class_images": 4,
        "output_dir": folder / "out",
        "resolution": 512,
        "train_batch_size": 1,
        "learning_rate": 5e-6,
        "mixed_precision": "bf16",
        "max_train_steps": 100_000,
    }
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    flags += ["--with_prior_preservation", "--train_text_encoder"]
    return _run("diffusers", folder / "diffusers.json", steps, [str(script), *flags])


def threestudio_sds(checkout: Path, model: Path, folder: Path, steps: int) -> dict[str, Any]:
    """threestudio's `dreamfusion-sd.yaml`."""
    name = f"system.prompt_processor.pretrained_model_name_or_path={model}"
    guided = f"system.guidance.pretrained_model_name_or_path={model}"
    options = ["--config", "configs/dreamfusion-sd.yaml", "--train", "--gpu", "0", name, guided]
    options += ["system.prompt_processor.prompt=a photo of a dog", f"exp_root_dir={folder / 'threestudio'}"]
    return _run("threestudio", folder / "threestudio.json", steps, [str(checkout / "launch.py"), *options], checkout)


def _run(kind: str, output: Path, steps: int, command: list[str], directory: Path | None = None) -> dict[str, Any]:
    """Run a peer; what it measured, or why it did not."""
    here = Path(__file__).resolve().parents[2]
    given = [sys.executable, "-m", "benchmarks.speed.peers", kind, str(output.resolve()), str(steps), *command]
    paths = [str(here), *([str(directory)] if directory else []), os.environ.get("PYTHONPATH", "")]
    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATOR_SETTINGS}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    log = output.with_suffix(".log")
    with log.open("w") as handle:
        try:
            subprocess.run(given, cwd=directory, env=environment, stdout=handle, stderr=handle, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            return {"missing": f"not done in {LIMIT_S} s"}
    if not output.exists():
        last = [line for line in log.read_text().splitlines() if line.strip()][-1:]
        return {"missing": f"it failed: {last[0] if last else 'no output'}"}
    return json.loads(output.read_text())


class _Enough(BaseException):
    """The peer has made enough steps; not an Exception, lest the peer handles it."""


class Ticks:
    """Counts a peer's steps, and ends it after enough of them."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._watch = Stopwatch(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self._count = 0

    def tick(self) -> None:
        """A step is about to end; the host does not wait for it."""
        self._count += 1
        if self._count == WARM_UP:
            reset_peaks()
            self._watch.begin()
        elif self._count > WARM_UP:
            self._watch.mark("step")
        if self._count == WARM_UP + self.steps:
            raise _Enough

    def timing(self) -> Timing:
        """Milliseconds between ticks after the warm-up."""
        return Timing.of(self._watch.spans("step"))


def _watch_diffusers(tick: Callable[[], None]) -> None:
    from accelerate import Accelerator

    backward = Accelerator.backward

    def ticking(self: Any, *given: Any, **options: Any) -> None:
        tick()
        backward(self, *given, **options)

    Accelerator.backward = ticking


def _watch_threestudio(tick: Callable[[], None]) -> None:
    import pytorch_lightning

    class Ticking(pytorch_lightning.Callback):
        """Ticks at the end of each training step."""

        def on_train_batch_end(self, *given: Any) -> None:
            """See Lightning."""
            tick()

    build = pytorch_lightning.Trainer.__init__

    def with_ticks(self: Any, *given: Any, callbacks: Any = None, **options: Any) -> None:
        build(self, *given, callbacks=[*(callbacks or []), Ticking()], **options)

    pytorch_lightning.Trainer.__init__ = with_ticks


def main(kind: str, output: str, steps: str, script: str, *options: str) -> None:
    """Run a peer's script and write what was measured."""
    ticks = Ticks(int(steps))
    {"diffusers": _watch_diffusers, "threestudio": _watch_threestudio}[kind](ticks.tick)
    sys.argv = [script, *options]
    try:
        runpy.run_path(script, run_name="__main__")
    except _Enough:
        timing = ticks.timing()
        Path(output).write_text(json.dumps(timing.summary() | {"samples_ms": timing.samples}))


if __name__ == "__main__":
    main(*sys.argv[1:])
