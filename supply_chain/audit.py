"""The audit: secrets in the tracked files, yanked releases and known vulnerabilities in the lock files.

Vulnerabilities are asked for at OSV by pip-audit, or, where there is no network, looked up in OSV's records that
`--osv` names. One that does not concern this product stands in `accepted.txt` with its reason.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from supply_chain.locks import LOCKS, ROOT, all_locked
from supply_chain.vulnerabilities import read_records, vulnerable

BASELINE = ".secrets.baseline"
ACCEPTED = Path(__file__).with_name("accepted.txt")


def secrets(root: Path) -> Iterator[str]:
    """What detect-secrets finds in the tracked files beyond the baseline, which holds false alarms."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
    # The tool leaves out the baseline that it is given, which is a copy.
    files = [name for name in tracked.stdout.split("\0") if name != BASELINE and root.joinpath(name).is_file()]
    with tempfile.TemporaryDirectory() as temporary:
        # The tool writes new line numbers into the baseline that it is given.
        baseline = shutil.copy(root / BASELINE, temporary)
        command = [_tool("detect-secrets-hook"), "--baseline", baseline, *files]
        result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    # 3: nothing but the baseline's line numbers is new.
    if result.returncode not in (0, 3):
        yield f"secrets:\n{(result.stdout or result.stderr).strip()}"


def yanked_releases(root: Path) -> Iterator[str]:
    """The locked releases that the package index says were yanked."""
    from supply_chain.index import IndexUnreachableError, releases, yanked

    try:
        for package, files in releases(all_locked(root)).items():
            if reason := yanked(files):
                yield f"{package.lock}: {package} was yanked: {reason}. Choose another version, then run `make locks`."
    except (IndexUnreachableError, LookupError) as error:
        yield f"yanked releases: {error}"


def vulnerabilities(root: Path, osv: Path | None) -> Iterator[str]:
    """The locked packages with a known vulnerability that is not accepted."""
    try:
        accepted = accepted_ids()
        if osv is None:
            yield from _asked_of_osv(root, accepted)
            return
        for package, record in vulnerable(all_locked(root), read_records(osv)):
            if accepted.isdisjoint({record["id"], *record.get("aliases", [])}):
                yield f"{package.lock}: {package}: {record['id']}: {record.get('summary', 'no summary')}"
    except ValueError as error:
        yield f"vulnerabilities: {error}"


def accepted_ids(file: Path = ACCEPTED) -> set[str]:
    """The vulnerabilities that do not concern this product: a line has the identifier, then the reason.

    Raises:
        ValueError: a line gives no reason.
    """
    ids = set[str]()
    for line in file.read_text().splitlines():
        identifier, _, reason = line.strip().partition(" ")
        if identifier and not identifier.startswith("#"):
            if not reason.strip():
                raise ValueError(f"{file.name}: {identifier} is accepted without a reason. Write it behind.")
            ids.add(identifier)
    return ids


def _asked_of_osv(root: Path, accepted: set[str]) -> Iterator[str]:
    ignored = [word for identifier in sorted(accepted) for word in ("--ignore-vuln", identifier)]
    for lock in LOCKS:
        # --strict: a package that could not be looked up is no package without vulnerabilities.
        options = ["--vulnerability-service", "osv", "--strict", "--no-deps", "--disable-pip"]
        command = [_tool("pip-audit"), *options, *ignored, "--progress-spinner", "off", "--requirement", lock]
        result = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if result.returncode and "Connection" in result.stderr:
            yield (
                "vulnerabilities: OSV cannot be reached: connect this machine to the network, or bring OSV's records "
                "and run `make audit OSV=all.zip`."
            )
            return
        if result.returncode:
            yield f"{lock}:\n{(result.stdout or result.stderr).strip()}"


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def main() -> None:
    """Print what was found; exit code 1 if anything was, or could not be looked up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--osv", type=Path, help="OSV's records: a .json file, a folder of them, or their archive")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (this one)")
    arguments = parser.parse_args()
    checks: dict[str, Callable[[], Iterator[str]]] = {
        "secrets": lambda: secrets(arguments.root),
        "yanked releases": lambda: yanked_releases(arguments.root),
        "vulnerabilities": lambda: vulnerabilities(arguments.root, arguments.osv),
    }
    failed = 0
    for name, check in checks.items():
        problems = list(check())
        failed += bool(problems)
        print(f"{name}: {f'{len(problems)} found' if problems else 'none'}", flush=True)
        for problem in problems:
            print(problem, file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
