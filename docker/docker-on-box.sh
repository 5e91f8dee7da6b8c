#!/bin/sh
# Docker for ZenML's SSH step operator on a machine that builds its images itself, without a registry: the operator pulls
# the image before each step, which is done already where the image is there. Register it as --docker_binary.
if [ "$1" = pull ] && docker image inspect "$2" >/dev/null 2>&1; then
    exit 0
fi
exec docker "$@"
