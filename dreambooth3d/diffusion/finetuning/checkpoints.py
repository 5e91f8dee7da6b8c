"""The checkpoints of a training: saved, let go when newer ones come, deleted once no stored state names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts import BaseModelRef, DreamBoothCheckpoint
from dreambooth3d.diffusion.finetuning.networks import TrainedNetworks
from dreambooth3d.diffusion.finetuning.plan import CheckpointSchedule
from dreambooth3d.naming import below
from dreambooth3d.weights import WeightsRef, save_weights, sha256_file


class CheckpointKeeper:
    """Saves UNet and text encoder as pairs.

    Attributes:
        kept: the checkpoints that there are, by steps done.

    Args:
        networks: whose weights are saved.
        schedule: which checkpoints are kept.
        folder: for one folder per checkpoint.
    """

    def __init__(self, networks: TrainedNetworks, schedule: CheckpointSchedule, folder: Path) -> None:
        self._networks, self._schedule, self._folder = networks, schedule, folder
        self.kept: dict[int, DreamBoothCheckpoint] = {}
        self._dropped: list[DreamBoothCheckpoint] = []

    def save(self, done: int) -> None:
        """Save the pair as it is after `done` steps, and let go of those that are too old for it."""
        step = self._schedule.first_step + done
        folder = self._folder / f"{step:06d}"
        unet = save_weights(self._networks.inference_weights("unet"), folder / "unet.safetensors")
        text_encoder = self._save_text_encoder(folder)
        self.kept[done] = DreamBoothCheckpoint(step, unet, text_encoder, self._networks.components.base)
        self._drop_old()

    def _save_text_encoder(self, folder: Path) -> WeightsRef:
        """The text encoder beside its UNet; one that is not trained is stored once."""
        if not self._networks.train_text_encoder and self.kept:
            return next(iter(self.kept.values())).text_encoder
        return save_weights(self._networks.inference_weights("text_encoder"), folder / "text_encoder.safetensors")

    def _drop_old(self) -> None:
        """Let go of checkpoints beyond those to keep; their files stay until no stored state names them."""
        if self._schedule.kept is not None:
            trained = sorted(done for done in self.kept if done > 0)
            self._dropped += [self.kept.pop(done) for done in trained[: -self._schedule.kept]]

    def delete_dropped(self) -> None:
        """Delete the files of checkpoints that were let go, but those that a kept one shares."""
        shared = {ref.uri for pair in self.kept.values() for ref in (pair.unet, pair.text_encoder)}
        while self._dropped:
            pair = self._dropped.pop()
            for file in {pair.unet.uri, pair.text_encoder.uri} - shared:
                Path(file).unlink(missing_ok=True)
            folder = Path(pair.unet.uri).parent
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def state(self) -> dict[str, list[list[Any]]]:
        """The checkpoints that a resumed training finds again, in its folder: those that are due, by steps done."""
        return {
            str(done): [
                [checkpoint.step, Path(ref.uri).relative_to(self._folder).as_posix(), ref.sha256, ref.size_bytes]
                for ref in (checkpoint.unet, checkpoint.text_encoder)
            ]
            for done, checkpoint in self.kept.items()
            if self._schedule.is_due(done)
        }

    def restore(self, entries: Mapping[str, list[list[Any]]]) -> bool:
        """Inverse of `state`; False, and nothing is changed, if a file is gone or not what it was."""
        found = _find_again(entries, self._networks.components.base, self._folder)
        if found is not None:
            self.kept = found
        return found is not None


def _find_again(
    entries: Mapping[str, list[list[Any]]], base: BaseModelRef, folder: Path
) -> dict[int, DreamBoothCheckpoint] | None:
    checkpoints = {}
    for done, pair in entries.items():
        unet, text_encoder = (WeightsRef(str(below(folder, name)), sha256, size) for _, name, sha256, size in pair)
        try:
            if any(sha256_file(ref.uri) != ref.sha256 for ref in (unet, text_encoder)):
                return None
        except OSError:
            return None
        checkpoints[int(done)] = DreamBoothCheckpoint(pair[0][0], unet, text_encoder, base)
    return checkpoints
