"""Known vulnerabilities of locked packages, from OSV's records on disk: what pip-audit asks its service for.

OSV publishes all records of an ecosystem as one archive of JSON files; for PyPI it is `PyPI/all.zip` of its data dumps.
Source: the OSV schema 1.x, `affected[].versions`, and `affected[].ranges` of the type ECOSYSTEM.
"""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from supply_chain.locks import Locked

Record = Mapping[str, Any]


def read_records(path: Path) -> Iterator[Record]:
    """The records of a JSON file, of a folder of them, or of a ZIP archive of them.

    Raises:
        ValueError: there is none, or one is no OSV record.
    """
    count = 0
    for name, content in _contents(path):
        try:
            value = json.loads(content)
            records = value if isinstance(value, list) else [value]
            if not all(isinstance(record["id"], str) for record in records):
                raise TypeError
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{name}: is no record of OSV. Take the files of OSV's data dumps as they are.") from error
        count += len(records)
        yield from records
    if not count:
        raise ValueError(f"{path}: holds no record of OSV. Name a .json file, a folder of them, or their archive.")


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(".json"):
                        yield f"{path}/{name}", archive.read(name)
        except (OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: is no readable ZIP archive. Fetch it again.") from error
        return
    for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise ValueError(f"{file}: cannot be read ({error.strerror}). Say where OSV's records are.") from error


def vulnerable(packages: Iterable[Locked], records: Iterable[Record]) -> list[tuple[Locked, Record]]:
    """The locked packages that a record says are affected, with the record; withdrawn ones say nothing."""
    by_key = defaultdict[str, list[Locked]](list)
    for package in packages:
        by_key[package.key].append(package)
    return [
        (package, record)
        for record in records
        if not record.get("withdrawn")
        for affected in record.get("affected", [])
        if affected.get("package", {}).get("ecosystem") == "PyPI"
        for package in by_key.get(canonicalize_name(affected["package"]["name"]), [])
        if _affects(affected, Version(package.version))
    ]


def _affects(affected: Mapping[str, Any], version: Version) -> bool:
    if any(_version(listed) == version for listed in affected.get("versions", [])):
        return True
    ranges = [entry["events"] for entry in affected.get("ranges", []) if entry.get("type") == "ECOSYSTEM"]
    return any(_within(events, version) for events in ranges)


def _within(events: Iterable[Mapping[str, str]], version: Version) -> bool:
    """Whether the last event at or before a version leaves it affected."""
    ordered = []
    for event in events:
        for kind, text in event.items():
            # `0` is before all versions.
            at = Version("0.dev0") if text == "0" else _version(text)
            if at is not None and kind in ("introduced", "fixed", "last_affected"):
                ordered.append((at, kind))
    inside = False
    for at, kind in sorted(ordered):
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None
