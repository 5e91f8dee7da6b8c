#!/bin/sh
# As the user: the locked packages, in an environment of their own.
set -eu
cd "$(dirname "$0")"

python3 -m venv /opt/venv
pip="/opt/venv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check"
if [ -n "${TORCH_INDEX:-}" ]; then
    # What it depends on is in requirements.lock, or comes with its CUDA from pip's own index below.
    $pip --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.lock)"
fi
$pip -r requirements.lock -r requirements-remote.txt
