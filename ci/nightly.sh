#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
#
# One night: builds, runs the throughput and the accuracy suite, archives their records, writes report and
# history, and gates each record against the archive. At most 20 minutes on 2 cores once it is built.
#   ci/nightly.sh                    the archive is build/archive
#   ci/nightly.sh --archive DIR      a folder that outlives the checkout; made if missing
#   ci/nightly.sh --no-build         runs the programs that are in build/
#   ci/nightly.sh --limit SECONDS    for each suite, 900 without it; a suite that is stopped leaves the record of
#                                    what was done, which fails
# The last lines are "archived: PATH" for each record, "report: PATH", "history: PATH" and "verdict: WORD".
# Exit code: 3 where a run left no record or something else could not be done, else 1 where a run or a gate
# failed or a suite was stopped, else 77 where a gate was ambiguous or had nothing to compare with, else 0.
# Everything is inside functions, which bash reads before it starts, so that an edit or a checkout during the
# night changes nothing of it.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

throughput=(scenarios/throughput/qwen3-0.6b.yaml scenarios/throughput/llama-3.1-8b-4-layers.yaml
    scenarios/throughput/paced-500MBps.yaml)
accuracy=(scenarios/nightly/recipes.yaml scenarios/accuracy/layer-output.yaml)
ranks=4

archive="$REFIT_BUILD/archive"
build=true
limit=900
worst=0
records=()
archived=()
pages=()

usage() { sed -n '5,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --archive | --limit)
            [ $# -ge 2 ] || refit_stop 2 "ci/nightly.sh: $1 needs a value"
            if [ "$1" = --archive ]; then archive=$2; else limit=$2; fi
            shift
            ;;
        --archive=*) archive=${1#--archive=} ;;
        --limit=*) limit=${1#--limit=} ;;
        --no-build) build=false ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) refit_stop 2 "ci/nightly.sh: unknown option '$1'; known: --archive DIR, --limit SECONDS," \
            "--no-build, --help" ;;
        esac
        shift
    done
    case $limit in
    '' | *[!0-9]* | 0*) refit_stop 2 "ci/nightly.sh: --limit '$limit' is no number of seconds, such as 900" ;;
    esac
}

# note CODE: keeps the worst exit code so far, in the order 3, 1, 77, 0.
note() {
    local rank_of_new rank_of_worst
    case $1 in 0) rank_of_new=0 ;; 77) rank_of_new=1 ;; 1) rank_of_new=2 ;; *) rank_of_new=3 ;; esac
    case $worst in 0) rank_of_worst=0 ;; 77) rank_of_worst=1 ;; 1) rank_of_worst=2 ;; *) rank_of_worst=3 ;; esac
    if [ "$rank_of_new" -gt "$rank_of_worst" ]; then
        worst=$1
        [ "$rank_of_new" -lt 3 ] || worst=3
    fi
}

build_release() {
    local options=(-DCMAKE_BUILD_TYPE=Release)
    # A folder that was configured with tests keeps them.
    if [ "$(refit_cache_value "$REFIT_BUILD" REFIT_BUILD_TESTS)" = ON ]; then
        options=()
    else
        options+=(-DREFIT_BUILD_TESTS=OFF -DREFIT_BUILD_MICROBENCH=OFF)
    fi
    refit_configure "$REFIT_BUILD" "${options[@]}" >"$night/configure.log" 2>&1 || {
        cat "$night/configure.log" >&2
        return 3
    }
    cmake --build "$REFIT_BUILD" --parallel "$(refit_jobs)" --target refitbench >&2 || return 3
}

