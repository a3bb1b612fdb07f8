#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
#
# Everything that needs a GPU, for a machine that need not have MPI, HDF5 or a compiler.
#   ci/device.sh pack [FOLDER]            builds and packs programs, tests and libraries (default
#                                         build/device); also FOLDER.tar.gz, to carry over
#   FOLDER/device.sh run [--output DIR] [--elements N] [--minutes M]
#                                         runs all parts; DIR/results.tar.gz has every log. In a
#                                         checkout ci/device.sh run does so in build/device
# Bytes come first, speed second, transports and scenarios third, long parts last. Each part has a limit
# of its own, all together have M minutes (default 30): what does not fit any more is skipped. The
# archive is written after every part. The last comparison of bytes takes N random elements (default
# 1e9). Each part ends as passed, failed or skipped with its reason. Exit code: 1 when a part failed, 77
# when there is no device, else 0.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

usage() { sed -n '5,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

programs=(refitbench tests/device/device_test tests/unit/kernels/kernels_test
    tests/unit/quant/quant_test tests/mpi/transport_conformance)
# Components that need libraries of a fabric or a batch system, which the bare machine lacks too.
left_out='ucx|ofi|openib|psm|verbs|slurm|gridengine|flux|monitoring|java|spml|scoll|memheap|sshmem|atomic'

# The libraries that a file needs, one path a line.
libraries_of() { ldd "$@" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u; }

pack() {
    # shellcheck source=ci/setup.sh
    source "$here/setup.sh"
    local folder=${1:-$REFIT_BUILD/device} program component library mca pmix
    mca=$(ompi_info --parsable --path pkglibdir 2>/dev/null | sed -n 's/^path:pkglibdir://p')
    [ -d "$mca" ] || refit_stop 3 "ci/device.sh pack: Open MPI's components were not found ('$mca')."
    [ -f "$REFIT_BUILD/CMakeCache.txt" ] || refit_configure "$REFIT_BUILD" \
        -DCMAKE_BUILD_TYPE=Release -DREFIT_BUILD_TESTS=ON || exit 3
    local targets=("${programs[@]##*/}" refit_fake_device)
    if refit_cache_value "$REFIT_BUILD" benchmark_DIR | grep -qv NOTFOUND &&
        [ "$(refit_cache_value "$REFIT_BUILD" REFIT_BUILD_MICROBENCH)" = ON ]; then
        targets+=(refitbench-micro)
        programs+=(refitbench-micro)
    fi
    cmake --build "$REFIT_BUILD" --parallel "$(refit_jobs)" --target "${targets[@]}" >&2 || exit 3
    rm -rf "$folder" "$folder.tar.gz"
    mkdir -p "$folder"/{bin,lib,glibc,mca,pmix,share,etc,scenarios}
    for program in "${programs[@]}"; do
        cp "$REFIT_BUILD/$program" "$folder/bin/" && strip "$folder/bin/${program##*/}"
    done
    cp "$REFIT_BUILD/tests/librefit_fake_device.so" "$folder/bin/"
    cp "$(readlink -f "$(command -v mpirun)")" "$folder/bin/orterun"
    cp "$(command -v orted)" "$folder/bin/orted"
    for component in "$mca"/mca_*.so; do
        grep -qE "$left_out" <<<"${component##*/}" || cp "$component" "$folder/mca/"
    done
    pmix=$(libraries_of "$mca"/mca_pmix_ext3x.so | grep libpmix)
    if [ -n "$pmix" ] && [ -d "$(dirname "$(readlink -f "$pmix")")/pmix" ]; then
        cp "$(dirname "$(readlink -f "$pmix")")"/pmix/pmix_mca_*.so "$folder/pmix/"
        rm -f "$folder"/pmix/*{munge,slurm,ucx,flux}*.so
    fi
    cp -r /usr/share/openmpi "$folder/share/"
    cp -r /usr/share/pmix* "$folder/share/" 2>/dev/null
    cp /etc/openmpi/openmpi-default-hostfile "$folder/etc/"
    : >"$folder/etc/openmpi-mca-params.conf"
    for library in $(libraries_of "$folder"/bin/* "$folder"/mca/* "$folder"/pmix/*); do
        case ${library##*/} in
        # With the loader of their own, for a machine whose C library is older than this one's.
        ld-linux*|libc.so*|libm.so*|libpthread.so*|libdl.so*|librt.so*|libutil.so*|libresolv.so*|libanl.so*)
            cp -L "$library" "$folder/glibc/" ;;
        *) cp -L "$library" "$folder/lib/" ;;
        esac
    done
    cp -L /lib64/ld-linux-x86-64.so.2 "$folder/glibc/"
    cp "$here/device.sh" "$folder/"
    cp -r "$here/device" "$folder/peers"
    cp -r "$REFIT_ROOT/tests/golden" "$folder/golden"
    cp "$REFIT_ROOT"/scenarios/smoke/{loopback,mpi}.yaml "$folder/scenarios/"
    git -c safe.directory='*' -C "$REFIT_ROOT" describe --always --dirty >"$folder/COMMIT" 2>/dev/null
    tar -C "$(dirname "$folder")" -czf "$folder.tar.gz" "$(basename "$folder")"
    refit_say "$(du -sh "$folder" | cut -f1) in $folder, $(du -h "$folder.tar.gz" | cut -f1) in $folder.tar.gz"
}

