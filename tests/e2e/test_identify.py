# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`refitbench identify` on files that numpy made from the formulas, and on spoiled ones."""

import numpy
import pytest
from checkpoints import bf16, read_safetensors, write_safetensors
from test_quantize import RECIPES, STORED, formulas, scale_layout  # noqa: F401 (a fixture)

NAMES = ("x.weight", "y.weight")
# Two names of one definition; the same numbers under another rank of the scale count as another.
TRITON = {"areal-triton", "slime-online", "verl-triton"}


def reference(folder):
    """Matrices on which every pair of definitions differs: tiny and zero rows, -0, a ragged edge."""
    random = numpy.random.default_rng(5)
    values = {name: bf16(random.normal(0.0, 0.02, (300, 270))) for name in NAMES}
    # Significands of the largest element that tell every pair of definitions apart.
    for array, largest in zip(values.values(), (0x3F44, 0x3F0A)):
        array[10] = 0
        array[11] = 0x8000
        array[128:256, :128] = 0
        array[128, :4] = [0x0001, 0x8001, 0x0000, 0x8000]
        array[256:, 256:] = 0
        array[-1, -1] = largest
    path = folder / "bf16.safetensors"
    write_safetensors(path, {name: ("BF16", array) for name, array in values.items()})
    return path, values


def quantized_by(formulas, recipe, values):  # noqa: F811
    """The file of a recipe as numpy makes it."""
    row, device = formulas.names()[recipe]
    dtype, stored = STORED[formulas.SCALE_DTYPES.get(row, "f32")]
    tensors = {}
    for name, patterns in values.items():
        with numpy.errstate(all="ignore"):
            scales, codes = formulas.quantize(patterns.view(formulas.BF16), row, device)
        suffix, shape = scale_layout(recipe, *patterns.shape)
        tensors[name] = ("F8_E4M3", codes)
        tensors[name + suffix] = (dtype, numpy.asarray(scales).astype(stored).reshape(shape))
    return tensors


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_file_is_traced_to_its_recipe(refitbench, formulas, recipe):  # noqa: F811
    path, values = reference(refitbench.folder)
    target = refitbench.folder / "fp8.safetensors"
    write_safetensors(target, quantized_by(formulas, recipe, values))

    result = refitbench("identify", target, "--reference", path, "--json", "-").expect(0).json

    assert result["schema"] == "refitbench.identify/1"
    assert recipe in result["exact"]
    # Recipes of one definition, of one definition for finite input or for a maximum that no floor meets, and no other.
    twins = [TRITON, {"slime-tensorwise", "modelopt-fp8"}, {"slime-tensorwise-cpu", "modelopt-fp8-cpu"},
             {"nemo-rl-linear", "nemo-rl-2037-linear"}, {"nemo-rl-pow2", "nemo-rl-2037-pow2"}]
    assert set(result["exact"]) == next((group for group in twins if recipe in group), {recipe})
    for row in result["tensors"]:
        assert row["exact"] == result["exact"]
        assert (row["differing_codes"], row["differing_scales"]) == (0, 0)
        assert row["first_difference"] is None and row["nearest"] in row["exact"]
    text = refitbench("identify", target, "--reference", path).expect(0)
    text.expect_said("x.weight  exact=", "explain every one exactly", recipe)


def spoiled(refitbench, formulas, change):  # noqa: F811
    path, values = reference(refitbench.folder)
    tensors = quantized_by(formulas, "prime-rl-blockwise", values)
    change(tensors)
    target = refitbench.folder / "fp8.safetensors"
    write_safetensors(target, tensors)
    return refitbench("identify", target, "--reference", path, "--json", "-").expect(1).json


def test_one_changed_code_is_counted_and_shown(refitbench, formulas):  # noqa: F811
    def change(tensors):
        assert tensors["y.weight"][1][7, 9] not in (0x7F, 0xFF)
        tensors["y.weight"][1][7, 9] ^= 1

    result = spoiled(refitbench, formulas, change)

    assert result["exact"] == []
    x, y = result["tensors"]
    assert "prime-rl-blockwise" in x["exact"]
    assert (y["exact"], y["nearest"]) == ([], "prime-rl-blockwise")
    assert (y["differing_codes"], y["differing_scales"]) == (1, 0)
    first = y["first_difference"]
    assert (first["what"], first["index"]) == ("code", [7, 9])
    assert int(first["found_bits"], 16) == int(first["expected_bits"], 16) ^ 1


def test_one_changed_scale_is_counted_and_shown(refitbench, formulas):  # noqa: F811
    def double(tensors):
        dtype, bits = tensors["x.weight_scale_inv"]
        values = bits.view("<f4").copy()
        values[1, 2] *= 2
        tensors["x.weight_scale_inv"] = (dtype, values)

    result = spoiled(refitbench, formulas, double)

    x = result["tensors"][0]
    assert (x["differing_codes"], x["differing_scales"]) == (0, 1)
    first = x["first_difference"]
    assert (first["what"], first["index"]) == ("scale", [1, 2])
    assert first["found"] == 2 * first["expected"]


