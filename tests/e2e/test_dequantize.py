# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`refitbench dequantize` against code * scale in numpy, codes and BF16 being those of ml_dtypes."""

import subprocess

import numpy
import pytest
from checkpoints import bf16, read_safetensors, write_safetensors
from user_program import PROGRAM

F32 = numpy.float32
ROWS, COLUMNS = 130, 161
NAME, INVERSE, PLAIN = "a.weight", "a.weight_scale_inv", "a.weight_scale"
# layout: name of the scale, dtype, shape, rows and columns of a tile
LAYOUTS = {
    "blocks": (INVERSE, "F32", (2, 2), 128, 128),
    "blocks under the other name": (PLAIN, "F32", (2, 2), 128, 128),
    "blocks of rank four": (PLAIN, "F32", (2, 1, 2, 1), 128, 128),
    "blocks with BF16 scales": (INVERSE, "BF16", (2, 2), 128, 128),
    "blocks with F16 scales": (INVERSE, "F16", (2, 2), 128, 128),
    "blocks with E8M0 scales": (INVERSE, "F8_E8M0", (2, 2), 128, 128),
    "rows": (PLAIN, "F32", (ROWS, 1), 1, COLUMNS),
    "rows of rank one": (PLAIN, "F32", (ROWS,), 1, COLUMNS),
    "one scale": (PLAIN, "F32", (1,), ROWS, COLUMNS),
    "a scalar": (PLAIN, "F32", (), ROWS, COLUMNS),
    "E8M0 of 32 columns": (PLAIN, "U8", (ROWS, 6), 1, 32),
    "E8M0 of 32 columns under its own name": (PLAIN, "F8_E8M0", (ROWS, 6), 1, 32),
}


@pytest.fixture
def ml_dtypes():
    return pytest.importorskip("ml_dtypes", reason="the ml_dtypes package is not installed")


def random_scales(random, dtype, shape):
    """(what the file holds, the same as F32)"""
    if dtype in ("U8", "F8_E8M0"):
        stored = random.integers(100, 140, shape).astype(numpy.uint8)
        stored.flat[0], stored.flat[1] = 0, 254
        return stored, F32(2.0) ** (stored.astype(F32) - F32(127))
    values = numpy.exp(random.normal(-6, 3, shape)).astype(F32)
    if dtype == "F16":
        stored = values.astype("<f2")
        stored.flat[0] = 2.0 ** -24  # the smallest that is not zero
        return stored, stored.astype(F32)
    if dtype == "BF16":
        stored = bf16(values)
        return stored, (stored.astype(numpy.uint32) << 16).view(F32)
    return values, values


