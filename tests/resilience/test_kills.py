"""What was killed, or told to stop, ends as what nobody touched, once the same command is given again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.product import ROOT
from tests.resilience.kills import CLOCKS, MOMENTS, SIGNALS, Interruption, Tally, Untouched, plan, survive
from tests.resilience.shim import AVAILABLE

TRAINING = """
import sys
from pathlib import Path

import pandas as pd
import torch

from dreambooth3d import runtime
from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.finetuning.dreambooth import finetune
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.record import StepLog
from tests.photos.photo_sets import masked

base, *folders = sys.argv[1:]
save = runtime.ResumePoint.save


def save_and_wait(point, state):
    save(point, state)
    print("saved", flush=True)
    sys.stdin.readline()


runtime.ResumePoint.save, runtime.ResumePoint.due = save_and_wait, lambda point: True
config = FinetuneConfig(
    steps=15, checkpoint_every=5, batch_size=1, class_images=1, class_inference_steps=1, sample_every_checkpoint=False,
    warmup_steps=2,
)
photos = tuple(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
subject = masked(SubjectPhotos(photos, pd.DataFrame(), (), "rex", "sks", "dog", "", "untracked:0"))
for folder in folders:
    around = runtime.Runtime(StepLog("finetune_dreambooth"), Path(folder), progress=False)
    result = finetune(subject, resolve(BaseModelConfig(path=base)), config, 0, around)
    print([(step, pair.unet.sha256, pair.text_encoder.sha256) for step, pair in result.checkpoints.items()])
    print(result.record.series.query("name != 'seconds'").to_csv(), end="END\\n")
"""


def training(base: Path, *work: Path) -> subprocess.Popen[str]:
    """A fine-tuning in each of the folders, which waits for a line of its input after each state that it has saved."""
    command = [sys.executable, "-c", TRAINING, str(base), *map(str, work)]
    own = {"DREAMBOOTH3D_WORK": str(work[0].with_name("cache")), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | own, cwd=ROOT
    )


def test_a_training_that_was_killed_ends_as_an_untouched_one(tiny_base_model: Path, tmp_path: Path) -> None:
    """The short form of what follows: one stage of the library, without ZenML."""
    killed, untouched = tmp_path / "killed", tmp_path / "untouched"
    with training(tiny_base_model, killed) as process:
        assert process.stdout is not None and process.stdout.readline() == "saved\n"
        process.kill()
        process.communicate()
    said, _ = training(tiny_base_model, killed, untouched).communicate("\n" * 9)
    resumed, whole, rest = said.split("END\n")
    assert rest == "" and 0 < resumed.count("saved\n") == whole.count("saved\n") - 1, "it went on where it was"
    assert resumed.replace("saved\n", "") == whole.replace("saved\n", "")
    assert not list(killed.rglob("state*"))


def test_kills_are_spread_over_all_moments() -> None:
    chains = plan(30, 10, 0)
    moments = [what.moment for chain in chains for what in chain]
    assert len(moments) == 30 and set(moments) == set(MOMENTS)
    assert max(map(moments.count, MOMENTS)) - min(map(moments.count, MOMENTS)) <= 1
    assert all(sorted(chain, key=lambda what: MOMENTS.index(what.moment)) == chain for chain in chains)
    assert plan(30, 10, 0) == chains != plan(30, 10, 1)


@pytest.mark.slow
def test_a_run_that_was_killed_in_every_step_ends_as_an_untouched_one(untouched: Untouched) -> None:
    (chain,) = plan(len(MOMENTS), len(MOMENTS), 7)
    tally = Tally()
    assert survive(chain, untouched, tally) == []
    assert tally.identical == tally.tried >= len(MOMENTS) - 2, "two moments may be over too soon"


@pytest.mark.slow
def test_a_run_that_was_told_to_stop_ends_as_an_untouched_one(untouched: Untouched) -> None:
    tally = Tally()
    assert survive(SIGNALS, untouched, tally) == []
    assert tally.identical == tally.tried >= len(SIGNALS) - 1


@pytest.mark.slow
def test_ctrl_c_between_two_steps_ends_the_run_and_the_same_command_goes_on(untouched: Untouched) -> None:
    """At once, with a row that says so, and nothing left behind."""
    workshop, product = untouched.workshop, untouched.workshop.product
    workshop.reset()
    assert workshop.interrupt(Interruption("validate_photos", 1, signal.SIGINT), untouched.usual) == 1
    assert "Interrupted. The same command goes on from here." in workshop.said()
    assert "Traceback" not in workshop.said() and "Step finetune_dreambooth has started" not in workshop.said()
    assert workshop.ends() == ["KILLED"]
    assert product.dreambooth3d("runs", "clean", "--dry-run").stdout == "Nothing to clean.\n"
    assert [*workshop.left()] == [] and [*workshop.temporary.iterdir()] == []
    result = workshop.finish()
    assert untouched.result.differences(result) == [] and result.left == ()
    assert workshop.ends() == ["KILLED", "FINISHED"]
    shown = json.loads(product.dreambooth3d("runs", "show", "latest", "--json").stdout)
    assert [shown["metrics"][f"steps/cached/{step}"] for step in ("validate_photos", "finetune_dreambooth")] == [1, 0]


@pytest.mark.slow
@pytest.mark.skipif(not AVAILABLE, reason="needs Linux and a C compiler")
def test_a_clock_that_jumps_by_years_changes_nothing(untouched: Untouched) -> None:
    tally = Tally()
    assert survive(CLOCKS, untouched, tally) == []
    assert tally.identical == tally.tried == len(CLOCKS)
