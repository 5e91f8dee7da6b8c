"""What a retraining decides about its subjects: which need training, and whether what came of it is promoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlflow.exceptions import MlflowException

from dreambooth3d.config.fleet import PromotionConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.errors import gist
from dreambooth3d.photos.subjects import FoundSubject
from operations.launch.children import Child
from operations.launch.identity import training_identity
from operations.records.patience import TrackerAwayError, bounded, is_away
from operations.registry import promotion
from operations.registry.decisions import Verdict, decide, objections
from operations.registry.overview import SUBJECTS_PER_CALL, read_together
from operations.registry.versions import Registered, known_outcome


def decide_subjects(found: Sequence[FoundSubject], training: TrainingConfig, gates: PromotionConfig) -> list[Verdict]:
    """Whether each subject needs training; what hinders the answer makes this subject fail, and no other.

    What has been trained already, and was rolled back or kept out by these gates, is not trained to no end again.

    Args:
        found: the subjects with the hashes of their photos.
        training: of any of them; which photos it names plays no part.
        gates: of a promotion.

    Raises:
        TrackerAwayError: MLflow does not answer, so that nothing is known of any subject's production.
    """
    verdicts: list[Verdict] = []
    identity = _common_identity(training) if any(not one.error for one in found) else {}
    for start in range(0, len(found), SUBJECTS_PER_CALL):
        some = found[start : start + SUBJECTS_PER_CALL]
        asked = [] if isinstance(identity, str) else [one.subject for one in some if not one.error]
        try:
            seen = read_together(asked)
            verdicts += [_decide(one, identity, gates, seen.get(one.subject)) for one in some]
        except TrackerAwayError as error:
            raise TrackerAwayError(
                f"MLflow does not answer ({error}), and knows what is in production. Nothing was trained: give the "
                "command again once it does, or leave it to the next tick of the schedule."
            ) from None
    return verdicts


def _common_identity(training: TrainingConfig) -> dict[str, str] | str:
    """What trainings of all subjects are made of, but for their photos; or why that cannot be told."""
    try:
        return training_identity(training, data="")
    except Exception as error:  # a model's folder may be damaged in many ways; the table says how for each subject
        return gist(error)


def _decide(
    found: FoundSubject, common: Mapping[str, str] | str, gates: PromotionConfig, seen: Registered | None
) -> Verdict:
    """Whether one subject needs training.

    Args:
        found: the subject.
        common: as of `_common_identity`.
        gates: of a promotion.
        seen: what the registries held of it a moment ago, None where they are to be read.
    """
    if found.error:
        return Verdict(found.subject, "failed", found.error)
    if isinstance(common, str):
        return Verdict(found.subject, "failed", common, found.data)
    identity = {**common, "data": found.data}
    try:
        with bounded():
            registered = promotion.settled(found.subject, seen)
        number = promotion.in_production(registered)
        needed, reason = decide(identity, registered.made(number) if number else None)
        if needed and (against := known_outcome(registered, identity, gates.digest)):
            needed, reason = False, against
    # A subject that fails, for whatever reason, must not stop the others; a tracker that is away is away for all.
    except Exception as error:
        if isinstance(error, MlflowException) and is_away(error):
            raise TrackerAwayError(gist(error)) from None
        return Verdict(found.subject, "failed", gist(error), found.data)
    return Verdict(found.subject, "train" if needed else "skipped", reason, found.data, production=number)


def judge_child(verdict: Verdict, child: Child, gates: PromotionConfig) -> Verdict:
    """Compare a finished child with production, and promote it if nothing speaks against it.

    No other promotion of the subject can come between the comparison and the change. One that has come between the
    decision and the comparison may have brought newer photos: then production stays, and the next tick decides anew.
    """
    subject, data, reason = verdict.subject, verdict.data, verdict.reason
    if child.error:
        return Verdict(subject, "failed", child.error, data, child.run)
    try:
        with bounded(), promotion.exclusive(subject):
            candidate, production = promotion.candidate(subject, child.run), promotion.production(subject)
            if production is not None and production.number == candidate.number:
                return Verdict(subject, "promoted", reason, data, child.run, candidate.number)
            number = production.number if production else ""
            if number != verdict.production:
                against = [f"production has changed to version {number or 'none'} since this run decided"]
            elif against := objections(gates, candidate, production):
                if not candidate.interrupted:  # which would be continued
                    promotion.refuse(candidate, "; ".join(against), number, gates.digest)
            else:
                promotion.promote(candidate, reason)
    # A subject that fails, for whatever reason, must not stop the others.
    except Exception as error:
        return Verdict(subject, "failed", f"not promoted: {gist(error)}", data, child.run)
    if against:
        kept = f"production {production.number} was kept" if production else "nothing was promoted"
        return Verdict(subject, "kept", f"{kept}: {'; '.join(against)}", data, child.run, candidate.number)
    return Verdict(subject, "promoted", reason, data, child.run, candidate.number)
