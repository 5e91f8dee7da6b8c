#!/bin/sh
# As the user: the locked packages, in an environment of their own.
set -eu
cd "$(dirname "$0")"

python3 -m venv /opt/venv
python=/opt/venv/bin/python
pip="$python -m pip install --quiet --no-cache-dir --disable-pip-version-check"
locked="$pip --no-deps --require-hashes"
torch=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)
if [ -n "${TORCH_INDEX:-}" ]; then
    # It has other builds, of which requirements.lock knows no hash: whoever names the index vouches for it.
    $pip --no-deps --index-url "$TORCH_INDEX" "$torch"
fi
$locked -r requirements.lock -r requirements-remote.txt
# The libraries of torch's CUDA, if it has one: locked are those that the package index's own build asks for.
if [ -n "${TORCH_INDEX:-}" ]; then
    $pip "$torch"
elif $python -c 'import importlib.metadata as m; exit("nvidia-cudnn-cu13" not in str(m.requires("torch")))'; then
    $locked -r requirements-cuda.lock
fi
