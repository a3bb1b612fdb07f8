# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""quantize, dequantize and identify on stacked experts: each expert is a matrix of its own."""

import numpy
import pytest
from checkpoints import bf16, read_safetensors, write_safetensors

EXPERTS, ROWS, COLUMNS = 3, 130, 161  # tiles of 128 and of 32 end inside, and begin anew
STACK = "model.layers.0.mlp.experts.gate_up_proj"
SINGLE = "model.layers.0.mlp.experts.{}.gate_up.weight"
CONVOLUTION = "model.layers.0.linear_attn.conv1d.weight"
STACKED = ["prime-rl-blockwise", "nemo-rl-linear", "areal-megatron", "prime-rl-channelwise", "mxfp8"]


def arrays_of(path):
    """`{name: (dtype name, array)}` of a file, its elements as little-endian patterns."""
    words = {"BF16": "<u2", "F8_E4M3": "u1", "U8": "u1", "F32": "<u4"}
    return {name: (dtype, numpy.frombuffer(data, words[dtype]).reshape(shape))
            for name, (dtype, shape, data) in read_safetensors(path).items()}


def values():
    random = numpy.random.default_rng(11)
    experts = bf16(random.normal(0.0, 0.02, (EXPERTS, ROWS, COLUMNS)))
    experts[1, :, 0] = bf16(numpy.full(ROWS, 3.0))  # an amax of its own for the second expert
    return experts


def write_pair(folder):
    """The same experts stacked, and one by one; beside the stack a convolution of rank 3."""
    experts = values()
    stacked, single = folder / "stacked.safetensors", folder / "single.safetensors"
    write_safetensors(stacked, {STACK: ("BF16", experts),
                                CONVOLUTION: ("BF16", bf16(numpy.ones((8, 1, 4))))})
    write_safetensors(single, {SINGLE.format(e): ("BF16", experts[e]) for e in range(EXPERTS)})
    return stacked, single


def quantized(refitbench, recipe, source, name):
    target = refitbench.folder / name
    refitbench("quantize", "--recipe", recipe, "--input", source, "--output", target).expect(0)
    return target


@pytest.mark.parametrize("recipe", STACKED)
def test_a_stack_has_the_bits_of_its_experts_one_by_one(refitbench, recipe):
    stacked, single = write_pair(refitbench.folder)
    together = arrays_of(quantized(refitbench, recipe, stacked, "a.safetensors"))
    apart = arrays_of(quantized(refitbench, recipe, single, "b.safetensors"))

    suffix = "_scale_inv" if STACK + "_scale_inv" in together else "_scale"
    for ending in ("", suffix):
        dtype, found = together[STACK + ending]
        each = [apart[SINGLE.format(e) + ending] for e in range(EXPERTS)]
        assert {dtype} == {one[0] for one in each}
        numpy.testing.assert_array_equal(found, numpy.stack([one[1] for one in each]))
    assert together[CONVOLUTION][0] == "BF16"
    assert CONVOLUTION + suffix not in together


@pytest.mark.parametrize("recipe", STACKED)
def test_a_stack_dequantizes_as_its_experts_do(refitbench, recipe):
    results = []
    for source in write_pair(refitbench.folder):
        target = refitbench.folder / ("back-" + source.name)
        refitbench("dequantize", "--input",
                   quantized(refitbench, recipe, source, "q-" + source.name), "--output", target,
                   "--dtype", "f32").expect(0)
        results.append(arrays_of(target))
    together, apart = results
    numpy.testing.assert_array_equal(
        together[STACK][1], numpy.stack([apart[SINGLE.format(e)][1] for e in range(EXPERTS)]))


@pytest.mark.parametrize("recipe", STACKED)
def test_a_stack_is_traced_to_its_recipe_and_a_changed_code_is_found(refitbench, recipe):
    stacked, _ = write_pair(refitbench.folder)
    target = quantized(refitbench, recipe, stacked, "q.safetensors")
    found = refitbench("identify", target, "--reference", stacked, "--json", "-").expect(0).json
    assert recipe in found["exact"]

    tensors = arrays_of(target)
    dtype, codes = tensors[STACK]
    changed = codes.copy()
    changed[2, 129, 160] ^= 1
    write_safetensors(target, tensors | {STACK: (dtype, changed)})
    found = refitbench("identify", target, "--reference", stacked, "--json", "-").expect(1).json
    assert found["tensors"][0]["first_difference"]["index"] == [2, 129, 160]


@pytest.mark.parametrize("recipe", ["modelopt-pc-pt", "modelopt-pb-wo", "tensorwise"])
def test_a_recipe_without_a_stacked_form_is_refused_by_name(refitbench, recipe):
    stacked, _ = write_pair(refitbench.folder)
    refitbench("quantize", "--recipe", recipe, "--input", stacked, "--output",
               "q.safetensors").expect(1).expect_said(recipe, STACK, "[3, 130, 161]", "stacked")
    assert not (refitbench.folder / "q.safetensors").exists()


def test_a_nan_is_named_with_its_expert(refitbench):
    experts = values()
    experts[2, 129, 5] = 0x7FC0
    write_safetensors(refitbench.folder / "in.safetensors", {STACK: ("BF16", experts)})
    refitbench("quantize", "--recipe", "prime-rl-blockwise", "--input", "in.safetensors", "--output",
               "q.safetensors", "--nonfinite", "reject").expect(1).expect_said(
                   "expert 2", STACK, "[129, 5]", "tile [1, 0]")
