# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that public quantizers wrote, met by verify, identify, quantize and dequantize.

Slow: llm-compressor and ModelOpt are installed beside the Python with PyTorch and transformers,
unless REFIT_PEERS_QUANTIZERS_PYTHON names a Python that has all of them. The verdicts of `verify`
stand beside the loader classes of vLLM and SGLang.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy
import pytest
from checkpoints import read_safetensors
from test_engine_loaders import disagreement, loaders  # noqa: F401
from test_save_pretrained import peers_python  # noqa: F401
from test_verify_loaders import verify
from user_program import BUILD

pytestmark = pytest.mark.slow

WRITER = pathlib.Path(__file__).with_name("peers") / "quantize_with.py"
PACKAGES = ["llmcompressor", "nvidia-modelopt"]
DENSE = ["llama", "llama-tied", "mistral", "qwen2", "qwen3"]
EVERY = [*DENSE, "qwen3-moe", "deepseek-v3"]
# (tool, scheme): the recipe of its bytes, the models
CASES = {
    ("llmcompressor", "FP8_DYNAMIC"): ("llm-compressor-channel", EVERY),
    ("llmcompressor", "FP8"): ("llm-compressor-tensor", ["llama", "qwen3-moe"]),
    ("llmcompressor", "FP8_BLOCK"): ("llm-compressor-block", EVERY),
    ("llmcompressor", "FP8_DYNAMIC+kv"): ("llm-compressor-channel", ["llama", "qwen2", "qwen3"]),
    ("llmcompressor", "MXFP8"): ("llm-compressor-mxfp8", ["llama"]),
    ("modelopt", "FP8_DEFAULT_CFG"): ("modelopt-fp8-cpu", EVERY),
    ("modelopt", "FP8_DEFAULT_CFG+kv"): ("modelopt-fp8-cpu", ["llama", "qwen3"]),
    ("modelopt", "FP8_PER_CHANNEL_PER_TOKEN_CFG"): ("modelopt-pc-pt-cpu", EVERY),
    ("modelopt", "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG"): ("modelopt-pb-wo-cpu", EVERY),
    ("modelopt", "MXFP8_DEFAULT_CFG"): ("mxfp8-ceil", ["llama"]),
    ("transformers", "FP8_BLOCK"): ("transformers-blockwise", DENSE),
}
ROWS = [(tool, scheme, recipe, kind)
        for (tool, scheme), (recipe, kinds) in CASES.items() for kind in kinds]
ENGINES = {("vllm", "compressed-tensors"): "vllm-compressed-tensors", ("vllm", "fp8"): "vllm-fp8",
           ("vllm", "modelopt"): "vllm-modelopt", ("sglang", "fp8"): "sglang-fp8",
           ("sglang", "compressed-tensors"): "sglang-compressed-tensors"}


@pytest.fixture(scope="module")
def quantizers_python(peers_python):  # noqa: F811
    """A Python with PyTorch, transformers, llm-compressor and ModelOpt."""
    def has_all(python):
        return subprocess.run([python, "-c", "import torch, llmcompressor, modelopt.torch.export"],
                              capture_output=True, check=False, cwd=BUILD).returncode == 0

    chosen = os.environ.get("REFIT_PEERS_QUANTIZERS_PYTHON")
    if chosen:
        if not has_all(chosen):
            pytest.fail(f"REFIT_PEERS_QUANTIZERS_PYTHON={chosen} lacks one of {PACKAGES}",
                        pytrace=False)
        return chosen
    place = BUILD / "peers-quantizers"
    python = place / "bin" / "python"
    if not (python.exists() and has_all(python)):
        packages = subprocess.run(
            [peers_python, "-c", "import torch; print(torch.__path__[0])"], text=True,
            capture_output=True, check=True).stdout.strip()
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        for folder in place.glob("lib/python*/site-packages"):
            (folder / "peers.pth").write_text(str(pathlib.Path(packages).parent), encoding="utf-8")
        install = subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES],
                                 capture_output=True, text=True, check=False)
        if install.returncode != 0 or not has_all(python):
            pytest.skip("llm-compressor and ModelOpt could not be installed: "
                        + (install.stderr.strip().splitlines() or ["no word from pip"])[-1])
    return str(python)