def quantized(random, layout):
    """{name: (dtype, array)}, the codes and the F32 scale of every element."""
    scale_name, dtype, shape, tile_rows, tile_columns = LAYOUTS[layout]
    codes = random.integers(0, 256, (ROWS, COLUMNS)).astype(numpy.uint8)
    stored, scales = random_scales(random, dtype, shape)
    grid = (-(-ROWS // tile_rows), -(-COLUMNS // tile_columns))
    spread = scales.reshape(grid).repeat(tile_rows, 0).repeat(tile_columns, 1)[:ROWS, :COLUMNS]
    tensors = {NAME: ("F8_E4M3", codes), scale_name: (dtype, stored),
               "a.bias": ("BF16", bf16(random.normal(0, 1, 5)))}
    return tensors, codes, spread


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_code_times_scale(refitbench, ml_dtypes, layout, dtype):
    tensors, codes, scales = quantized(numpy.random.default_rng(3), layout)
    source, target = refitbench.folder / "b.safetensors", refitbench.folder / "a.safetensors"
    write_safetensors(source, tensors)

    refitbench("dequantize", "--input", source, "--output", target, "--dtype", dtype).expect(0)

    after = read_safetensors(target)
    assert set(after) == {NAME, "a.bias"}
    assert after["a.bias"] == ("BF16", (5,), tensors["a.bias"][1].tobytes())
    assert after[NAME][:2] == (dtype.upper(), (ROWS, COLUMNS))
    with numpy.errstate(all="ignore"):
        product = codes.view(ml_dtypes.float8_e4m3fn).astype(F32) * scales
        if dtype == "f32":
            found, expected = numpy.frombuffer(after[NAME][2], "<u4"), product.view(numpy.uint32)
            expected = numpy.where(numpy.isnan(product), 0x7FC00000, expected)
        else:
            found = numpy.frombuffer(after[NAME][2], "<u2")
            expected = product.astype(ml_dtypes.bfloat16).view(numpy.uint16)
            expected = numpy.where(numpy.isnan(product), 0x7FC0, expected)
    assert numpy.array_equal(found, expected.reshape(-1))


def test_the_json_says_what_was_made(refitbench):
    tensors, codes, _ = quantized(numpy.random.default_rng(3), "blocks")
    source = refitbench.folder / "b.safetensors"
    write_safetensors(source, tensors)

    result = refitbench("dequantize", "--input", source, "--output", "a", "--json", "-").expect(0).json

    assert result["schema"] == "refitbench.dequantize/1" and result["dtype"] == "bf16"
    row, = result["tensors"]
    assert (row["tensor"], row["scale"], row["layout"]) == (NAME, INVERSE, "block")
    assert row["nonfinite"] == result["nonfinite"] == int(((codes & 0x7F) == 0x7F).sum())


def broken(what):
    tensors, _, _ = quantized(numpy.random.default_rng(3), "blocks")
    scale = numpy.ones((2, 2), F32)
    changes = {
        "no scale": ({INVERSE: None}, [NAME, INVERSE, PLAIN]),
        "two scales": ({PLAIN: ("F32", scale)}, [INVERSE, PLAIN, "two scales"]),
        "a floored grid": ({INVERSE: ("F32", scale[:1, :1])},
                           [INVERSE, "F32 [1, 1]", "F32 or BF16 [2, 2]"]),
        "a scale of rank three": ({INVERSE: ("F32", scale[None])}, [INVERSE, "[1, 2, 2]"]),
        "an integer scale": ({INVERSE: ("I32", scale.astype("<i4"))}, [INVERSE, "I32 [2, 2]"]),
        "E8M0 blocks": ({INVERSE: ("U8", scale.astype("u1"))}, [INVERSE, "U8 [2, 2]", "[130, 6]"]),
        "stacked experts": ({NAME: ("F8_E4M3", numpy.zeros((2, 4, 4), "u1"))},
                            [NAME, "[2, 4, 4]", "matrix"]),
        "E5M2": ({"b.weight": ("F8_E5M2", numpy.zeros((4, 4), "u1"))}, ["b.weight", "F8_E5M2"]),
        "a scale without its weight": ({"b.weight_scale": ("F32", scale)},
                                       ["b.weight_scale", "not in the file"]),
        "a scale of a BF16 weight": ({NAME: ("BF16", bf16(numpy.zeros((ROWS, COLUMNS))))},
                                     [INVERSE, NAME, "BF16"]),
    }
    change, words = changes[what]
    tensors = {name: value for name, value in (tensors | change).items() if value is not None}
    return tensors, words


@pytest.mark.parametrize("command", ["dequantize", "identify"])
@pytest.mark.parametrize("what", ["no scale", "two scales", "a floored grid", "a scale of rank three",
                                  "an integer scale", "E8M0 blocks", "stacked experts", "E5M2",
                                  "a scale without its weight", "a scale of a BF16 weight"])
def test_a_wrong_scale_is_named_with_what_was_expected(refitbench, command, what):
    tensors, words = broken(what)
    source, target = refitbench.folder / "b.safetensors", refitbench.folder / "a.safetensors"
    write_safetensors(source, tensors)
    arguments = (["--input", source, "--output", target] if command == "dequantize" else
                 [source, "--reference", source])

    refitbench(command, *arguments).expect(1).expect_said("b.safetensors", *words)

    assert not target.exists()


def test_a_file_without_fp8_is_1(refitbench, checkpoint):
    refitbench("dequantize", "--input", checkpoint / "model.safetensors", "--output",
               "out").expect(1).expect_said("no F8_E4M3 tensor")
    assert not (refitbench.folder / "out").exists()


def test_the_input_as_output_is_refused(refitbench):
    tensors, _, _ = quantized(numpy.random.default_rng(3), "blocks")
    source, link = refitbench.folder / "b.safetensors", refitbench.folder / "link.safetensors"
    write_safetensors(source, tensors)
    link.symlink_to(source)
    before = source.read_bytes()

    for target in (source, link):
        refitbench("dequantize", "--input", source, "--output", target).expect(2).expect_said(
            "b.safetensors")
    refitbench("dequantize", "--input", source, "--output", "a", "--json", source).expect(2)

    assert source.read_bytes() == before
    assert not (refitbench.folder / "a").exists()


def test_a_truncated_input_is_3(refitbench):
    tensors, _, _ = quantized(numpy.random.default_rng(3), "blocks")
    source = refitbench.folder / "b.safetensors"
    write_safetensors(source, tensors)
    source.write_bytes(source.read_bytes()[:-1])

    refitbench("dequantize", "--input", source, "--output", "a").expect(3).expect_said(source.name)
    assert not (refitbench.folder / "a").exists()


@pytest.mark.parametrize("command", ["quantize", "dequantize"])
def test_a_full_disk_leaves_nothing_behind(refitbench, checkpoint, command):
    whole = refitbench.folder / "whole.safetensors"
    refitbench("quantize", "--recipe", "tensorwise", "--input", checkpoint / "model.safetensors",
               "--output", whole).expect(0)
    folder = refitbench.folder / "full"
    folder.mkdir()
    arguments = (["--recipe", "tensorwise", "--input", checkpoint / "model.safetensors"]
                 if command == "quantize" else ["--input", whole])
    # A file size limit is what a full disk is to one process: write() fails half-way.
    limited = ["bash", "-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "bash", PROGRAM]

    outcome = subprocess.run([*limited, command, *arguments, "--output", folder / "out.safetensors"],
                             capture_output=True, text=True, timeout=60, check=False)

    assert outcome.returncode == 3, outcome
    assert "out.safetensors" in outcome.stderr, outcome
    assert not list(folder.iterdir())
