# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in the safetensors format as the source of the weights of a run."""

import json

import numpy
import pytest
from checkpoints import (checkpoint_run, llama_config, llama_shapes, read_safetensors, write_checkpoint,
                         write_safetensors)

TENSOR = "model.layers.0.mlp.down_proj.weight"


def rewritten(folder, change):
    """Writes the checkpoint again after `change` has had its `{name: (dtype, array)}`."""
    path = folder / "model.safetensors"
    tensors = {name: (dtype, numpy.frombuffer(content, "<u2").reshape(shape).copy())
               for name, (dtype, shape, content) in read_safetensors(path).items()}
    change(tensors)
    write_safetensors(path, tensors)


@pytest.mark.parametrize("np, trainers, tp, transport", [(None, 1, 1, "loopback"), (4, 2, 2, "mpi")])
def test_a_checkpoint_runs(refitbench, checkpoint, np, trainers, tp, transport):
    case = refitbench.run(checkpoint_run(checkpoint, trainers, tp, transport),
                          np=np).expect(0).json["cases"][0]

    shapes = llama_shapes(llama_config())
    assert case["tensors"] == len(shapes)
    assert case["bytes_bf16"] == 2 * sum(int(numpy.prod(shape)) for shape in shapes.values())


def test_a_checkpoint_of_the_safetensors_package_in_two_files_runs(refitbench, checkpoint):
    package = pytest.importorskip("safetensors", reason="the safetensors package is not installed")
    path = checkpoint / "model.safetensors"
    parts, weight_map = [{}, {}], {}
    for index, (name, (_, shape, content)) in enumerate(read_safetensors(path).items()):
        parts[index % 2][name] = {"dtype": "bfloat16", "shape": list(shape), "data": content}
        weight_map[name] = f"model-{index % 2 + 1:05}-of-00002.safetensors"
    path.unlink()
    for index, part in enumerate(parts):
        package.serialize_file(part, str(checkpoint / f"model-{index + 1:05}-of-00002.safetensors"),
                               {"format": "pt"})
    (checkpoint / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")

    refitbench.run(checkpoint_run(checkpoint)).expect(0)


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_a_truncated_checkpoint_is_3(refitbench, checkpoint, keep):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])

    refitbench.run(checkpoint_run(checkpoint)).expect(3).expect_said("model.safetensors")


def test_bytes_after_the_last_tensor_are_3(refitbench, checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0\0\0\0")

    refitbench.run(checkpoint_run(checkpoint)).expect(3).expect_said("model.safetensors")


@pytest.mark.parametrize("np, trainers, transport", [(None, 1, "loopback"), (3, 2, "mpi")])
@pytest.mark.parametrize("what", ["missing", "of another shape", "of another dtype"])
def test_a_wrong_tensor_in_a_sound_checkpoint_is_a_finding(refitbench, checkpoint, what, np, trainers,
                                                           transport):
    def change(tensors):
        if what == "missing":
            del tensors[TENSOR]
        elif what == "of another shape":
            tensors[TENSOR] = ("BF16", tensors[TENSOR][1][:, :-128])
        else:
            tensors[TENSOR] = ("F8_E4M3", numpy.zeros(tensors[TENSOR][1].shape, numpy.uint8))
    rewritten(checkpoint, change)

    run = refitbench.run(checkpoint_run(checkpoint, trainers, 1, transport), np=np).expect(1).json

    findings = run["cases"][0]["findings"]
    assert run["verdict"] == "fail"
    assert {finding["tensor"] for finding in findings} == {TENSOR}, findings


def test_a_missing_config_is_3(refitbench, checkpoint):
    (checkpoint / "config.json").unlink()

    refitbench.run(checkpoint_run(checkpoint)).expect(3).expect_said("config.json")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"architectures": ["NoSuchModel"]}'])
def test_a_broken_config_is_refused_by_name(refitbench, checkpoint, text):
    (checkpoint / "config.json").write_text(text, encoding="utf-8")

    refitbench.run(checkpoint_run(checkpoint)).expect(2, 3).expect_said("config.json")


def test_paths_of_set_are_those_of_the_working_directory(refitbench, tmp_path):
    write_checkpoint(tmp_path / "here", llama_config(layers=1))
    (tmp_path / "scenarios").mkdir()
    path = tmp_path / "scenarios" / "any.yaml"
    path.write_text(checkpoint_run("nowhere").replace("nowhere/config.json", "../here/config.json"),
                    encoding="utf-8")

    refitbench("run", path, "--output", refitbench.records).expect(3).expect_said("nowhere")
    refitbench("run", path, "--output", refitbench.records, "--set", "weights.path=here").expect(0)
