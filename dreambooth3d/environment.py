"""The product's own surroundings: ZenML's and MLflow's state in one folder (`places.home`), never in the user's home.

`VARIABLES` says which environment variables count, and whose value. Every way to start follows it: the virtual
environment's `activate` script (`dreambooth3d.cli.activation`), every command of the console script (`enter`), and
ZenML's own commands in an activated shell (`operations.zenml_start`, called when ZenML is imported). Nothing
here imports ZenML or MLflow, which read most of these once, on import.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dreambooth3d.errors import ConfigError
from dreambooth3d.places import ACTIVE, HOME, home, is_set_up, make_importable

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 240
_ANSWER_S = 5.0
IGNORED = "DREAMBOOTH3D_IGNORED"
STORE_URL = "ZENML_STORE_URL"
SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What says how long idle OpenMP threads spin; one that the user has set keeps us from setting any."""


class Rule(Enum):
    """Whose value of a variable counts."""

    OURS = "DreamBooth3D's, whatever the shell had before it was activated"
    DEFAULT = "the user's, else DreamBooth3D's"
    WITHDRAWN = "nobody's"
    WITHDRAWN_HERE = "nobody's, but beside ZENML_STORE_URL, to whose server it belongs"


@dataclass(frozen=True)
class Variable:
    """One environment variable that matters.

    Attributes:
        name: of the variable.
        rule: whose value counts.
        value: ours; `{root}` is the folder that holds all state.
        unless: variables any of which, set by the user, stands for this one.
        because: what is used instead of a withdrawn one.
    """

    name: str
    rule: Rule
    value: str = ""
    unless: tuple[str, ...] = ()
    because: str = ""

    def ours(self, root: str) -> str:
        """Our value in a folder of state."""
        return self.value.format(root=root)


def _ours(values: dict[str, str]) -> Iterator[Variable]:
    return (Variable(name, Rule.OURS, value) for name, value in values.items())


def _withdrawn(because: str, *names: str, rule: Rule = Rule.WITHDRAWN) -> Iterator[Variable]:
    return (Variable(name, rule, because=because) for name in names)


VARIABLES = (
    *_ours(
        {
            "ZENML_CONFIG_PATH": "{root}/.zenconfig",
            "ZENML_REPOSITORY_PATH": "{root}",
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_ENABLE_RICH_TRACEBACK": "false",
            "AUTO_OPEN_DASHBOARD": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            # Files go through MLflow's server: the name by which it knows its S3 store may mean nothing here.
            "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
            "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
            "DVC_SITE_CACHE_DIR": "{root}/.dreambooth3d/dvc",
            "DVC_NO_ANALYTICS": "true",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TRANSFORMERS_VERBOSITY": "error",
        }
    ),
    # A server that is away is waited for minutes at most; MLflow's own settings come to half an hour.
    Variable("MLFLOW_HTTP_REQUEST_MAX_RETRIES", Rule.DEFAULT, "3"),
    Variable("MLFLOW_HTTP_REQUEST_TIMEOUT", Rule.DEFAULT, "30"),
    Variable("DREAMBOOTH3D_WORK", Rule.DEFAULT, "{root}/.dreambooth3d/work"),
    # Measured by benchmarks.busy_machine; OpenMP reads it when torch is imported.
    Variable("GOMP_SPINCOUNT", Rule.DEFAULT, "2000", unless=SPINNING),
    *_withdrawn(
        "the stack's tracker says where rows and registered models are",
        "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME",
        "MLFLOW_RUN_ID", "MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_RUN_CONTEXT",
    ),
    *_withdrawn(
        "ZenML's state lies in ZENML_CONFIG_PATH",
        "ZENML_LOCAL_STORES_PATH", "ZENML_REPOSITORY_DIRECTORY_NAME", "ZENML_CUSTOM_SOURCE_ROOT", "ZENML_SERVER",
        "ZENML_USER_ID", "DISABLE_DATABASE_MIGRATION",
    ),
    *_withdrawn(
        "`zenml stack set` and `--stack` choose a stack",
        "ZENML_ACTIVE_STACK_ID", "ZENML_ACTIVE_PROJECT_ID", rule=Rule.WITHDRAWN_HERE,
    ),
    *_withdrawn(
        "ZenML's state has its user and project",
        "ZENML_DEFAULT_USER_NAME", "ZENML_DEFAULT_USER_PASSWORD", "ZENML_DEFAULT_PROJECT_NAME",
        rule=Rule.WITHDRAWN_HERE,
    ),
    *_withdrawn("ZENML_STORE_URL says it", "ZENML_STORE_TYPE"),
)  # fmt: skip
# Withdrawn by how they begin; the first in all but a state that is signed in to a server.
_STORE_PREFIX = "ZENML_STORE_"
_SECRETS_PREFIXES = ("ZENML_SECRETS_STORE_", "ZENML_BACKUP_SECRETS_STORE_")
SETTINGS = {variable.name: variable.value for variable in VARIABLES if variable.value}
"""Our values; `{root}` is the folder that holds all state."""


def enter() -> None:
    """Set the product's settings in this process, unless the activated environment has set them, and settle.

    Raises:
        ConfigError: see `settle`.
    """
    root, before = str(home()), os.environ.get(ACTIVE)
    if before != root:
        for variable in VARIABLES:
            if variable.rule is Rule.OURS or (variable.rule is Rule.DEFAULT and not _users(variable, before)):
                os.environ[variable.name] = variable.ours(root)
        os.environ[ACTIVE] = root
        if root not in sys.path:
            sys.path.insert(0, root)
    make_importable()
    settle()


