"""Retraining: what has changed since production is trained again, and promoted if it passes the gates.

The pipeline is dynamic: its body runs at each tick, in the orchestrator, and finds the dataset as it is then.
"""

from __future__ import annotations

from zenml.logger import get_logger

import steps
from dreambooth3d.config import DatasetConfig, TrainingConfig
from dreambooth3d.errors import gist
from dreambooth3d.fleet import PARALLEL, PromotionConfig, RetrainConfig, Subjects
from pipelines import promotion
from pipelines.children import Child, train_children
from pipelines.dataset import FoundSubject
from pipelines.decisions import Verdict, decide, objections
from pipelines.identity import training_identity
from pipelines.strict import require_no_failure, strict_dynamic_pipeline

logger = get_logger(__name__)


@strict_dynamic_pipeline(
    experiment="dreambooth3d-retrain",
    config=RetrainConfig,
    own_steps=(steps.resolve_dataset, steps.decide_subjects, steps.summarize),
)
def retrain(
    dataset: DatasetConfig = DatasetConfig(),
    subjects: Subjects = "all",
    training: TrainingConfig = TrainingConfig(),
    gates: PromotionConfig = PromotionConfig(),
    parallel: int = PARALLEL,
) -> None:
    """Decide for each subject whether it needs training, train those, promote what passes, and say what was done."""
    found = steps.resolve_dataset(dataset, [] if subjects == "all" else [*subjects])
    decisions = [Verdict(**row) for row in steps.decide_subjects(found, training, gates).load()]
    photos = {row["subject"]: FoundSubject(**row).photos(training.photos) for row in found.load()}
    verdicts = {decision.subject: decision for decision in decisions}
    due = [decision.subject for decision in decisions if decision.action == "train"]
    configs = {name: training.model_copy(update={"photos": photos[name]}) for name in due}
    for name, child in train_children(configs, parallel):
        verdicts[name] = judge_child(verdicts[name], child, gates)
    for verdict in verdicts.values():
        logger.info("%s: %s: %s", verdict.subject, verdict.action, verdict.reason)
    steps.summarize([verdict.row() for verdict in verdicts.values()])
    require_no_failure(verdicts.values())


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
    except Exception as error:  # noqa: BLE001
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
    except Exception as error:  # noqa: BLE001
        return Verdict(subject, "failed", f"not promoted: {gist(error)}", data, child.run)
    if against:
        kept = f"production {production.number} was kept" if production else "nothing was promoted"
        return Verdict(subject, "kept", f"{kept}: {'; '.join(against)}", data, child.run, candidate.number)
    return Verdict(subject, "promoted", reason, data, child.run, candidate.number)
