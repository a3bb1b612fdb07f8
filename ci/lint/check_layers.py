# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Holds the #include lines to the dependency table and the fences of CONTRIBUTING.md.

    check_layers.py ROOT

One line a violation, "file:line: what, and what is allowed"; exit code 1 when there is one.
CMake links each folder to its row of the same table; this lint also sees headers that need no linking.
"""

import pathlib
import re
import sys

import source_tree

# What a folder may include, besides itself. Trainer, receiver and transport do not see each other: in
# reality they are separate programs, and a check that passes because both sides called one function
# proves nothing. For the same reason checks sees neither quant nor kernels.
ALLOWED = {
    "kernels": set(),
    "core": {"kernels"},
    "model": {"core"},
    "parallel": {"core"},
    "weights": {"model", "core"},
    "quant": {"kernels", "model", "core"},
    "wire": {"model", "quant", "parallel", "core"},
    "trainer": {"weights", "parallel", "quant", "wire", "model", "core", "kernels"},
    "transport": {"wire", "core"},
    "receiver": {"parallel", "quant", "wire", "model", "core"},
    "checks": {"weights", "receiver", "wire", "model", "core"},
    "record": {"checks", "core"},
}
ALLOWED["harness"] = set(ALLOWED)

# One file and the one header that it may include beyond its row. The loader of the device moves, digests and
# widens bytes where they lie; that header has a quantizer too, which only trainers call.
EXCEPTIONS = {"src/receiver/device_loader.hpp": "kernels/cuda/device_queue.hpp"}

# Foreign headers and the places that may include them: a path, or a folder with a slash at its end.
FENCES = [
    ("MPI", re.compile(r"mpi\.h$|mpi/"), ["src/transport/mpi/", "src/transport/mpi_window/",
     "harness/world.cpp", "harness/rank_agreement.cpp", "tests/"]),
    ("NCCL", re.compile(r"nccl"), ["src/transport/nccl/", "tests/"]),
    ("CUDA", re.compile(r"(cuda|cub/|thrust/|cooperative_groups|nvml|nvToolsExt)"),
     ["kernels/cuda/", "src/transport/nccl/", "src/transport/cuda_ipc/", "tests/"]),
    ("HDF5", re.compile(r"(hdf5|H5)"), ["src/record/hdf5/"]),
    ("yaml-cpp", re.compile(r"yaml-cpp/"), ["harness/scenario.cpp"]),
    ("CLI11", re.compile(r"CLI/"), ["harness/command_line.cpp", "harness/command_options.cpp"]),
    ("intrinsics", re.compile(r"(\w*mmintrin\.h|immintrin\.h|x86intrin\.h|arm_neon\.h|arm_sve\.h)$"),
     # The microbenchmarks measure the machine's copy limit with the stores that the fast paths use.
     # The element check has arithmetic of its own: it must not be that of the kernels.
     ["kernels/cpu/", "harness/microbench/", "src/checks/element_block_fma.cpp"]),
    ("Google Benchmark", re.compile(r"benchmark/"), ["harness/microbench/"]),
    ("GoogleTest", re.compile(r"(gtest|gmock)/"), ["tests/"]),
]

# Of the C library, kernels may use what has no C++ name.
_KERNELS_FOREIGN = {"kernels/cpu/": re.compile(r"(\w*intrin\.h|cpuid\.h|arm_\w+\.h)$"),
                    "kernels/cuda/": re.compile(r"(cuda|cub/|cooperative_groups)")}

# Headers that CMake writes into the build folder, such as the state of the work tree.
_GENERATED = re.compile(r"refit_\w+\.hpp")

_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
_ENDINGS = (".hpp", ".cpp", ".cu", ".cuh", ".h")


def layer_of(path):
    """The row of the table that the file `path` belongs to, or None (tests, scripts)."""
    parts = pathlib.PurePosixPath(path).parts
    if parts[0] in ("kernels", "harness"):
        return parts[0]
    if parts[0] == "src" and len(parts) > 2:
        return parts[1]
    return None


def _inside(path, places):
    return any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)


def check_include(path, bracket, name):
    """The reasons why the file `path` must not include `name`; empty where it may."""
    problems = []
    layer = layer_of(path)
    for what, pattern, places in FENCES:
        own = bracket == '"' and name.split("/")[0] in ALLOWED
        if not own and pattern.match(name) and not _inside(path, places):
            problems.append(f"{what} header {name} is only for {', '.join(places)}")
    if layer is None:
        return problems
    if layer not in ALLOWED:
        return problems + [f"folder src/{layer} has no row in the dependency table"]
    if name.startswith("nlohmann/") and name != "nlohmann/json_fwd.hpp" and path.endswith(".hpp"):
        problems.append(f"{name} costs seconds a translation unit; include it in the .cpp file")
    if bracket == '"':
        target = name.split("/")[0]
        if target == "tests" or name.startswith("support/"):
            problems.append(f"{name}: nothing includes tests")
        elif target not in ALLOWED and not _GENERATED.fullmatch(name):
            problems.append(f'"{name}": write own headers from an include root, as "core/shape.hpp"')
        elif EXCEPTIONS.get(path) == name:
            pass
        elif target in ALLOWED and target != layer and target not in ALLOWED[layer]:
            allowed = ", ".join(sorted(ALLOWED[layer])) or "only the standard library"
            problems.append(f"{layer} must not include {name}; it may include {allowed}")
    elif layer == "kernels" and not re.fullmatch(r"[a-z_0-9]+", name):
        if not any(path.startswith(place) and pattern.match(name)
                   for place, pattern in _KERNELS_FOREIGN.items()):
            problems.append(f"kernels must build on a bare machine: <{name}> is not standard C++")
    return problems


def check_tree(root):
    """All violations below `root` as printable lines."""
    problems = []
    for path in source_tree.source_files(root):
        if not path.endswith(_ENDINGS):
            continue
        text = (pathlib.Path(root) / path).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            match = _INCLUDE.match(line)
            if match:
                reasons = check_include(path, match.group(1), match.group(2))
                problems += [f"{path}:{number}: {reason}" for reason in reasons]
    return problems


def main(arguments):
    """Prints the violations below the folder named by the only argument."""
    problems = check_tree(arguments[0])
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
