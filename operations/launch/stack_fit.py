"""Whether the active stack can do what a YAML asks of it; ZenML would ignore part of it, or end in a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zenml.client import Client

from dreambooth3d import places
from dreambooth3d.errors import ConfigError

_KINDS = ("orchestrator", "step_operator")


def require_fitting_stack(values: Mapping[str, Any]) -> None:
    """Refuse settings for another orchestrator or step operator than the stack's, and a schedule that nobody keeps.

    Sections for several flavors may stand beside each other, if the stack's own is among them.

    Args:
        values: a pipeline's YAML after its check; empty without one.

    Raises:
        ConfigError: one sentence for the first thing that does not fit.
    """
    stack = Client().active_stack
    flavors = {
        "orchestrator": {stack.orchestrator.flavor},
        "step_operator": {operator.flavor for operator in stack.step_operators.values()},
    }
    name = Client().active_stack_model.name
    if places.installed() and (flavors["orchestrator"] != {"local"} or flavors["step_operator"]):
        raise ConfigError(
            f"The stack {name!r} runs steps on other machines or in containers, which get their code and image from a "
            "clone of the repository. Run this in a clone, or choose the local stack with `zenml stack set`."
        )
    if values.get("schedule") and not stack.orchestrator.config.is_schedulable:
        raise ConfigError(
            f"schedule: the stack {name!r} has the orchestrator flavor {stack.orchestrator.flavor}, which keeps no "
            "schedules. Choose another stack with --stack, or remove it and let cron run the command."
        )
    steps = values.get("steps") or {}
    asked = sorted(step for step, options in steps.items() if (options or {}).get("step_operator"))
    if asked and not stack.step_operators:
        raise ConfigError(
            f"steps.{asked[0]}.step_operator: the stack {name!r} has no step operator. Choose another stack with "
            "--stack, or register one that has."
        )
    for kind in _KINDS:
        given = _given_flavors(values, kind)
        if given and not given & flavors[kind]:
            what = kind.replace("_", " ")
            there = f"the {what} flavor {', '.join(sorted(flavors[kind]))}" if flavors[kind] else f"no {what}"
            raise ConfigError(
                f"settings.{kind}.{min(given)}: the stack {name!r} has {there}, so that these settings would be "
                "ignored. Choose another stack with --stack, or another file."
            )


def _given_flavors(values: Mapping[str, Any], kind: str) -> set[str]:
    holders = [values, *(values.get("steps") or {}).values()]
    keys = {key for holder in holders for key in (holder or {}).get("settings") or {}}
    return {key.partition(".")[2] for key in keys if key.startswith(f"{kind}.")}
