#!/bin/sh
# As root: system packages, the user, and the folders that it may write to.
set -eu

export DEBIAN_FRONTEND=noninteractive
packages="ca-certificates git"
command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null || packages="$packages python3 python3-venv"
# What compiles for CUDA needs Python's headers and a compiler, outside Python's own images.
if command -v nvcc >/dev/null; then packages="$packages python3-dev build-essential ninja-build"; fi
apt-get update -q
apt-get install -q -y --no-install-recommends $packages
rm -rf /var/lib/apt/lists/*
python3 -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 12), "Python 3.11 or 3.12 is needed"'

# Not 1000, which some base images have given away.
useradd --uid 10001 --create-home --shell /bin/sh dreambooth
mkdir -p /app/code /app/state /opt/venv /opt/dreambooth3d /opt/torch_extensions
chown dreambooth: /app /app/code /app/state /opt/venv /opt/dreambooth3d /opt/torch_extensions
# Steps may run under any other number: see the end of the Dockerfile.
chmod a+rwx /app /app/code /app/state /opt/torch_extensions