# Where this machine has the driver's library, unless its loader finds it anyway.
driver_folder() {
    local folder
    folder=$(ldconfig -p 2>/dev/null | sed -n 's/.*libcuda\.so\.1.*=> \(.*\)\/[^/]*$/\1/p' | head -1)
    for folder in "$folder" /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/local/nvidia/lib64 /usr/local/nvidia/lib \
        /usr/lib/wsl/lib /usr/local/cuda/compat; do
        if [ -n "$folder" ] && [ -e "$folder/libcuda.so.1" ]; then
            printf '%s\n' "$folder"
            return
        fi
    done
}

# Environment of the relocated Open MPI and of our libraries. `loader` goes in front of a program.
relocate() {
    export OPAL_PREFIX="$here" OPAL_BINDIR="$here/bin" OPAL_LIBDIR="$here/lib" OPAL_PKGLIBDIR="$here/mca"
    export OPAL_DATADIR="$here/share" OPAL_DATAROOTDIR="$here/share" OPAL_SYSCONFDIR="$here/etc"
    export OPAL_PKGDATADIR="$here/share/openmpi"
    export OMPI_MCA_mca_base_component_path="$here/mca" PMIX_MCA_mca_base_component_path="$here/pmix"
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
    # One node only: no shell on another machine is asked for, and none need exist.
    export OMPI_MCA_plm=isolated OMPI_MCA_btl=self,vader,tcp OMPI_MCA_pml=ob1
    export REFIT_GOLDEN_DIR="$here/golden" PATH="$here/bin:$PATH" LC_ALL=C.UTF-8
    local system
    system=$(driver_folder)
    export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    loader=()
    if [ -n "${REFIT_OWN_LOADER:-}" ] || ! "$here/bin/refitbench" --version >/dev/null 2>&1; then
        # The C library here is older (or REFIT_OWN_LOADER asks for it): take ours, with the loader that belongs to it. The driver's
        # libraries are found where this machine's loader would look.
        loader=("$here/glibc/ld-linux-x86-64.so.2" --library-path
            "$here/glibc:$LD_LIBRARY_PATH${system:+:$system}")
        unset LD_LIBRARY_PATH
    elif [ -n "$system" ] && ! ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'; then
        LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$system"
    fi
}

passed=0 failed=0 skipped=0
running=""  # process group of the part that runs

