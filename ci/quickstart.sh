#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
#
# From a fresh Debian 12 machine to a finished default scenario and its report, as any user, from any
# folder. The last two lines are "record: PATH" and "report: PATH". Exit code: that of the run; 3 where
# something before or after it failed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

for argument in "$@"; do
    case $argument in
    -h | --help)
        sed -n '5,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        printf 'Example: bash ci/quickstart.sh\n'
        exit 0
        ;;
    *) refit_stop 2 "ci/quickstart.sh: unknown argument '$argument'; known: --help" ;;
    esac
done

scenario=scenarios/smoke/quickstart.yaml
results="$REFIT_BUILD/results"

configure() {
    local options=(-DCMAKE_BUILD_TYPE=Release)
    # A folder that ci/test.sh or a developer configured with tests keeps them.
    if [ "$(refit_cache_value "$REFIT_BUILD" REFIT_BUILD_TESTS)" = ON ]; then
        options=()
    else
        options+=(-DREFIT_BUILD_TESTS=OFF)
        if [ "$(dpkg-query -W -f '${db:Status-Status}' libbenchmark-dev 2>/dev/null)" = installed ]; then
            options+=(-DREFIT_BUILD_MICROBENCH=ON)
        else
            options+=(-DREFIT_BUILD_MICROBENCH=OFF)
        fi
    fi
    refit_configure "$REFIT_BUILD" "${options[@]}" >"$REFIT_BUILD/quickstart-configure.log" 2>&1 || {
        cat "$REFIT_BUILD/quickstart-configure.log" >&2
        return 3
    }
}

build() {
    local targets=(refitbench)
    if [ "$(refit_cache_value "$REFIT_BUILD" REFIT_BUILD_MICROBENCH)" = ON ]; then
        targets+=(refitbench-micro)
    fi
    cmake --build "$REFIT_BUILD" --parallel "$(refit_jobs)" --target "${targets[@]}" || return 3
}

run_scenario() {
    mkdir -p "$results"
    rm -f "$results/quickstart.json"
    # From the repository root, so that the record's command line can be pasted there.
    (cd "$REFIT_ROOT" && "${refit_mpirun[@]}" -np 4 build/refitbench run "$scenario" \
        --output "$results" --json "$results/quickstart.json")
}

write_report() {
    "$REFIT_PYTHON" -m refit_reports report "$record" -o "$report" >&2
}

refit_phase setup refit_setup "$REFIT_ROOT/ci/debian-packages.txt"
refit_phase configure configure
refit_phase build build

run_code=0
refit_phase run run_scenario || run_code=$?
record=$("$REFIT_PYTHON" - "$results/quickstart.json" "$REFIT_ROOT" <<'PYTHON' || true
import json, os, sys
try:
    with open(sys.argv[1], encoding="utf-8") as file:
        path = json.load(file).get("record")
except (OSError, ValueError):
    path = None
if path:
    path = os.path.join(sys.argv[2], path)
    if os.path.isfile(path):
        print(os.path.realpath(path))
PYTHON
)
if [ -z "$record" ]; then
    [ "$run_code" -ne 0 ] || run_code=3
    refit_stop "$run_code" "The run left no record in $results; its messages above say why."
fi

report="${record%.h5}-report"
report_code=0
refit_phase report write_report || report_code=$?
if [ "$report_code" -ne 0 ]; then
    [ "$run_code" -ne 0 ] || run_code=3
    refit_stop "$run_code" "The run ended and its record is $record, but the report could not be written."
fi
for page in index.html report.html report.md; do
    if [ -f "$report/$page" ]; then
        report="$report/$page"
        break
    fi
done
printf 'record: %s\nreport: %s\n' "$record" "$report"
exit "$run_code"
