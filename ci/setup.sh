# shellcheck shell=bash
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by ci/quickstart.sh and ci/test.sh: Debian packages, the virtual environment, phases, CMake.
# Everything is written under build/. Standard input is never read.

REFIT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
REFIT_BUILD="$REFIT_ROOT/build"
REFIT_PYTHON="$REFIT_BUILD/venv/bin/python"

# A caller's Python settings must not decide which packages the scripts see.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
export LC_ALL=C.UTF-8
export PYTHONPYCACHEPREFIX="$REFIT_BUILD/pycache"

refit_say() { printf '# %s\n' "$*"; }

# refit_stop CODE MESSAGE...
refit_stop() {
    local code=$1
    shift
    printf '%s\n' "$@" >&2
    exit "$code"
}

# refit_phase NAME COMMAND...: runs the command, says its seconds, keeps its exit code in
# refit_phase_code and returns it. The seconds are in refit_phase_seconds.
refit_phase() {
    local name=$1 start
    shift
    refit_say "$name ..."
    start=$(date +%s)
    refit_phase_code=0
    "$@" || refit_phase_code=$?
    refit_phase_seconds=$(($(date +%s) - start))
    if [ "$refit_phase_code" -eq 0 ]; then
        refit_say "$name: $refit_phase_seconds s"
    else
        refit_say "$name: $refit_phase_seconds s, exit code $refit_phase_code"
    fi
    return "$refit_phase_code"
}

# The names in a package list, without comments.
refit_package_names() { sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$@"; }

refit_missing_packages() {
    local name
    for name in $(refit_package_names "$@"); do
        if [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" != installed ]; then
            printf '%s\n' "$name"
        fi
    done
}

# refit_install_packages LIST...: installs what is missing; without the right to do so it prints one
# line to paste and stops with 3. Does nothing, and needs no network, where nothing is missing.
refit_install_packages() {
    local missing as_root=()
    if ! command -v dpkg-query >/dev/null; then
        refit_stop 3 "Setting up refitbench needs Debian 12 (dpkg-query was not found)." \
            "Elsewhere, install the counterparts of these packages and build with CMake as" \
            "README.md says: $(refit_package_names "$@" | paste -sd ' ')"
    fi
    missing=$(refit_missing_packages "$@" | paste -sd ' ')
    [ -n "$missing" ] || return 0
    refit_say "missing Debian packages: $missing"
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            as_root=(sudo -n)
        else
            refit_stop 3 "These packages are missing and only an administrator may install them. Run:" \
                "sudo apt-get install --no-install-recommends $missing"
        fi
    fi
    # env: sudo drops variables that are only exported.
    as_root+=(env DEBIAN_FRONTEND=noninteractive)
    "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=120 -q update >&2 ||
        refit_say "apt-get update failed; trying with the package lists that are there"
    # shellcheck disable=SC2086
    "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=120 -q install -y --no-install-recommends \
        $missing >&2 || true
    missing=$(refit_missing_packages "$@" | paste -sd ' ')
    [ -z "$missing" ] ||
        refit_stop 3 "apt-get could not install: $missing" \
            "Its output above says why (network, package sources, disk). Then run the script again," \
            "or install them by hand: sudo apt-get install --no-install-recommends $missing"
}

# The virtual environment over Debian's Python packages, with the reports package importable.
# /usr/bin/python3 by its full name: another python3 on the path does not see Debian's packages.
refit_make_venv() {
    local site line
    if ! "$REFIT_PYTHON" -c 'import numpy, h5py, pip' 2>/dev/null; then
        /usr/bin/python3 -m venv --clear --system-site-packages "$REFIT_BUILD/venv" ||
            refit_stop 3 "Making the virtual environment $REFIT_BUILD/venv failed; the output above says why."
    fi
    "$REFIT_PYTHON" -c 'import numpy, h5py' ||
        refit_stop 3 "$REFIT_PYTHON cannot import numpy and h5py, although Debian's packages are" \
            "installed. A package of another origin probably hides them; remove build/venv and try again."
    site=$("$REFIT_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') &&
        [ -w "$site" ] || refit_stop 3 "The virtual environment $REFIT_BUILD/venv cannot be written by $(id -un)."
    line="$REFIT_ROOT/reports"
    if [ "$(cat "$site/refit_reports.pth" 2>/dev/null)" != "$line" ]; then
        printf '%s\n' "$line" >"$site/refit_reports.pth"
    fi
}

# refit_setup LIST...: packages of the lists, the build folder and the virtual environment.
refit_setup() {
    exec </dev/null
    refit_install_packages "$@"
    if ! mkdir -p "$REFIT_BUILD" 2>/dev/null || [ ! -w "$REFIT_BUILD" ]; then
        refit_stop 3 "The build folder $REFIT_BUILD cannot be written by $(id -un)." \
            "Give it to this user or remove it: sudo rm -rf $(printf %q "$REFIT_BUILD")"
    fi
    # A user without a home that can be written (containers, services) still needs a compiler cache.
    if [ -z "${CCACHE_DIR:-}" ] && { [ -z "${HOME:-}" ] || [ ! -w "$HOME" ]; }; then
        export CCACHE_DIR="$REFIT_BUILD/ccache"
    fi
    refit_make_venv
}

# Value of a variable in the CMake cache of a build folder; nothing where there is none.
refit_cache_value() { sed -n "s/^$2:[A-Z]*=//p" "$1/CMakeCache.txt" 2>/dev/null; }

# refit_configure FOLDER OPTION...: configures with Ninja, or with the generator already chosen there.
refit_configure() {
    local folder=$1 generator=(-G Ninja)
    shift
    if [ -f "$folder/CMakeCache.txt" ]; then
        if [ "$(refit_cache_value "$folder" CMAKE_HOME_DIRECTORY)" = "$REFIT_ROOT" ]; then
            generator=()
        else
            # The folder was copied from another place; its cache would be refused.
            rm -rf "$folder/CMakeCache.txt" "$folder/CMakeFiles"
        fi
    fi
    cmake -S "$REFIT_ROOT" -B "$folder" "${generator[@]}" "$@"
}

# Parallel compilers: one a core, but no more than memory holds at 1.5 GB each.
refit_jobs() {
    local cores by_memory
    cores=$(nproc)
    by_memory=$(awk '/^MemAvailable:/ {print int($2 / 1500000)}' /proc/meminfo)
    [ "${by_memory:-1}" -ge 1 ] || by_memory=1
    if [ "$by_memory" -lt "$cores" ]; then echo "$by_memory"; else echo "$cores"; fi
}

# The launcher with the options that every machine needs; as root Open MPI wants to be told.
refit_mpirun=(mpirun --oversubscribe)
if [ "$(id -u)" -eq 0 ]; then
    refit_mpirun+=(--allow-run-as-root)
fi