note() { # note STATE PART REASON
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" | tee -a "$results/parts.tsv"
    case $1 in passed) passed=$((passed + 1)) ;; failed) failed=$((failed + 1)) ;; *) skipped=$((skipped + 1)) ;; esac
}

# Every log so far; a run that is ended from outside leaves what it has.
save() {
    tar -C "$(dirname "$results")" --exclude=results.tar.gz -czf "$results.tar.gz.part" "$(basename "$results")" 2>/dev/null &&
        mv "$results.tar.gz.part" "$results/results.tar.gz"
}

# bounded SECONDS COMMAND...: the command (or function) in a process group of its own, which ends with
# 124 when the time is over. timeout(1) cannot run functions.
bounded() {
    local limit=$1 pid end
    shift
    set -m
    ("$@") &
    pid=$!
    set +m
    running=$pid
    end=$((SECONDS + limit))
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$SECONDS" -ge "$end" ]; then
            kill -TERM -- "-$pid" 2>/dev/null
            sleep 3
            kill -KILL -- "-$pid" 2>/dev/null
            wait "$pid" 2>/dev/null
            return 124
        fi
        sleep 0.05
    done
    wait "$pid"
}

# part NAME SECONDS COMMAND...: one part, bounded; 77 is skipped, with the last reason that its log gives.
part() {
    local name=$1 limit=$2 log code=0 reason start left=$((deadline - SECONDS))
    shift 2
    if [ "$left" -lt 15 ]; then
        note skipped "$name" "no time is left; give more with --minutes"
        return
    fi
    [ "$limit" -le "$left" ] || limit=$left
    log="$results/$name.log"
    start=$(date +%s)
    bounded "$limit" "$@" >"$log" 2>&1 || code=$?
    if [ "$code" -eq 0 ] && grep -q '^\[  PASSED  \] 0 tests' "$log"; then code=77; fi
    # gtest says the reason before "[  SKIPPED ]", the program says it in its line for the case.
    reason=$(grep -E 'no CUDA|no NCCL|not compiled|Duplicate GPU|same GPU|NCCL_MULTI_RANK|^skipped: ' "$log" | head -1)
    [ -n "$reason" ] || reason=$(grep -iE 'skipp|not viable' "$log" | grep -vE '^\[|: Skipped$' | head -1)
    reason=${reason##*skipped: }
    case $code in
    0) note passed "$name" "$(($(date +%s) - start)) s" ;;
    77) note skipped "$name" "${reason:-the program says that nothing could run}" ;;
    124) note failed "$name" "no end after $limit s; $log" ;;
    *) note failed "$name" "exit code $code; $log: $(grep -E 'error|Failure|FAILED' "$log" | head -1)" ;;
    esac
    save
}

mpi() { # mpi RANKS PROGRAM ARGUMENTS...
    local ranks=$1
    shift
    "${loader[@]}" "$here/bin/orterun" --oversubscribe -np "$ranks" "${loader[@]}" "$@"
}

gpus() { timeout 30 nvidia-smi -L 2>/dev/null | grep -c '^GPU'; }

conformance() { # conformance TRANSPORT RANKS
    REFIT_CONFORMANCE_TRANSPORTS=$1 mpi "$2" "$here/bin/transport_conformance" --gtest_filter='Mpi/*'
}

# The device transports over the driver and the NCCL of our own (tests/support/fake_device.cpp).
bookkeeping() {
    export REFIT_CUDA_LIBRARY="$here/bin/librefit_fake_device.so" REFIT_NCCL_LIBRARY="$here/bin/librefit_fake_device.so"
    conformance nccl,cuda_ipc 2
}

scenario() { # scenario RANKS FILE NAME KEY=VALUE...
    local ranks=$1 file=$2 name=$3 set=()
    shift 3
    for key in "$@"; do set+=(--set "$key"); done
    if [ "$ranks" -eq 1 ]; then
        "${loader[@]}" "$here/bin/refitbench" run "$file" "${set[@]}" --output "$results/records" --json "$results/$name.json"
    else
        mpi "$ranks" "$here/bin/refitbench" run "$file" "${set[@]}" --output "$results/records" --json "$results/$name.json"
    fi
}

