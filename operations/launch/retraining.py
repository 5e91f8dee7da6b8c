"""What a retraining decides about one subject: whether it needs training, and whether what came of it is promoted."""

from __future__ import annotations

from dreambooth3d.config.fleet import PromotionConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.errors import gist
from dreambooth3d.photos.subjects import FoundSubject
from operations.launch.children import Child
from operations.launch.identity import training_identity
from operations.registry import promotion
from operations.registry.decisions import Verdict, decide, objections


def decide_subject(found: FoundSubject, training: TrainingConfig, gates: PromotionConfig) -> Verdict:
    """Whether one subject needs training; what hinders the answer makes this subject fail, and no other.

    What has been trained already, and was rolled back or kept out by these gates, is not trained to no end again.
    """
    if found.error:
        return Verdict(found.subject, "failed", found.error)
    config = training.model_copy(update={"photos": found.photos(training.photos)})
    try:
        identity, production = training_identity(config, found.data), promotion.production(found.subject)
        needed, reason = decide(identity, production)
        if needed and (against := promotion.objection_to(found.subject, identity, gates.digest)):
            needed, reason = False, against
    # A subject that fails, for whatever reason, must not stop the others.
    except Exception as error:
        return Verdict(found.subject, "failed", gist(error), found.data)
    number = production.number if production else ""
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
        with promotion.exclusive(subject):
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
