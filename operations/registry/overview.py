"""What both registries hold about many subjects, read together: four requests for fifty of them."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlflow.store.entities import PagedList
from zenml.client import Client
from zenml.utils.pagination_utils import depaginate

from dreambooth3d.errors import gist
from dreambooth3d.naming import model_name
from operations.records import rows
from operations.records.patience import TrackerAwayError, patiently
from operations.registry.versions import ALIAS, Registered, registered

SUBJECTS_PER_CALL = 50
"""Names that one request asks for; those of thousands would not fit into an address."""
_PAGE = 200
_logger = logging.getLogger(__name__)


def read_together(subjects: Sequence[str]) -> dict[str, Registered]:
    """Read both registries' view of at most `SUBJECTS_PER_CALL` subjects, as `versions.read` reads that of one.

    Other processes go on writing meanwhile, so that pages may not fit together: `promotion.settled` reads anew what
    does not agree.

    Returns:
        By subject. Left out is what cannot be read so (a registry that takes no lists of names, a damaged record), so
        that each subject is asked for by itself, and an error is that of one.

    Raises:
        TrackerAwayError: MLflow does not answer, for minutes; each subject would wait for it as long.
    """
    names = {model_name(subject): subject for subject in subjects}
    if not names:
        return {}
    asked = list(names)
    try:
        versions = _zenml_versions(asked)
        entries, aliases = patiently(lambda: (_mlflow_versions(asked), _aliases(asked)), "The registry")
    except TrackerAwayError:
        raise
    # Each store and each way to it raises errors of its own.
    except Exception as error:
        _logger.info("The registries of %d subjects are read one by one: %s", len(names), gist(error))
        return {}
    found: dict[str, Registered] = {}
    for name, subject in names.items():
        try:
            found[subject] = registered(subject, versions[name], entries[name], aliases.get(name))
        except Exception as error:  # whatever a damaged record leads to
            _logger.info("%s: is read by itself: %s", subject, gist(error))
    return found


def _zenml_versions(names: list[str]) -> defaultdict[str, list[Any]]:
    """ZenML's model versions by the name of their model."""
    found = defaultdict[str, list[Any]](list)
    models = depaginate(Client().list_models, name=f"oneof:{json.dumps(names)}", size=_PAGE)
    # Some databases compare without regard to case.
    ids = [str(model.id) for model in models if model.name in names]
    if ids:
        asked = f"oneof:{json.dumps(ids)}"
        for version in depaginate(
            Client().list_model_versions, model=asked, sort_by="created", hydrate=True, size=_PAGE
        ):
            found[version.model.name].append(version)
    return found


def _mlflow_versions(names: list[str]) -> defaultdict[str, list[Any]]:
    """MLflow's model versions by the name of their model."""
    found = defaultdict[str, list[Any]](list)
    for entry in _searched(rows.client().search_model_versions, names):
        found[entry.name].append(entry)
    return found


def _aliases(names: list[str]) -> dict[str, str]:
    """The MLflow version that has the alias `production`, by the name of its model."""
    models = _searched(rows.client().search_registered_models, names)
    return {model.name: str(model.aliases[ALIAS]) for model in models if ALIAS in model.aliases}


def _searched(search: Callable[..., PagedList[Any]], names: list[str]) -> Iterator[Any]:
    """All that one of MLflow's searches finds for models of these names, in an order that changes do not disturb."""
    quoted = ", ".join(f"'{name}'" for name in names)  # names hold no quotes, see `naming.escaped`
    token = None
    while True:
        page = search(f"name IN ({quoted})", max_results=_PAGE, order_by=["name ASC"], page_token=token)
        yield from page
        token = page.token
        if not token:
            return