@pytest.fixture(scope="module")
def written(peers_python, quantizers_python, tmp_path_factory):  # noqa: F811
    """{tool: folder with what it wrote}, made when a tool is first asked for.

    transformers is that of the peers: the others pin older releases, of which 5.17.0 computes other scales.
    """
    folders = {}

    def of(tool):
        if tool not in folders:
            folders[tool] = tmp_path_factory.mktemp(tool)
            pairs = [f"{kind}:{scheme}" for name, scheme, _, kind in ROWS if name == tool]
            python = peers_python if tool == "transformers" else quantizers_python
            done = subprocess.run([python, WRITER, tool, folders[tool], *pairs],
                                  capture_output=True, text=True, check=False, cwd=BUILD,
                                  timeout=1800)
            assert done.returncode == 0, done.stderr[-2000:]
            print(tool, done.stdout.splitlines()[-1])
        return folders[tool]
    return of


def tensors_of(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= read_safetensors(path)
    return tensors


def scale_of(tensors, name):
    """(name of the scale, its tensor) of a weight."""
    (found,) = [name + leaf for leaf in ("_scale", "_scale_inv") if name + leaf in tensors]
    return found, tensors[found]


def codes_of(tensors):
    return [name for name, (dtype, _, _) in tensors.items() if dtype == "F8_E4M3"]


def shares_a_scale(recipe, name):
    """ModelOpt gives gate and up of an expert the larger maximum of the two, which no recipe of a matrix knows."""
    return recipe.startswith("modelopt-fp8") and ".experts." in name and not name.endswith(
        ".down_proj.weight")


@pytest.mark.parametrize("tool,scheme,recipe,kind", ROWS)
def test_the_recipe_gives_the_bytes_that_the_tool_wrote(refitbench, written, tool, scheme, recipe,
                                                        kind):
    folder = written(tool) / f"{kind}-{scheme}"
    source = written(tool) / kind / "model.safetensors"
    theirs = tensors_of(folder)
    target = refitbench.folder / "ours.safetensors"

    refitbench("quantize", "--recipe", recipe, "--input", source, "--output", target).expect(0)
    found = refitbench("identify", folder / "model.safetensors", "--reference", source, "--json",
                       "-").expect(0, 1).json["tensors"]

    ours, names = read_safetensors(target), codes_of(theirs)
    assert len(names) >= 14
    alone = [name for name in names if not shares_a_scale(recipe, name)]
    assert len(alone) >= 14
    for name in alone:
        assert ours[name] == theirs[name], name
        scale, tensor = scale_of(theirs, name)
        assert ours[scale] == tensor, name
    for name in set(names) - set(alone):
        partner = name.replace(".gate_proj", ".up_proj")
        assert scale_of(theirs, name)[1] == scale_of(theirs, partner)[1], name
    assert {row["tensor"] for row in found} == set(names)
    wrong = [row for row in found if recipe not in row["exact"] and row["tensor"] in alone]
    assert not wrong, wrong[0]


@pytest.mark.parametrize("tool,scheme,recipe,kind", ROWS)
def test_dequantize_gives_the_values_that_the_tool_gives(refitbench, written, tool, scheme, recipe,
                                                         kind):
    folder = written(tool) / f"{kind}-{scheme}"
    if scheme == "MXFP8_DEFAULT_CFG":
        pytest.skip("quantize_with.py calls no dequantization of ModelOpt for MXFP8")
    target = refitbench.folder / "values.safetensors"

    refitbench("dequantize", "--input", folder / "model.safetensors", "--output", target, "--dtype",
               "f32").expect(0)

    ours = read_safetensors(target)
    theirs = tensors_of(folder.with_name(folder.name + ".values"))
    assert len(theirs) >= 14
    for name, (dtype, shape, content) in theirs.items():
        assert ours[name][:2] == (dtype, shape), name
        mine = numpy.frombuffer(ours[name][2], "<f4")
        assert numpy.array_equal(mine, numpy.frombuffer(content, "<f4")), name
        assert mine.any()


@pytest.mark.parametrize("tool,scheme,recipe,kind", ROWS)
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_verify_agrees_with_the_loader_classes(written, loaders, engine, tool,  # noqa: F811
                                               scheme, recipe, kind):
    folder, reference = written(tool) / f"{kind}-{scheme}", written(tool) / kind
    method = json.loads((folder / "config.json").read_text())["quantization_config"]["quant_method"]
    contract = ENGINES.get((engine, method))
    if contract is None:
        pytest.skip(f"there is no contract for {method} in {engine}")
    if "MXFP8" in scheme:
        pytest.skip("there is no contract for MXFP8")
    for tp in (1, 2):
        outcome, said = loaders(engine).load(folder, reference, tp)
        code, root = verify(folder, "--engine", contract, "--tp", tp, "--reference", reference)
        text = [finding["message"] for finding in root["findings"]]
        assert not disagreement(outcome, code, False), f"tp {tp}: {outcome} {said}\n{text}"
