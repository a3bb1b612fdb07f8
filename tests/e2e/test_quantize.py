# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`refitbench quantize` against its formulas in numpy, the cast to E4M3 being that of ml_dtypes."""

import numpy
import pytest
from checkpoints import f32_of_bf16, llama_config, read_safetensors, write_checkpoint, write_safetensors

TENSOR = "model.layers.0.mlp.down_proj.weight"
F32 = numpy.float32


def e4m3(values):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="the ml_dtypes package is not installed")
    return numpy.clip(values, F32(-448), F32(448)).astype(ml_dtypes.float8_e4m3fn).view(numpy.uint8)


def tiled_amax(values):
    """|x| maxima of 128 x 128 tiles, and the same spread over the elements."""
    rows, columns = values.shape
    padded = numpy.zeros((-(-rows // 128) * 128, -(-columns // 128) * 128), F32)
    padded[:rows, :columns] = numpy.abs(values)
    amax = padded.reshape(padded.shape[0] // 128, 128, -1, 128).max(axis=(1, 3))
    return amax, lambda tiles: tiles.repeat(128, 0).repeat(128, 1)[:rows, :columns]


def prime_rl_blockwise(values):
    amax, spread = tiled_amax(values)
    scale = numpy.maximum(amax / F32(448), F32(1e-12))
    return scale, e4m3(values / spread(scale))


def areal_torch(values):
    amax, spread = tiled_amax(values)
    factor = F32(448) / numpy.maximum(amax, F32(1e-10))
    factor = numpy.where((amax == 0) | numpy.isinf(amax), F32(1), factor)
    return F32(1) / factor, e4m3(values * spread(factor))


def slime_offline_channel(values):
    # 1e-12 in BF16 is the pattern 0x2b8d.
    least = numpy.uint32(0x2B8D0000).view(F32)
    scale = numpy.maximum(numpy.abs(values).max(axis=1, keepdims=True), least) / F32(448)
    return scale, e4m3(values / scale)


def compressed_tensors_channel(values):
    scale = numpy.abs(values).max(axis=1, keepdims=True) / F32(448)
    scale = numpy.where(scale == 0, F32(2.0**-23), scale)
    return scale, e4m3(values / scale + F32(0))


FORMULAS = {
    "prime-rl-blockwise-cpu": ("weight_scale_inv", prime_rl_blockwise),
    "areal-torch": ("weight_scale_inv", areal_torch),
    "slime-offline-channel-cpu": ("weight_scale", slime_offline_channel),
    "compressed-tensors-channel-cpu": ("weight_scale", compressed_tensors_channel),
}


@pytest.mark.parametrize("recipe", FORMULAS)
def test_quantize_gives_the_bits_of_its_formula(refitbench, recipe):
    folder = refitbench.folder / "ragged"
    values = write_checkpoint(folder, llama_config(hidden=257, heads=4, ffn=300, layers=1))
    values[TENSOR][5:7] = 0
    values[TENSOR][0:130, 0:130] = 0
    write_safetensors(folder / "model.safetensors",
                      {name: ("BF16", patterns) for name, patterns in values.items()})
    target = refitbench.folder / "fp8.safetensors"
    suffix, formula = FORMULAS[recipe]

    refitbench("quantize", "--recipe", recipe, "--input", folder / "model.safetensors", "--output",
               target).expect(0)

    after = read_safetensors(target)
    for name, patterns in values.items():
        if patterns.ndim != 2:
            assert after[name] == ("BF16", patterns.shape, patterns.tobytes())
            continue
        scale, codes = formula(f32_of_bf16(patterns).reshape(patterns.shape))
        found = after[name.removesuffix("weight") + suffix]
        assert found[:2] == ("F32", scale.shape), name
        assert found[2] == scale.astype("<f4").tobytes(), name
        assert after[name][:2] == ("F8_E4M3", patterns.shape), name
        # Minus zero and zero are one value.
        mine = numpy.frombuffer(after[name][2], numpy.uint8).reshape(codes.shape)
        differs = (mine != codes) & ~((mine | codes) == 0x80)
        assert not differs.any(), f"{name}: {numpy.argwhere(differs)[:3]}"


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


@pytest.mark.parametrize("policy, code",
                         [("reject", 1), ("sanitize", 0), ("propagate", 0), ("recipe", 0)])
def test_quantize_of_a_nan_follows_the_policy(refitbench, policy, code):
    values = write_checkpoint(refitbench.folder / "nan", llama_config(layers=1))
    values[TENSOR][3, 7] = 0x7FC0
    path = refitbench.folder / "nan" / "model.safetensors"
    write_safetensors(path, {name: ("BF16", patterns) for name, patterns in values.items()})
    target = refitbench.folder / "fp8.safetensors"

    outcome = refitbench("quantize", "--recipe", "prime-rl-blockwise", "--input", path, "--output",
                         target, "--nonfinite", policy).expect(code)

    assert target.exists() == (code == 0), outcome
    if code:
        outcome.expect_said(TENSOR, "[3, 7]")
        return
    codes = numpy.frombuffer(read_safetensors(target)[TENSOR][2], numpy.uint8)
    nan_codes = (codes & 0x7F) == 0x7F
    assert nan_codes.any() == (policy != "sanitize")


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
