"""The licences of all that is locked, as the page docs/licences.md: from the metadata of installed distributions.

A package that is in none of the given environments keeps its row while its version stays the same. What metadata leaves
open, which licences are free to use, and why others do no harm stand in licences.toml.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageMetadata, distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from supply_chain.locks import LOCKS, ROOT, Locked, all_locked

PAGE = "docs/licences.md"
_BEGIN = "<!-- made by `make licences`: below, nothing is written by hand -->"
_ROW = re.compile(
    r"^\| (?P<name>[^|]+) \| (?P<version>[^|]+) \| (?P<licence>[^|]+) \| (?P<reason>[^|]*) \|$", re.MULTILINE
)


@dataclass(frozen=True)
class Licence:
    """A row of the page.

    Attributes:
        name: of the package, as indexes compare it.
        version: the locked one.
        licence: an SPDX expression.
        reason: why a licence outside the allow-list does no harm, else empty.
    """

    name: str
    version: str
    licence: str
    reason: str


@cache
def _settings() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("licences.toml").read_text())


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met by licences of the allow-list: one side of OR, all of AND."""
    if " OR " in (flat := re.sub(r"\(([^()]*)\)", lambda found: _choice(found[1]), expression)):
        return any(is_allowed(part) for part in flat.split(" OR "))
    return all(part.strip() in _settings()["allowed"] for part in flat.split(" AND "))


def _choice(inner: str) -> str:
    """What stands for an expression in brackets: of a choice the side that is allowed, else all of it."""
    sides = inner.split(" OR ")
    return next((side for side in sides if is_allowed(side)), sides[0])


def problems(rows: Iterable[Licence]) -> list[str]:
    """The rows whose licence is neither allowed nor explained."""
    return [
        f"{row.name} {row.version}: {row.licence} is not in the allow-list of licences.toml. Replace the package, or "
        "give the reason there."
        for row in rows
        if not row.reason and not is_allowed(row.licence)
    ]


def licence_of(name: str, metadata: PackageMetadata | None) -> str | None:
    """The SPDX expression of a package; None where neither its metadata nor licences.toml tells it."""
    settings = _settings()
    if stated := settings["stated"].get(name):
        return stated
    if metadata is None:
        return None
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = metadata.get_all("Classifier") or []
    classified = [text.rpartition("::")[2].strip() for text in classifiers if "License ::" in text]
    text = (metadata.get("License") or "").strip()
    for found in [*classified, *text.splitlines()[:1]]:
        if found in settings["texts"]:
            return settings["texts"][found]
    # Words and signs of an SPDX expression, on one line.
    return text if re.fullmatch(r"[\w.+-]+( (AND|OR|WITH) \(?[\w.+-]+\)?)*", text) and text != "UNKNOWN" else None


def rows_of(
    packages: Iterable[Locked], folders: Iterable[Path], before: Mapping[tuple[str, str], Licence]
) -> list[Licence]:
    """A row for each package, by name.

    Args:
        packages: the locked ones.
        folders: `site-packages` of environments.
        before: rows of the page as it is, by name and version.

    Raises:
        LookupError: the licence of a package is not known.
    """
    installed = {
        (canonicalize_name(found.metadata["Name"]), found.version.partition("+")[0]): found.metadata
        for found in distributions(path=[str(folder) for folder in folders])
    }
    reasons, rows, unknown = _settings()["reasons"], dict[tuple[str, str], Licence](), []
    for package in packages:
        known = before.get((package.key, package.version))
        licence = licence_of(package.key, installed.get((package.key, package.version)))
        if licence is None and known is not None:
            licence = known.licence
        if licence is None:
            unknown.append(f"{package.name}=={package.version}")
            continue
        reason = reasons.get(package.key, "")
        if not reason and package.lock == "requirements-cuda.lock" and "NVIDIA" in licence:
            reason = "NVIDIA's licence for its CUDA: installed by the user beside an NVIDIA GPU, not passed on by us"
        rows[package.key, package.version] = Licence(package.key, package.version, licence, reason)
    if unknown:
        raise LookupError(
            f"The licence is not known of {', '.join(unknown)}. Install them somewhere and name its site-packages, or "
            "state it in supply_chain/licences.toml."
        )
    return [rows[key] for key in sorted(rows)]


def read_page(text: str) -> list[Licence]:
    """The rows of the page."""
    cells = [found.groupdict() for found in _ROW.finditer(text)]
    rows = [Licence(**{key: value.strip() for key, value in row.items()}) for row in cells]
    return [row for row in rows if row.name not in ("package", "---")]


def page_with(text: str, rows: Iterable[Licence]) -> str:
    """The page with these rows in the place of those that it had."""
    lines = [f"| {row.name} | {row.version} | {row.licence} | {row.reason} |" for row in rows]
    lock_lines = [f"- `{lock}`: {use}" for lock, use in LOCKS.items()]
    head = ["| package | version | licence | why it does no harm |", "| --- | --- | --- | --- |"]
    return "\n".join([text.partition(_BEGIN)[0] + _BEGIN, "", *lock_lines, "", *head, *lines, ""])


def main() -> None:
    """Write the page; nothing is written where a licence is unknown, or is neither allowed nor explained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="site-packages of environments")
    page = ROOT / PAGE
    text = page.read_text()
    try:
        before = {(row.name, row.version): row for row in read_page(text)}
        rows = rows_of(all_locked(), parser.parse_args().folders, before)
    except LookupError as error:
        sys.exit(str(error))
    if found := problems(rows):
        sys.exit("\n".join(found))
    page.write_text(page_with(text, rows))
    print(f"{PAGE}: {len(rows)} packages")


if __name__ == "__main__":
    main()