def test_another_reference_explains_nothing(refitbench, formulas):  # noqa: F811
    path, values = reference(refitbench.folder)
    target = refitbench.folder / "fp8.safetensors"
    write_safetensors(target, quantized_by(formulas, "deepgemm", values))
    other = {name: ("BF16", numpy.flip(array).copy()) for name, array in values.items()}
    write_safetensors(path, other)

    outcome = refitbench("identify", target, "--reference", path).expect(1)

    outcome.expect_said("nearest=", "differing_codes=", "found", "expected", "exactly: none")


def test_a_file_of_two_recipes_names_each(refitbench, formulas):  # noqa: F811
    path, values = reference(refitbench.folder)
    x, y = NAMES
    tensors = quantized_by(formulas, "mxfp8", {x: values[x]})
    tensors |= quantized_by(formulas, "areal-megatron", {y: values[y]})
    target = refitbench.folder / "fp8.safetensors"
    write_safetensors(target, tensors)

    result = refitbench("identify", target, "--reference", path, "--json", "-").expect(0).json

    assert [row["exact"] for row in result["tensors"]] == [["mxfp8"], ["areal-megatron"]]
    assert result["exact"] == []


def test_nan_of_either_sign_is_one_code(refitbench, formulas):  # noqa: F811
    path, values = reference(refitbench.folder)
    for array in values.values():
        array[3, 4] = 0x7FC0
    write_safetensors(path, {name: ("BF16", array) for name, array in values.items()})
    tensors = quantized_by(formulas, "prime-rl-blockwise", values)
    assert tensors["x.weight"][1][3, 4] == 0x7F
    tensors["x.weight"][1][3, 4] = 0xFF
    target = refitbench.folder / "fp8.safetensors"
    write_safetensors(target, tensors)

    result = refitbench("identify", target, "--reference", path, "--json", "-").expect(0).json

    assert "prime-rl-blockwise" in result["exact"]


@pytest.mark.parametrize("what, words", {
    "absent": ["y.weight", "BF16 [300, 270]"],
    "of another shape": ["y.weight", "BF16 [300, 269]", "BF16 [300, 270]"],
    "F32": ["y.weight", "F32 [300, 270]", "BF16 [300, 270]"],
}.items())
def test_a_wrong_reference_is_named(refitbench, formulas, what, words):  # noqa: F811
    path, values = reference(refitbench.folder)
    target = refitbench.folder / "fp8.safetensors"
    write_safetensors(target, quantized_by(formulas, "tensorwise", values))
    wrong = {name: ("BF16", array) for name, array in values.items()}
    if what == "absent":
        del wrong["y.weight"]
    elif what == "F32":
        wrong["y.weight"] = ("F32", numpy.zeros((300, 270), "<f4"))
    else:
        wrong["y.weight"] = ("BF16", values["y.weight"][:, 1:])
    write_safetensors(path, wrong)

    refitbench("identify", target, "--reference", path).expect(1).expect_said("bf16.safetensors",
                                                                              *words)


def test_a_scale_that_no_recipe_writes_is_named(refitbench, formulas):  # noqa: F811
    path, values = reference(refitbench.folder)
    tensors = quantized_by(formulas, "prime-rl-channelwise", values)
    tensors["x.weight_scale"] = ("BF16", bf16(numpy.ones(300)))
    target = refitbench.folder / "fp8.safetensors"
    write_safetensors(target, tensors)

    refitbench("identify", target, "--reference", path).expect(1).expect_said(
        "x.weight_scale", "found BF16 [300]", "F32 [300, 1]", "U8 [300, 9]")


def test_a_power_of_two_scale_survives_the_way_back(refitbench, checkpoint):
    # Quantizing what was dequantized loses nothing, even where amax fell to the next smaller scale.
    before = checkpoint / "model.safetensors"
    contents = []
    for turn in range(2):
        once, back = (refitbench.folder / f"{name}{turn}" for name in ("once", "back"))
        refitbench("quantize", "--recipe", "deepgemm-ue8m0", "--input", before, "--output",
                   once).expect(0)
        refitbench("dequantize", "--input", once, "--output", back).expect(0)
        contents.append(read_safetensors(back))
        before = back

    assert contents[0] == contents[1]
    assert contents[0] != read_safetensors(checkpoint / "model.safetensors")


@pytest.mark.parametrize("arguments, code, words", [
    (["FILE"], 2, ["--reference"]), (["--reference", "FILE"], 2, ["FILE is missing"]),
    (["nowhere", "--reference", "nowhere"], 3, ["nowhere"]),
    (["nowhere", "--reference", "FILE", "--refrence", "x"], 2, ["--reference"]),
])
def test_wrong_use_of_identify_is_refused(refitbench, arguments, code, words):
    refitbench("identify", *arguments).expect(code).expect_said(*words)