# suite NAME FILE...: one run, one record. A run that was cut short has left a record that says so, unless
# even the launcher died: nothing is read from a file that an earlier night could have written.
suite() {
    local name=$1 code=0 start found stopped=false
    shift
    start=$SECONDS
    # --foreground: else timeout sends its signal twice, and Open MPI's launcher leaves its ranks behind at once
    # when a second one comes within five seconds. SIGTERM, because SIGINT is ignored in what a script starts
    # with '&'. sigkill_timeout: the launcher kills the ranks one second after it told them to end, which a large
    # record on a slow disk may need longer for. What outlives the launcher must not hold the lock (9).
    (cd "$REFIT_ROOT" && timeout --foreground --signal=TERM --kill-after=60 "$limit" "${refit_mpirun[@]}" \
        --mca odls_base_sigkill_timeout 10 -np "$ranks" \
        build/refitbench run "$@" --output "$night/$name" --json "$night/$name.json") >&2 9>&- || code=$?
    # 137: also the launcher had to be killed, a minute later.
    if [ "$code" -eq 124 ] || { [ "$code" -eq 137 ] && [ $((SECONDS - start)) -ge "$limit" ]; }; then
        stopped=true
        refit_say "$name: stopped after the $limit s that a suite may take (--limit)"
    fi
    found=$(find "$night/$name" -maxdepth 1 -name '*.h5' -type f 2>/dev/null | sort | tail -n 1)
    if [ -z "$found" ]; then
        refit_say "$name: the run left no record (exit code $code); its messages above say why"
        return 3
    fi
    records+=("$found")
    if $stopped; then return 1; fi
    return "$code"
}

gate() {
    "$REFIT_PYTHON" -m refit_reports gate "$1" --history "$archive" \
        --json "$night/gate-$(basename "${1%.h5}").json"
}

prepare() {
    refit_phase setup refit_setup "$REFIT_ROOT/ci/debian-packages.txt" || exit 3
    mkdir -p "$archive" 2>/dev/null && [ -w "$archive" ] ||
        refit_stop 3 "The archive $archive cannot be written by $(id -un); name another folder with --archive."
    archive=$(cd "$archive" && pwd -P)
    # Two nights at once would slow each other down.
    exec 9>"$archive/.nightly"
    flock -n 9 || refit_stop 3 "Another ci/nightly.sh is using $archive; wait for it or end it."
    night="$REFIT_BUILD/nightly/$(date -u +%Y%m%dT%H%M%SZ)-$$"
    mkdir -p "$night" || exit 3
    if $build; then
        refit_phase build build_release || exit 3
    fi
    [ -x "$REFIT_BUILD/refitbench" ] ||
        refit_stop 3 "There is no program $REFIT_BUILD/refitbench; run ci/nightly.sh without --no-build."
}

archive_records() {
    local record path
    for record in "${records[@]}"; do
        # Archived before it is judged, so that whatever happens next costs no night.
        if path=$("$REFIT_PYTHON" -m refit_reports archive "$record" -o "$archive"); then
            archived+=("$path")
        else
            note 3
            archived+=("$record")
        fi
    done
}

judge() {
    local record
    [ ${#records[@]} -gt 0 ] || return 0
    if refit_phase report "$REFIT_PYTHON" -m refit_reports report "${records[@]}" -o "$night/report" >&2; then
        pages+=("report: $night/report/index.html")
    else
        note 3
    fi
    for record in "${archived[@]}"; do
        refit_phase "gate $(basename "$record")" gate "$record" || note $?
    done
}

main() {
    local line word
    read_options "$@"
    prepare
    refit_phase "throughput suite" suite throughput "${throughput[@]}" || note $?
    refit_phase "accuracy suite" suite accuracy "${accuracy[@]}" || note $?
    archive_records
    judge
    if refit_phase history "$REFIT_PYTHON" -m refit_reports history "$archive" -o "$night/history" >&2; then
        pages+=("history: $night/history/index.html")
    elif [ "$refit_phase_code" -ne 77 ]; then
        note "$refit_phase_code"
    fi
    for line in "${archived[@]}"; do printf 'archived: %s\n' "$line"; done
    for line in "${pages[@]}"; do printf '%s\n' "$line"; done
    case $worst in
    0) word=pass ;;
    1) word=fail ;;
    77) word=ambiguous ;;
    *) word=error ;;
    esac
    printf 'verdict: %s\n' "$word"
    exit "$worst"
}

main "$@"
