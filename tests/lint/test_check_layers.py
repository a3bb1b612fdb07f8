# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
import check_layers
import pytest


@pytest.mark.parametrize(
    "path, line, said",
    [
        ("src/trainer/a.cpp", '#include "receiver/weight_loader.hpp"', "trainer must not include"),
        ("src/receiver/a.cpp", '#include "trainer/eligibility.hpp"', "receiver must not include"),
        ("src/receiver/a.cpp", '#include "kernels/cuda/device_queue.hpp"', "receiver must not include"),
        ("src/receiver/device_loader.hpp", '#include "kernels/backend.hpp"', "receiver must not include"),
        ("src/receiver/engines/a.cpp", '#include "transport/transport.hpp"', "receiver must not"),
        ("src/trainer/a.cpp", '#include "transport/transport.hpp"', "trainer must not include"),
        ("src/checks/a.cpp", '#include "quant/recipe.hpp"', "checks must not include"),
        ("src/checks/a.cpp", '#include "kernels/backend.hpp"', "checks must not include"),
        ("src/core/a.hpp", '#include "model/tensor_spec.hpp"', "core must not include"),
        ("kernels/a.hpp", '#include "core/shape.hpp"', "kernels must not include"),
        ("src/wire/a.cpp", '#include "harness/scenario.hpp"', "wire must not include"),
        ("src/wire/a.cpp", '#include "packing.hpp"', "include root"),
        ("src/wire/a.cpp", '#include "tests/support/peer_group.hpp"', "nothing includes tests"),
        ("src/plumbing/a.cpp", '#include "core/shape.hpp"', "no row in the dependency table"),
        ("src/record/a.cpp", "#include <mpi.h>", "MPI header"),
        ("harness/run.cpp", "#include <mpi.h>", "MPI header"),
        ("src/transport/mpi/a.cpp", "#include <nccl.h>", "NCCL header"),
        ("src/quant/a.cpp", "#include <cuda_fp8.h>", "CUDA header"),
        ("src/record/run_record.cpp", "#include <hdf5.h>", "HDF5 header"),
        ("src/record/run_record.cpp", "#include <hdf5_hl.h>", "HDF5 header"),
        ("harness/run.cpp", "#include <yaml-cpp/yaml.h>", "yaml-cpp header"),
        ("harness/main.cpp", "#include <CLI/CLI.hpp>", "CLI11 header"),
        ("src/quant/a.cpp", "#  include <immintrin.h>", "intrinsics header"),
        ("kernels/numerics/a.hpp", "#include <immintrin.h>", "intrinsics header"),
        ("kernels/cpu/a.cpp", "#include <fmt/core.h>", "not standard C++"),
        ("src/model/a.hpp", "#include <nlohmann/json.hpp>", ".cpp file"),
        ("src/model/a.cpp", "#include <gtest/gtest.h>", "GoogleTest header"),
    ],
)
def test_finds_a_planted_include(tree, path, line, said):
    root = tree({path: f"#pragma once\n{line}\n"})

    problems = check_layers.check_tree(root)

    assert len(problems) >= 1
    assert problems[0].startswith(f"{path}:3: ")
    assert any(said in problem for problem in problems), problems
    assert check_layers.main([str(root)]) == 1


def test_accepts_what_the_table_allows(tree, capsys):
    root = tree({
        "kernels/cpu/avx2.cpp": '#include <immintrin.h>\n#include <vector>\n#include "kernels/a.hpp"\n',
        "src/transport/mpi/a.cpp": '#include <mpi.h>\n#include "wire/bucket.hpp"\n',
        "src/transport/mpi_window/a.cpp": '#include <mpi.h>\n#include "transport/transport.hpp"\n',
        "src/record/hdf5/table.cpp": "#include <hdf5.h>\n#include <hdf5_hl.h>\n",
        "src/record/build_info.cpp": '#include "refit_git_state.hpp"\n',
        "src/checks/a.cpp": '#include "weights/weight_source.hpp"\n#include "receiver/a.hpp"\n',
        "src/model/hf_config.cpp": "#include <nlohmann/json.hpp>\n#include <fmt/core.h>\n",
        "harness/world.cpp": '#include <mpi.h>\n#include "trainer/a.hpp"\n#include "receiver/a.hpp"\n',
        "harness/scenario.cpp": "#include <yaml-cpp/yaml.h>\n",
        "tests/unit/quant/a_test.cpp": "#include <cuda_fp8.h>\n#include <gtest/gtest.h>\n",
        "src/quant/a.cpp": '// #include "receiver/a.hpp" is not an include\n',
        "src/receiver/device_loader.hpp": '#include "kernels/cuda/device_queue.hpp"\n',
    })

    assert check_layers.check_tree(root) == []
    assert check_layers.main([str(root)]) == 0
    assert capsys.readouterr().out == ""


def test_the_table_has_no_cycle():
    layers = dict(check_layers.ALLOWED)
    while layers:
        lowest = [name for name, below in layers.items() if not below & (set(layers) - {name})]
        assert lowest, f"these folders include each other in a circle: {sorted(layers)}"
        for name in lowest:
            del layers[name]
