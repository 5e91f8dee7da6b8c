#!/bin/sh
# As the user, where there is a CUDA compiler: what would otherwise be compiled at run time, or not at all.
#
#   compile.sh nerfacc       for the architectures in TORCH_CUDA_ARCH_LIST
#   compile.sh tinycudann    at the tag or commit in TINYCUDANN, for TCNN_CUDA_ARCHITECTURES; nothing where it is empty
set -eu

if ! command -v nvcc >/dev/null; then
    echo "There is no nvcc in this base image, so $1 is not compiled."
    exit 0
fi
case "$1" in
nerfacc)
    # Its backend compiles when it is first imported, into TORCH_EXTENSIONS_DIR.
    python -c 'from nerfacc.cuda._backend import _C; assert _C is not None, "nerfacc did not compile"'
    # Whoever imports it takes a lock there.
    chmod -R a+rwX "$TORCH_EXTENSIONS_DIR"
    ;;
tinycudann)
    [ -n "${TINYCUDANN:-}" ] || exit 0
    # Its set-up imports pkg_resources, which the locked setuptools has no more.
    pip install --quiet --no-cache-dir --target /tmp/setuptools setuptools==80.9.0
    # Bindings and nvcc must use one host compiler, or the first forward pass ends in a segmentation fault.
    PYTHONPATH=/tmp/setuptools CC=/usr/bin/gcc CXX=/usr/bin/g++ pip install --quiet --no-cache-dir --no-build-isolation \
        "git+https://github.com/NVlabs/tiny-cuda-nn@$TINYCUDANN#subdirectory=bindings/torch"
    rm -r /tmp/setuptools
    ;;
*)
    echo "compile.sh: nerfacc or tinycudann, not $1" >&2
    exit 1
    ;;
esac
