# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`refitbench quantize` against its formulas in numpy, the cast to E4M3 being that of ml_dtypes."""

import importlib.util
import pathlib

import numpy
import pytest
from checkpoints import bf16, llama_config, read_safetensors, write_checkpoint, write_safetensors

TENSOR = "model.layers.0.mlp.down_proj.weight"
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "generate_recipes.py"
STORED = {"f32": ("F32", "<u4"), "bf16": ("BF16", "<u2"), "e8m0": ("U8", "u1")}


@pytest.fixture(scope="module")
def formulas():
    """The recipes in numpy and ml_dtypes, from which the golden files are made too."""
    pytest.importorskip("ml_dtypes", reason="the ml_dtypes package is not installed")
    spec = importlib.util.spec_from_file_location("generate_recipes", GOLDEN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scale_layout(name, rows, columns):
    """(suffix, shape) of the scale tensor, by the table of the recipes."""
    if "mxfp8" in name:
        return "_scale", (rows, -(-columns // 32))
    if name.startswith("modelopt-fp8"):
        return "_scale", ()
    if "tensorwise" in name or name == "llm-compressor-tensor":
        return "_scale", (1,)
    if name.startswith("modelopt-pc-pt"):
        return "_scale", (rows,)
    if "channel" in name:
        return "_scale", (rows, 1)
    grid = (-(-rows // 128), -(-columns // 128))
    if name.startswith("modelopt-pb-wo"):
        return "_scale", (grid[0], 1, grid[1], 1)
    return "_scale" if name == "llm-compressor-block" else "_scale_inv", grid


def matrices(special):
    """More than a million elements in matrices of awkward sides; the last also with special values."""
    random = numpy.random.default_rng(20)
    shapes = [(1031, 777), (257, 901), (1, 129), (130, 1), (300, 127)]
    result = {f"layers.{i}.weight": bf16(random.normal(0.0, 0.02, shape))
              for i, shape in enumerate(shapes)}
    last = result["layers.4.weight"]
    last[5] = 0x8000  # a row of -0
    last[6] = random.integers(0, 0x80, 127)  # subnormal
    last[128:256] = bf16(random.normal(0.0, 1e-38, (128, 127)))
    if special:
        last[256:, 3], last[290, 100], last[291, 101] = 0x7FC0, 0x7F80, 0xFF80
        last[20, 20] = 0xFF80
        result["layers.1.weight"][200, 900] = 0xFFC1
    return result


RECIPES = """prime-rl-blockwise prime-rl-channelwise slime-offline slime-offline-channel modelopt-pb-w8a8
modelopt-pb-wo modelopt-pc-pt deepgemm compressed-tensors-channel tensorwise slime-tensorwise
modelopt-fp8""".split()
RECIPES += [name + "-cpu" for name in RECIPES]
RECIPES += """nemo-rl-linear nemo-rl-pow2 nemo-rl-2037-linear nemo-rl-2037-pow2 areal-torch verl-torch
areal-triton slime-online verl-triton areal-megatron deepgemm-ue8m0 mxfp8 mxfp8-ceil
llm-compressor-channel llm-compressor-block llm-compressor-tensor llm-compressor-mxfp8
transformers-blockwise""".split()


def test_the_catalog_is_the_recipe_table(refitbench, formulas):
    rows = refitbench("list", "recipes", "--json", "-").expect(0).json["rows"]

    assert sorted(row["name"] for row in rows) == sorted(RECIPES) == sorted(formulas.names())
    for row in rows:
        assert row["source"] and row["bits"], row
        dtype = STORED[formulas.SCALE_DTYPES.get(formulas.names()[row["name"]][0], "f32")][0]
        assert row["scale_dtype"] == dtype, row
        assert "X.weight".removesuffix("weight") + row["scale"] == "X.weight" + scale_layout(
            row["name"], 1, 1)[0]


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_quantize_gives_the_bits_of_its_formula(refitbench, formulas, recipe, special):
    values = matrices(special)
    assert sum(array.size for array in values.values()) > 1_000_000
    if special:  # the formulas are slow: what is special is in two of them
        values = {name: values[name] for name in ("layers.1.weight", "layers.4.weight")}
    source, target = refitbench.folder / "bf16.safetensors", refitbench.folder / "fp8.safetensors"
    values["norm.weight"] = bf16(numpy.ones(7))
    write_safetensors(source, {name: ("BF16", patterns) for name, patterns in values.items()})

    refitbench("quantize", "--recipe", recipe, "--input", source, "--output", target).expect(0)

    after = read_safetensors(target)
    assert after["norm.weight"] == ("BF16", (7,), values.pop("norm.weight").tobytes())
    row, device = formulas.names()[recipe]
    dtype, stored = STORED[formulas.SCALE_DTYPES.get(row, "f32")]
    for name, patterns in values.items():
        with numpy.errstate(all="ignore"):
            scales, codes = formulas.quantize(patterns.view(formulas.BF16), row, device)
        suffix, shape = scale_layout(recipe, *patterns.shape)
        found = after[name + suffix]
        assert found[:2] == (dtype, shape), name
        assert found[2] == numpy.asarray(scales).astype(stored).tobytes(), name
        assert after[name][:2] == ("F8_E4M3", patterns.shape), name
        mine = numpy.frombuffer(after[name][2], numpy.uint8).reshape(codes.shape)
        assert numpy.array_equal(mine, codes), f"{name}: {numpy.argwhere(mine != codes)[:3]}"


def test_the_safetensors_package_reads_what_quantize_writes(refitbench, checkpoint):
    package = pytest.importorskip("safetensors", reason="the safetensors package is not installed")
    source, target = checkpoint / "model.safetensors", refitbench.folder / "fp8.safetensors"

    refitbench("quantize", "--recipe", "prime-rl-blockwise", "--input", source, "--output",
               target).expect(0)

    before = dict(package.deserialize(source.read_bytes()))
    after = dict(package.deserialize(target.read_bytes()))
    for name, tensor in before.items():
        matrix = len(tensor["shape"]) == 2
        assert after[name]["dtype"] == ("F8_E4M3" if matrix else "BF16"), name
        assert after[name]["shape"] == tensor["shape"]
        assert matrix == (f"{name}_scale_inv" in after)
        if not matrix:
            assert after[name]["data"] == tensor["data"]
    assert len(after) == len(before) + sum(len(t["shape"]) == 2 for t in before.values())


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_the_file(refitbench, checkpoint, threads):
    files = []
    for count in (1, threads):
        files.append(refitbench.folder / f"{count}.safetensors")
        refitbench("quantize", "--recipe", "nemo-rl-linear", "--input", checkpoint / "model.safetensors",
                   "--output", files[-1], "--threads", count).expect(0)

    assert files[0].read_bytes() == files[1].read_bytes()


def test_backends_write_the_same_file(refitbench, checkpoint):
    rows = refitbench("list", "backends", "--json", "-").expect(0).json["rows"]
    viable = [row["name"] for row in rows if row["viable"]]
    contents = set()
    for backend in viable:
        target = refitbench.folder / f"{backend}.safetensors"
        refitbench("quantize", "--recipe", "deepgemm", "--input", checkpoint / "model.safetensors",
                   "--output", target, "--backend", backend).expect(0)
        contents.add(target.read_bytes())

    assert "portable" in viable and len(contents) == 1


def test_a_backend_that_is_not_viable_is_77(refitbench, checkpoint):
    rows = refitbench("list", "backends", "--json", "-").expect(0).json["rows"]
    absent = [row for row in rows if not row["viable"]]
    if not absent:
        pytest.skip("every backend is viable on this machine")

    outcome = refitbench("quantize", "--recipe", "prime-rl-blockwise", "--input",
                         checkpoint / "model.safetensors", "--output", "out.safetensors", "--backend",
                         absent[0]["name"]).expect(77)

    assert absent[0]["name"] in outcome.stderr, outcome
    assert not (refitbench.folder / "out.safetensors").exists()


def table_of_special_values():
    """{recipe: {column: cell}} of kernels/README.md; twins share a row."""
    text = (GOLDEN.parents[2] / "kernels" / "README.md").read_text(encoding="utf-8")
    lines = text.split("<!-- special values: begin -->")[1].split("<!--")[0].strip().splitlines()
    header, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip(" `"): dict(zip(header[1:], row[1:])) for row in rows[1:]
            for name in row[0].split(",")}


# What the table says of these tiles: scale and codes, or one code.
SPECIAL = {"zero tile": [0.0, 0.0], "amax 1e-30": [1e-30, 0.0, -1e-30],
           "amax 1e-37": [1e-37, 0.0, -1e-37], "one Inf": [0.5, -0.25, numpy.inf],
           "one NaN": [0.5, -0.25, numpy.nan], "-0": [0.5, -0.0]}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_program_does_what_the_table_of_special_values_says(refitbench, formulas, recipe):
    table = table_of_special_values()
    cells = table.get(recipe, table.get(recipe.removesuffix("-cpu")))
    source, target = refitbench.folder / "bf16.safetensors", refitbench.folder / "fp8.safetensors"
    tensors = {f"{column}.weight": numpy.array([values], formulas.BF16).view("<u2")
               for column, values in SPECIAL.items()}
    edge = numpy.full((129, 161), 0.001, formulas.BF16).view("<u2")
    tensors["alone.weight"] = edge.copy()
    edge[-1, -1] = 0x42C8  # 100
    tensors["edge.weight"] = edge
    write_safetensors(source, {name: ("BF16", patterns) for name, patterns in tensors.items()})

    refitbench("quantize", "--recipe", recipe, "--input", source, "--output", target).expect(0)

    after = read_safetensors(target)
    suffix, _ = scale_layout(recipe, 1, 1)
    row, _ = formulas.names()[recipe]
    stored = STORED[formulas.SCALE_DTYPES.get(row, "f32")][1]

    def scales(tensor):
        return numpy.frombuffer(after[f"{tensor}.weight{suffix}"][2], stored)

    for column in SPECIAL:
        codes = [f"{code:02x}" for code in after[f"{column}.weight"][2]]
        scale = formulas.scale_text(scales(column)[0], row)
        found = {"zero tile": f"{scale}; {codes[0]}", "-0": codes[-1]}
        assert found.get(column, f"{scale}; {' '.join(codes)}") == cells[column], column
    if cells["ragged edge"] != "no edge":
        # The second tile of the first row does not hold the last element, but reaches over the edge.
        tile = 5 if recipe.startswith("mxfp8") else 1
        own = scales("edge")[tile] == scales("alone")[tile]
        assert own == (cells["ragged edge"] == "own elements")


NAN = 0x7FC0
# policy, recipe, what the scale of the NaN's tile is, the code of the NaN.
POLICIES = [
    ("recipe", "prime-rl-blockwise", "nan", 0x7F), ("recipe", "areal-triton", "number", 0xFE),
    ("recipe", "areal-megatron", "number", 0xFE), ("recipe", "nemo-rl-2037-linear", "number", 0x00),
    ("recipe", "mxfp8", "nan", 0x7F), ("recipe", "mxfp8-ceil", "number", 0x7F),
    ("propagate", "prime-rl-blockwise", "nan", 0x7F), ("propagate", "areal-triton", "nan", 0xFE),
    ("propagate", "areal-megatron", "nan", 0xFE), ("propagate", "nemo-rl-2037-pow2", "nan", 0x00),
    ("propagate", "modelopt-pc-pt", "nan", 0x7F), ("propagate", "mxfp8-ceil", "nan", 0x7F),
    ("sanitize", "prime-rl-blockwise", "number", 0x00), ("sanitize", "mxfp8", "number", 0x00),
    ("sanitize", "areal-triton", "number", 0x00),
]


def with_a_nan(folder):
    values = write_checkpoint(folder, llama_config(layers=1))
    values[TENSOR][3, 7] = NAN
    write_safetensors(folder / "model.safetensors",
                      {name: ("BF16", patterns) for name, patterns in values.items()})
    return folder / "model.safetensors"


def first_scale_is_nan(tensor):
    dtype, _, content = tensor
    if dtype == "U8":
        return 0xFF in content
    if dtype == "BF16":
        return bool((numpy.frombuffer(content, "<u2") == NAN).any())
    return bool(numpy.isnan(numpy.frombuffer(content, "<f4")).any())


@pytest.mark.parametrize("policy, recipe, scale, code", POLICIES)
def test_a_nan_meets_the_policy(refitbench, policy, recipe, scale, code):
    path, target = with_a_nan(refitbench.folder / "nan"), refitbench.folder / "fp8.safetensors"

    refitbench("quantize", "--recipe", recipe, "--input", path, "--output", target, "--nonfinite",
               policy).expect(0)

    after = read_safetensors(target)
    shape = after[TENSOR][1]
    assert after[TENSOR][2][3 * shape[1] + 7] == code
    suffix, _ = scale_layout(recipe, *shape)
    assert first_scale_is_nan(after[TENSOR + suffix]) == (scale == "nan")
    clean = TENSOR.replace("down_proj", "up_proj")
    assert not first_scale_is_nan(after[clean + suffix])


@pytest.mark.parametrize("recipe, tile", [("prime-rl-blockwise", "[0, 0] of 128 x 128"),
                                          ("areal-triton", "[0, 0] of 128 x 128"),
                                          ("nemo-rl-2037-linear", "[0, 0] of 128 x 128"),
                                          ("modelopt-pc-pt", "[3, 0] of 1 x 1024"),
                                          ("mxfp8", "[3, 0] of 1 x 32")])
def test_a_rejected_nan_is_named_and_nothing_is_written(refitbench, recipe, tile):
    path, target = with_a_nan(refitbench.folder / "nan"), refitbench.folder / "fp8.safetensors"

    outcome = refitbench("quantize", "--recipe", recipe, "--input", path, "--output", target,
                         "--nonfinite", "reject").expect(1)

    outcome.expect_said(TENSOR, "1 NaN and 0 Inf", "[3, 7]", "tile " + tile, "--nonfinite")
    assert not target.exists()


def test_reject_lets_finite_weights_pass(refitbench, checkpoint):
    refitbench("quantize", "--recipe", "areal-triton", "--input", checkpoint / "model.safetensors",
               "--output", "out", "--nonfinite", "reject").expect(0)


def test_quantize_has_the_promised_json(refitbench, checkpoint):
    result = refitbench("quantize", "--recipe", "tensorwise", "--input",
                        checkpoint / "model.safetensors", "--output", "out.safetensors", "--json",
                        "-").expect(0).json

    assert {"schema", "tool", "argv", "tensors"} <= set(result)
    assert {"name", "version", "commit"} <= set(result["tool"])
    assert 28.0 < result["sqnr_db"] < 36.0


WRONG = {
    "no recipe": (["--input", "IN", "--output", "out"], 2, ["--recipe"]),
    "an unknown recipe": (["--recipe", "prime-rl-blockwize", "--input", "IN", "--output", "out"], 2,
                          ["prime-rl-blockwise"]),
    "an unknown policy": (["--recipe", "tensorwise", "--input", "IN", "--output", "out", "--nonfinite",
                           "ignore"], 2, ["ignore"]),
    "no threads": (["--recipe", "tensorwise", "--input", "IN", "--output", "out", "--threads", "0"], 2,
                   ["--threads"]),
    "the input as output": (["--recipe", "tensorwise", "--input", "IN", "--output", "IN"], 2,
                            ["model.safetensors"]),
    "a missing input": (["--recipe", "tensorwise", "--input", "nowhere", "--output", "out"], 3,
                        ["nowhere"]),
    "a missing output folder": (["--recipe", "tensorwise", "--input", "IN", "--output", "no/out"], 3,
                                ["no/out"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use_of_quantize_is_refused(refitbench, checkpoint, what):
    arguments, code, words = WRONG[what]
    source = checkpoint / "model.safetensors"
    before = source.read_bytes()

    outcome = refitbench("quantize", *[source if word == "IN" else word for word in arguments])

    outcome.expect(code).expect_said(*words)
    assert outcome.stdout == ""
    assert not (refitbench.folder / "out").exists()
    assert source.read_bytes() == before


def test_a_truncated_input_is_3(refitbench, checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])

    refitbench("quantize", "--recipe", "tensorwise", "--input", path, "--output",
               "out").expect(3).expect_said("model.safetensors")
    assert not (refitbench.folder / "out").exists()


def test_quantizing_twice_is_refused(refitbench, checkpoint):
    once = refitbench.folder / "once.safetensors"
    refitbench("quantize", "--recipe", "tensorwise", "--input", checkpoint / "model.safetensors",
               "--output", once).expect(0)

    refitbench("quantize", "--recipe", "tensorwise", "--input", once, "--output",
               "out").expect(1).expect_said("once.safetensors", "F8_E4M3")