run() {
    local output="" elements=1e9 minutes=30 devices python=""
    while [ $# -gt 0 ]; do
        case $1 in
        --output) output=$2; shift 2 ;;
        --elements) elements=$2; shift 2 ;;
        --minutes) minutes=$2; shift 2 ;;
        *) echo "ci/device.sh run: unknown option '$1'; known: --output, --elements, --minutes" >&2; exit 2 ;;
        esac
    done
    if ! [[ $minutes =~ ^[1-9][0-9]*$ ]]; then
        echo "ci/device.sh run: --minutes is '$minutes', expected a whole number above 0" >&2
        exit 2
    fi
    if [ ! -x "$here/bin/refitbench" ]; then
        # In a checkout: through the same folder, so that both ways run the same thing.
        local folder="$here/../build/device"
        [ -x "$folder/bin/refitbench" ] || bash "$here/device.sh" pack "$folder" || exit 3
        exec bash "$folder/device.sh" run ${output:+--output "$output"} --elements "$elements" --minutes "$minutes"
    fi
    deadline=$((SECONDS + 60 * minutes))
    results=${output:-$PWD/device-results}
    mkdir -p "$results" && results=$(cd "$results" && pwd -P) || exit 3
    : >"$results/parts.tsv"
    trap '[ -z "$running" ] || kill -TERM -- "-$running" 2>/dev/null; save; exit 130' INT TERM
    relocate
    { cat "$here/COMMIT"; uname -a; timeout 30 nvidia-smi 2>&1; "${loader[@]}" "$here/bin/refitbench" --version; } >"$results/machine.txt" 2>&1
    timeout 60 "${loader[@]}" "$here/bin/refitbench" list transports >"$results/transports.txt" 2>&1
    timeout 60 "${loader[@]}" "$here/bin/refitbench" list backends --json - >"$results/backends.json" 2>/dev/null
    devices=$(gpus)
    # A Python with PyTorch often brings the newest NCCL of the machine.
    for candidate in python3 python /opt/conda/bin/python; do
        command -v "$candidate" >/dev/null || continue
        [ -n "$python" ] || python=$(command -v "$candidate")
        if env -u LD_LIBRARY_PATH timeout 60 "$candidate" -c 'import torch' 2>/dev/null; then
            python=$(command -v "$candidate")
            break
        fi
    done
    if [ -z "${REFIT_NCCL_LIBRARY:-}" ] && [ -n "$python" ]; then
        REFIT_NCCL_LIBRARY=$(env -u LD_LIBRARY_PATH timeout 60 "$python" -c 'import nvidia.nccl as n, pathlib; print(pathlib.Path(n.__path__[0]) / "lib" / "libnccl.so.2")' 2>/dev/null)
        if [ -n "$REFIT_NCCL_LIBRARY" ]; then export REFIT_NCCL_LIBRARY; else unset REFIT_NCCL_LIBRARY; fi
    fi

    # No device needed: proves that the folder works here at all.
    part host-loopback 60 scenario 1 "$here/scenarios/loopback.yaml" host-loopback
    part host-mpi 60 scenario 4 "$here/scenarios/mpi.yaml" host-mpi

    # Bytes. The random elements, which take longest, come last.
    part bytes-device 240 "${loader[@]}" "$here/bin/device_test" --gtest_filter='-*OnRandomElements*'
    part bytes-backend 120 "${loader[@]}" "$here/bin/kernels_test" --gtest_filter='*EveryBackend*/cuda'
    local works=""
    grep -q $'^passed\tbytes-device' "$results/parts.tsv" && works=yes
    on_device bytes-golden 120 "${loader[@]}" "$here/bin/quant_test" --gtest_filter='*GoldenRecipe*'

    # Speed: one recipe of each kind, its limit beside it; then what others reach here.
    micro speed 180 '^(limit|nonfinite|nan_codes|check|dequantize|amax|quantize)/((copy|elements|prime-rl-blockwise|prime-rl-channelwise|tensorwise|mxfp8)/)?cuda/' 0.1
    peer peer_speed 180
    peer second_opinions 120

    part ipc-np2 120 conformance cuda_ipc 2
    # Ranks that share a device need NCCL 2.30; older ones refuse, and the part says so.
    [ "${devices:-0}" -ge 2 ] || export NCCL_MULTI_RANK_GPU_ENABLE=1
    part nccl-np2 120 conformance nccl 2
    part scenario-cuda 120 scenario 1 "$here/scenarios/loopback.yaml" scenario-cuda backend=cuda
    part scenario-cuda-ipc 120 scenario 4 "$here/scenarios/mpi.yaml" scenario-cuda-ipc backend=cuda transport.name=cuda_ipc
    part scenario-nccl 120 scenario 4 "$here/scenarios/mpi.yaml" scenario-nccl backend=cuda transport.name=nccl
    part ipc-np4 120 conformance cuda_ipc 4
    if [ "${devices:-0}" -ge 4 ]; then part nccl-np4 120 conformance nccl 4; else
        note skipped nccl-np4 "4 ranks need 4 devices, found ${devices:-0}"
    fi

    for tool in memcheck racecheck synccheck; do sanitizer "$tool" 180; done
    on_device bytes-random 600 env "REFIT_DEVICE_ELEMENTS=$elements" "${loader[@]}" "$here/bin/device_test" --gtest_filter='*OnRandomElements*'
    micro microbench 600 /cuda/ 0.3
    part host-bookkeeping 240 bookkeeping

    save
    echo "# results: $results/results.tar.gz"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ] || exit 1
    [ -n "$works" ] || exit 77
}

