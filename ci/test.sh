#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
#
# From a fresh Debian 12 machine to a finished test run; what CI runs and what a developer runs.
#   ci/test.sh          everything but the label "slow"
#   ci/test.sh --slow   everything
# The last line is "N passed, N failed, N skipped". Exit code 1 when anything failed; a phase that
# could not run counts as failed. Budget: 25 minutes on 2 cores from nothing.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

slow=false
for argument in "$@"; do
    case $argument in
    --slow) slow=true ;;
    -h | --help)
        sed -n '5,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *) refit_stop 2 "ci/test.sh: unknown option '$argument'; known: --slow, --help" ;;
    esac
done

results="$REFIT_BUILD/test-results"
asan_build="$REFIT_BUILD/asan"
# With sanitizers files compile at half the speed: the ordinary run has the folders nearest to raw memory
# and to files of others.
asan_folders=(kernels weights)
if $slow; then asan_folders+=(core wire quant checks trainer receiver); fi

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1

# phase NAME JUNIT COMMAND...: runs one phase and notes its exit code and its JUnit file ("-": none,
# the phase then counts as one test) for the summary.
phase() {
    local name=$1 junit=$2 code=0
    shift 2
    refit_phase "$name" "$@" || code=$?
    printf '%s\t%s\t%s\t%s\n' "$name" "$code" "$refit_phase_seconds" "$junit" >>"$results/phases.tsv"
    return "$code"
}

# not_run NAME REASON: a phase that another one's failure made impossible.
not_run() {
    refit_say "$1: did not run, $2"
    printf '%s\t%s\t%s\t%s\n' "$1" "not-run" 0 "$2" >>"$results/phases.tsv"
}

install_pip_packages() {
    local name
    while read -r name; do
        if ! "$REFIT_PYTHON" -c "import ${name%%[>=<]*}" 2>/dev/null; then
            # --no-deps: a newer numpy beside Debian's would break Debian's scipy and h5py.
            "$REFIT_PYTHON" -m pip install --quiet --no-deps --retries 1 --timeout 15 "$name" ||
                refit_say "pip could not install $name (above); tests that need it are skipped"
        fi
    done < <(refit_package_names "$REFIT_ROOT/ci/pip-test-packages.txt")
}

# Tracked and new files with one of the endings, NUL between them; without git, whatever is there.
source_files() {
    if git -c safe.directory='*' -C "$REFIT_ROOT" rev-parse --git-dir >/dev/null 2>&1; then
        git -c safe.directory='*' -C "$REFIT_ROOT" ls-files -z --cached --others --exclude-standard \
            -- "$@"
    else
        local pattern arguments=()
        for pattern in "$@"; do arguments+=(-o -name "$pattern"); done
        (cd "$REFIT_ROOT" && find . -path './build*' -prune -o \( "${arguments[@]:1}" \) -type f -print0)
    fi
}

check_format() {
    source_files '*.hpp' '*.cpp' '*.cu' '*.cuh' |
        (cd "$REFIT_ROOT" && while IFS= read -r -d '' file; do
            [ ! -f "$file" ] || printf '%s\0' "$file"
        done | xargs -0 --no-run-if-empty clang-format-14 --dry-run -Werror)
}

configure_release() {
    refit_configure "$REFIT_BUILD" -DCMAKE_BUILD_TYPE=Release -DREFIT_BUILD_TESTS=ON \
        -DREFIT_BUILD_MICROBENCH=ON -DREFIT_WERROR=ON
}

build_release() { cmake --build "$REFIT_BUILD" --parallel "$(refit_jobs)"; }

run_ctest() {
    local select=(-LE slow)
    if $slow; then select=(); fi
    # Unit tests are single processes; the mpi tests reserve PROCESSORS for their ranks.
    ctest --test-dir "$REFIT_BUILD" --output-on-failure --no-tests=error "${select[@]}" \
        --parallel "$(nproc)" --output-junit "$results/ctest.xml"
}

# run_pytest MARKERS JUNIT OPTION_OR_PATH...: the Python tests that the expression selects.
run_pytest() {
    local select=$1 junit=$2
    shift 2
    if ! $slow; then select="not slow and $select"; fi
    (cd "$REFIT_ROOT" && REFIT_BUILD_DIR="$REFIT_BUILD" "$REFIT_PYTHON" -m pytest -q -rs \
        -p no:cacheprovider -m "$select" --junitxml="$junit" "$@")
}

# Files with tests that run alone; only they are read, because collecting all takes half a minute.
files_alone() { (cd "$REFIT_ROOT" && grep -rl --include='test_*.py' 'pytest\.mark\.alone' tests); }

build_asan() {
    refit_configure "$asan_build" -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1 -g1" \
        -DREFIT_SANITIZE=address,undefined -DREFIT_BUILD_TESTS=ON -DREFIT_BUILD_MICROBENCH=OFF &&
        cmake --build "$asan_build" --parallel "$(refit_jobs)" --target "${asan_folders[@]/%/_test}"
}

run_asan() {
    # Test programs that were not built here appear as "..._NOT_BUILT" without a label.
    # A test asks for more memory than there is and expects the ordinary answer.
    ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 ctest --test-dir "$asan_build" --output-on-failure \
        --no-tests=error -L '^unit$' -LE slow -E '_NOT_BUILT$' --parallel "$(nproc)" \
        --output-junit "$results/asan.xml"
}

start=$(date +%s)
refit_phase setup refit_setup "$REFIT_ROOT/ci/debian-packages.txt" \
    "$REFIT_ROOT/ci/debian-packages-test.txt" || exit 3
rm -rf "$results"
mkdir -p "$results"
: >"$results/phases.tsv"
refit_phase "pip packages" install_pip_packages

phase "format" - check_format
for lint in layers words; do
    phase "lint $lint" - "$REFIT_PYTHON" "$REFIT_ROOT/ci/lint/check_$lint.py" "$REFIT_ROOT"
done

if phase "configure" - configure_release; then
    phase "lint headers" - "$REFIT_PYTHON" "$REFIT_ROOT/ci/lint/check_headers.py" "$REFIT_ROOT" \
        --build "$REFIT_BUILD" --jobs "$(refit_jobs)"
    if phase "build" - build_release; then
        phase "ctest" "$results/ctest.xml" run_ctest
        phase "pytest" "$results/pytest.xml" run_pytest "not alone" "$results/pytest.xml" \
            -n "$(nproc)" --dist loadfile tests/lint tests/reports tests/e2e
        mapfile -t alone < <(files_alone)
        phase "pytest alone" "$results/pytest-alone.xml" run_pytest "alone" \
            "$results/pytest-alone.xml" "${alone[@]}"
    else
        not_run "ctest" "because the build failed"
        not_run "pytest" "because the build failed"
    fi
else
    not_run "lint headers" "because configuring failed"
    not_run "build" "because configuring failed"
    not_run "ctest" "because configuring failed"
    not_run "pytest" "because configuring failed"
fi

if phase "asan build" - build_asan; then
    phase "asan ctest" "$results/asan.xml" run_asan
else
    not_run "asan ctest" "because its build failed"
fi

refit_say "total: $(($(date +%s) - start)) s"
"$REFIT_PYTHON" "$REFIT_ROOT/ci/summarize_tests.py" "$results/phases.tsv"
