"""Khronos' validator of glTF files, where Node.js has it: `npm install --global gltf-validator`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

PACKAGE = "gltf-validator"
ERROR = 0
"""Severity of an error, in the validator's numbers."""
VALIDATE = f"""
const validator = require("{PACKAGE}"), fs = require("fs");
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then((report) => console.log(JSON.stringify(report.issues)));
"""


def issues(file: Path) -> dict[str, int]:
    """Number of errors and of warnings that a glTF file has, and as `errors/CODE` that of each kind of error.

    Nothing where the validator is not installed.

    Raises:
        RuntimeError: the validator fails.
    """
    root = _root()
    if root is None:
        return {}
    done = _node(root, VALIDATE, str(file.resolve()))
    if done.returncode != 0:
        raise RuntimeError(f"{file}: {PACKAGE} fails: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout)
    codes = Counter(message["code"] for message in found["messages"] if message["severity"] == ERROR)
    by_code = {f"errors/{code}": count for code, count in codes.items()}
    return {"errors": found["numErrors"], "warnings": found["numWarnings"], **by_code}


@cache
def _root() -> str | None:
    """The folder in which npm has put the validator, or None."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    for scope in ((), ("--global",)):
        root = subprocess.run(["npm", "root", *scope], capture_output=True, text=True).stdout.strip()
        if _node(root, f'require.resolve("{PACKAGE}")').returncode == 0:
            return root
    return None


def _node(root: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NODE_PATH": root}
    return subprocess.run(["node", "-e", script, *arguments], capture_output=True, text=True, env=environment)