# on_device NAME SECONDS COMMAND...: a part that is asked for only where the device gave the right bytes.
on_device() {
    if [ -n "$works" ]; then
        part "$@"
    else
        note skipped "$1" "no device that works (bytes-device)"
    fi
}

micro() { # micro NAME SECONDS FILTER SECONDS_EACH
    if [ ! -x "$here/bin/refitbench-micro" ]; then
        note skipped "$1" "refitbench-micro was not built when this folder was packed"
    else
        on_device "$1" "$2" "${loader[@]}" "$here/bin/refitbench-micro" --benchmark_filter="$3" \
            --benchmark_min_time="$4" --benchmark_out="$results/$1.json" --benchmark_out_format=json
    fi
}

sanitizer() { # sanitizer TOOL SECONDS: the small tests of the kernels under compute-sanitizer
    local program
    program=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
    if [ -z "$program" ]; then
        note skipped "sanitizer-$1" "compute-sanitizer is not on this machine"
    elif [ "${#loader[@]}" -gt 0 ]; then
        note skipped "sanitizer-$1" "compute-sanitizer cannot start a program with a loader of its own"
    else
        on_device "sanitizer-$1" "$2" "$program" --tool "$1" --error-exitcode 9 "$here/bin/device_test" \
            --gtest_filter='DeviceKernels.*:Queues.*'
    fi
}

peer() { # peer SCRIPT SECONDS
    if [ ! -f "$here/peers/$1.py" ]; then
        note skipped "$1" "it is not in this folder"
    elif [ -z "$python" ]; then
        note skipped "$1" "no Python on this machine"
    else
        part "$1" "$2" env -u LD_LIBRARY_PATH "$python" "$here/peers/$1.py"
    fi
}

case ${1:-} in
pack | run)
    command=$1
    shift
    "$command" "$@"
    ;;
-h | --help) usage ;;
*)
    usage >&2
    exit 2
    ;;
esac
