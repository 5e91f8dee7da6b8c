"""Write the hashes of the installable files into the lock files, behind the versions that stand there.

To add a package or another version, write `name==version` into the lock file and run `make locks`. Comments stay.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from supply_chain.locks import LOCKS, ROOT, Locked, locked

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage

OTHER_BUILDS = {
    "torch==2.13.0": {
        # pragma: allowlist nextline secret
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b": "+cpu, Python 3.11, Linux on x86_64",
    }
}
"""Builds that the package index does not have, by SHA-256: PyTorch's own for CPUs."""


def with_hashes(text: str, hashes: Sequence[Sequence[str]]) -> str:
    """A lock file's text with the hashes of each of its packages, in order, in the place of those that it had."""
    lines, following = [], iter(hashes)
    for line in re.sub(r" *\\\n *--hash=\S+", "", text).splitlines():
        requirement = line.partition("#")[0].strip()
        values = [f"    --hash=sha256:{value}" for value in sorted(next(following))] if requirement else []
        lines.append(" \\\n".join([requirement, *values]) if requirement else line)
    return "\n".join(lines) + "\n"


def _hashes(package: Locked, files: Iterable[DistributionPackage]) -> list[str]:
    from supply_chain.index import installable

    fitting = [file.digests["sha256"] for file in installable(files)]
    if not fitting:
        raise LookupError(f"{package.lock}: no file of {package} fits Python 3.11 or 3.12.")
    return fitting + list(OTHER_BUILDS.get(f"{package.name}=={package.version}", ()))


def main() -> None:
    """Rewrite all lock files, or the named ones; nothing is written where a release is missing or yanked."""
    from supply_chain.index import IndexUnreachableError, releases, yanked

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("locks", nargs="*", default=list(LOCKS), help="relative to the checkout")
    texts = {}
    try:
        for lock in parser.parse_args().locks:
            found = releases(locked(lock))
            if bad := [f"{package} ({reason})" for package, files in found.items() if (reason := yanked(files))]:
                raise LookupError(f"{lock}: yanked, choose another version: {', '.join(bad)}")
            hashes = [_hashes(package, files) for package, files in found.items()]
            texts[lock] = with_hashes(ROOT.joinpath(lock).read_text(), hashes)
    except (IndexUnreachableError, LookupError, ValueError) as error:
        sys.exit(str(error))
    for lock, text in texts.items():
        ROOT.joinpath(lock).write_text(text)
        print(f"{lock}: {text.count('--hash=')} hashes")


if __name__ == "__main__":
    main()