def require_state() -> None:
    """Check that a wheel's installation finds a folder of state: ZenML would make one wherever a command is given.

    Raises:
        ConfigError: there is none, and no server.
    """
    if is_set_up(home()) or os.environ.get(STORE_URL):
        return
    raise ConfigError(
        f"{home()}: neither this folder nor one above it is set up. Go to the folder of your runs, set {HOME} to it, "
        "or start a first run here, for example `dreambooth3d train demo`."
    )


def wait_quietly() -> None:
    """Set only how idle OpenMP threads wait, unless the user has; before PyTorch is imported."""
    for variable in VARIABLES:
        if variable.name in SPINNING and not _users(variable, None):
            os.environ[variable.name] = variable.value


def _users(variable: Variable, active: str | None) -> bool:
    """Whether the user has set a variable or one that stands for it, and not another activated environment."""
    ours = None if active is None else variable.ours(active)
    return any(os.environ.get(name) and os.environ[name] != ours for name in (variable.name, *variable.unless))


def settle() -> None:
    """Withdraw what must not count in this process, also what was exported after the activation.

    Raises:
        ConfigError: ZENML_STORE_URL is set, and names no server that answers; then nothing is withdrawn.
    """
    if os.environ.get(STORE_URL):
        _require_server(os.environ[STORE_URL])
    withdraw(list(_to_withdraw()))


def withdraw_tracker() -> None:
    """Withdraw only what would lead MLflow elsewhere than to the stack's tracker; for steps wherever they run."""
    withdraw([variable.name for variable in VARIABLES if variable.because and variable.name.startswith("MLFLOW_")])


def withdraw(names: list[str]) -> None:
    """Take variables out of this process' environment, and remember those that were set as ignored."""
    found = [name for name in names if os.environ.pop(name, None) is not None]
    if found:
        os.environ[IGNORED] = " ".join(dict.fromkeys([*ignored(), *found]))


def ignored() -> list[str]:
    """Names of the variables that were withdrawn, here or by the activation."""
    return os.environ.get(IGNORED, "").split()


def because(name: str) -> str:
    """What is used instead of a withdrawn variable."""
    reasons = {variable.name: variable.because for variable in VARIABLES}
    return reasons.get(name) or "ZenML's state says where its store is"


def in_force() -> dict[str, str]:
    """Variables that are set to our values, with these."""
    root = str(home())
    return {
        variable.name: variable.ours(root)
        for variable in VARIABLES
        if variable.value and os.environ.get(variable.name) == variable.ours(root)
    }


def users_own() -> dict[str, str]:
    """Variables of the user's that count, with what may be shown of them."""
    alternatives = [name for variable in VARIABLES for name in variable.unless]
    settable = [variable.name for variable in VARIABLES if not variable.because]
    values = {name: os.environ[name] for name in (HOME, *settable, *alternatives) if os.environ.get(name)}
    found = {name: value for name, value in values.items() if in_force().get(name) != value}
    servers = [name for name in os.environ if name.startswith(_STORE_PREFIX)]
    kept = [variable.name for variable in VARIABLES if variable.because and variable.name in os.environ]
    return found | dict.fromkeys([*servers, *kept], "...") | _shown_server()


def _shown_server() -> dict[str, str]:
    address = os.environ.get(STORE_URL)
    return {STORE_URL: _without_login(address)} if address else {}


def _to_withdraw() -> Iterator[str]:
    with_server = bool(os.environ.get(STORE_URL))
    for variable in VARIABLES:
        if variable.rule is Rule.WITHDRAWN or (variable.rule is Rule.WITHDRAWN_HERE and not with_server):
            yield variable.name
    prefixes = _SECRETS_PREFIXES if with_server or _signed_in() else (*_SECRETS_PREFIXES, _STORE_PREFIX)
    yield from [name for name in os.environ if name.startswith(prefixes)]


def _signed_in() -> bool:
    """Whether ZenML's state is a server, which `zenml login` has chosen."""
    try:
        lines = Path(os.environ.get("ZENML_CONFIG_PATH", ""), "config.yaml").read_text().splitlines()
    except OSError:
        return False
    return "  type: rest" in lines


def _require_server(address: str) -> None:
    """One request, so that a wrong address is told at once and not after ZenML's retries."""
    remedy = f"Unset {STORE_URL}, or give it the address of a ZenML server."
    scheme = _server_scheme(address)
    if scheme is None:
        raise ConfigError(f"{STORE_URL}: {_without_login(address)!r} is no address of a ZenML server. {remedy}")
    if scheme == "mysql":
        return
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        urlopen(f"{address.rstrip('/')}/health", timeout=_ANSWER_S).close()
    except HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if "CERTIFICATE" in str(reason):  # whether that matters is said to ZenML by ZENML_STORE_VERIFY_SSL
            return
        raise ConfigError(
            f"{STORE_URL}: no ZenML server answers at {_without_login(address)!r} ({reason}). {remedy}"
        ) from None


def _server_scheme(address: str) -> str | None:
    """http, https or mysql; None where no server can have the address."""
    try:
        parts = urlsplit(address)
        return parts.scheme if parts.scheme in ("http", "https", "mysql") and parts.hostname else None
    except ValueError:
        return None


def _without_login(address: str) -> str:
    return address.rpartition("@")[2]


def quiet() -> None:
    """Nothing but the answer on stdout, where ZenML's handler writes what any library logs."""
    os.environ["ZENML_LOGGING_VERBOSITY"] = "ERROR"  # ZenML sets the root logger's level when it is imported
    logging.getLogger().setLevel(logging.ERROR)
    for name in ("zenml", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def console() -> Console:
    """Where tables go; in a file or a pipe they are as wide as they need to be, unless COLUMNS says otherwise."""
    from rich.console import Console

    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=_WIDE if wide else None)
