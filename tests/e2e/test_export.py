# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`refitbench export`: bytes against the formulas in numpy, names and shapes against the formats that the
engines document, containers against the safetensors package."""

import json

import numpy
import pytest
from checkpoints import f32_of_bf16, read_safetensors
from export_models import CONFIGS, is_quantized, shapes_of, stacked, stored, values_of, write_model
from test_quantize import STORED, formulas  # noqa: F401  (a fixture)

HEAD = {"llama": ["lm_head"], "qwen2": ["lm_head"], "qwen3": ["lm_head"],
        "qwen3_moe": ["model.layers.1.mlp.gate", "lm_head"],
        "deepseek_v3": ["model.layers.1.mlp.gate", "model.layers.2.mlp.gate", "model.layers.2.eh_proj",
                        "model.layers.2.shared_head.head", "lm_head"]}


def ceil_div(count, size):
    return -(-count // size)


# engine, recipe: suffix of the scale, its shape for a weight of [rows, columns].
def _grid(rows, columns):
    return ceil_div(rows, 128), ceil_div(columns, 128)


BLOCK = ("weight_scale_inv", _grid)
CT_BLOCK = ("weight_scale", _grid)
CHANNEL = ("weight_scale", lambda rows, columns: (rows, 1))
TENSOR = ("weight_scale", lambda rows, columns: (1,))
BLOCK_4D = ("weight_scale", lambda rows, columns: (ceil_div(rows, 128), 1, ceil_div(columns, 128), 1))
ROWS = ("weight_scale", lambda rows, columns: (rows,))
LAYOUTS = {
    ("vllm-fp8", "prime-rl-blockwise"): BLOCK, ("vllm-fp8", "tensorwise"): TENSOR,
    ("vllm-compressed-tensors", "prime-rl-blockwise"): CT_BLOCK,
    ("vllm-compressed-tensors", "modelopt-pc-pt"): CHANNEL,
    ("vllm-compressed-tensors", "tensorwise"): TENSOR,
    ("vllm-modelopt", "compressed-tensors-channel"): ROWS, ("vllm-modelopt", "prime-rl-blockwise"): BLOCK_4D,
    ("sglang-fp8", "modelopt-pb-wo"): BLOCK, ("sglang-fp8", "slime-tensorwise"): TENSOR,
    ("sglang-compressed-tensors", "deepgemm"): CT_BLOCK,
    ("sglang-compressed-tensors", "prime-rl-channelwise"): CHANNEL,
    ("sglang-compressed-tensors", "tensorwise"): TENSOR,
    ("transformers-fp8", "areal-triton"): BLOCK, ("trtllm-fp8", "slime-offline-channel"): ROWS,
    ("strict", "nemo-rl-pow2"): BLOCK, ("strict", "compressed-tensors-channel"): CHANNEL,
}


def export(refitbench, source, recipe, engine, *more, output="out", code=0):
    outcome = refitbench("export", "--model", source, "--recipe", recipe, "--engine", engine, "--output",
                         output, "--json", "-", *more).expect(code)
    left_behind = [path.name for path in refitbench.folder.iterdir() if ".partial" in path.name]
    assert left_behind == []
    if code != 0:
        assert not (refitbench.folder / output).exists()
        return outcome
    return refitbench.folder / output, outcome.json


def read_export(folder):
    """Every tensor of a directory, held against its index and the safetensors package."""
    package = pytest.importorskip("safetensors", reason="the safetensors package is not installed")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    tensors, total = {}, 0
    for name in sorted(set(index["weight_map"].values())):
        mine = read_safetensors(folder / name)
        theirs = dict(package.deserialize((folder / name).read_bytes()))
        assert set(mine) == set(theirs)
        with package.safe_open(folder / name, framework="np") as file:
            assert file.metadata() == {"format": "pt"}
        for tensor, (dtype, shape, content) in mine.items():
            assert index["weight_map"][tensor] == name
            assert theirs[tensor]["data"] == content and tuple(theirs[tensor]["shape"]) == shape
            assert tensor not in tensors
            total += len(content)
        tensors |= mine
    assert index["metadata"]["total_size"] == total
    assert set(index["weight_map"]) == set(tensors)
    return tensors


def quantization_config(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def scheme_of(config):
    if config["quant_method"] == "fp8":
        return "block" if "weight_block_size" in config else "tensor"
    if config["quant_method"] == "compressed-tensors":
        (group,) = config["config_groups"].values()
        return group["weights"]["strategy"]
    return {"FP8_PB_WO": "block", "FP8_PER_CHANNEL_PER_TOKEN": "channel"}[config["quant_algo"]]


def skip_list(config):
    return config["modules_to_not_convert" if config["quant_method"] == "fp8" else "ignore"]


DENSE = ["llama", "qwen2", "qwen3"]
MODELS = {"vllm-modelopt": DENSE, "trtllm-fp8": DENSE}
# SGLang's loader drops the block scales of a Llama.
CASES = [(engine, recipe, model) for engine, recipe in LAYOUTS
         for model in MODELS.get(engine, list(CONFIGS))
         if (engine, recipe, model) != ("sglang-fp8", "modelopt-pb-wo", "llama")]


@pytest.mark.parametrize("engine, recipe, model", CASES)
def test_every_tensor_is_what_the_format_wants(refitbench, tmp_path, engine, recipe, model):
    source = write_model(tmp_path / "bf16", CONFIGS[model])

    folder, result = export(refitbench, tmp_path / "bf16", recipe, engine, "--unloadable", "bf16")

    suffix, shape_of = LAYOUTS[engine, recipe]
    tensors = read_export(folder)
    left = {row["module"] + ".weight" for row in result["left_in_bf16"]}
    for name, (dtype, array) in source.items():
        found = tensors.pop(name)
        assert found[1] == array.shape, name
        if not is_quantized(name) or name in left:
            assert found == (dtype, array.shape, array.tobytes()), name
            continue
        assert found[0] == "F8_E4M3", name
        scale = tensors.pop(name.removesuffix("weight") + suffix)
        assert scale[:2] == ("F32", shape_of(*array.shape)), name
    assert tensors == {}
    config = quantization_config(folder)
    listed = [module for module in skip_list(config) if not module.endswith("kv_a_proj_with_mqa")]
    assert listed == HEAD[model]
    # 192 rows are no whole blocks, which only some engines mind.
    latent = {row["module"] for row in result["left_in_bf16"]} - set(HEAD[model])
    assert latent == set() or model == "deepseek_v3" and scheme_of(config) == "block"
    assert result["quantization_config"] == config
    assert (result["tensors"], result["bytes"]) == (
        len(source), sum(row["bytes"] for row in result["files"]))


def test_the_config_keeps_its_keys_and_names_the_format(refitbench, tmp_path):
    write_model(tmp_path / "bf16", CONFIGS["llama"] | {"pad_token_id": None, "special": {"a": [1, 2]}})
    expected = {
        ("vllm-fp8", "prime-rl-blockwise"): {
            "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        ("vllm-fp8", "tensorwise"): {"quant_method": "fp8", "activation_scheme": "dynamic"},
        ("vllm-modelopt", "modelopt-pc-pt"): {
            "quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"},
        ("transformers-fp8", "deepgemm"): {
            "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        ("sglang-fp8", "tensorwise"): {"quant_method": "fp8", "activation_scheme": "dynamic"},
        ("trtllm-fp8", "prime-rl-channelwise"): {
            "quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"},
        ("vllm-modelopt", "modelopt-pb-wo"): {"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"},
    }
    for number, ((engine, recipe), keys) in enumerate(expected.items()):
        folder, _ = export(refitbench, tmp_path / "bf16", recipe, engine, output=f"out{number}")
        config = json.loads((folder / "config.json").read_text())
        quant = config.pop("quantization_config")
        assert config == CONFIGS["llama"] | {"pad_token_id": None, "special": {"a": [1, 2]}}
        assert keys.items() <= quant.items(), quant
        assert ("weight_block_size" in quant) == ("weight_block_size" in keys)
        assert (folder / "hf_quant_config.json").exists() == (quant["quant_method"] == "modelopt")
    beside = json.loads((folder / "hf_quant_config.json").read_text())
    assert beside["quantization"]["quant_algo"] == "FP8_PB_WO"
    assert beside["quantization"]["exclude_modules"] == ["lm_head"]


@pytest.mark.parametrize("recipe, strategy, inputs", [
    ("compressed-tensors-channel", "channel", "token"), ("tensorwise", "tensor", "tensor"),
    ("prime-rl-blockwise", "block", "group")])
def test_compressed_tensors_has_the_keys_of_its_format(refitbench, tmp_path, recipe, strategy, inputs):
    write_model(tmp_path / "bf16", CONFIGS["llama"])

    folder, _ = export(refitbench, tmp_path / "bf16", recipe, "vllm-compressed-tensors")

    config = quantization_config(folder)
    assert config["quant_method"] == "compressed-tensors" and config["format"] == "float-quantized"
    assert config["quantization_status"] == "compressed" and config["kv_cache_scheme"] is None
    (group,) = config["config_groups"].values()
    assert group["targets"] == ["Linear"]
    weights, activations = group["weights"], group["input_activations"]
    assert (weights["strategy"], weights["num_bits"], weights["type"]) == (strategy, 8, "float")
    assert (weights["symmetric"], weights["dynamic"]) == (True, False)
    assert (activations["strategy"], activations["dynamic"]) == (inputs, True)
    assert weights.get("block_structure") == ([128, 128] if strategy == "block" else None)


@pytest.mark.parametrize("engine, recipe", [
    ("vllm-fp8", "nemo-rl-linear"), ("vllm-fp8", "areal-megatron"), ("vllm-fp8", "slime-tensorwise"),
    ("vllm-compressed-tensors", "deepgemm-ue8m0"), ("vllm-compressed-tensors", "slime-offline-channel-cpu"),
    ("vllm-modelopt", "modelopt-pc-pt")])
def test_the_bytes_are_those_of_the_formula(refitbench, tmp_path, formulas, engine, recipe):  # noqa: F811
    config = CONFIGS["qwen2"] | {"num_hidden_layers": 1}
    values = values_of(config)
    write_model(tmp_path / "bf16", config, stored(values))

    folder, _ = export(refitbench, tmp_path / "bf16", recipe, engine)

    tensors = read_export(folder)
    row, device = formulas.names()[recipe]
    dtype, layout = STORED[formulas.SCALE_DTYPES.get(row, "f32")]
    for name, patterns in values.items():
        if not is_quantized(name):
            continue
        scales, codes = formulas.quantize(patterns.view(formulas.BF16), row, device)
        suffix = "_inv" if name + "_scale_inv" in tensors else ""
        scale = tensors[f"{name}_scale{suffix}"]
        assert (scale[0], scale[2]) == (dtype, numpy.asarray(scales).astype(layout).tobytes()), name
        assert tensors[name][2] == codes.tobytes(), name


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(refitbench, tmp_path):
    config = CONFIGS["llama"] | {"hidden_size": 2048, "intermediate_size": 8192, "vocab_size": 32000}
    patterns = numpy.random.default_rng(3).integers(0x3C00, 0x3D00, 1 << 20).astype("<u2")
    write_model(tmp_path / "bf16", config, {name: ("BF16", numpy.resize(patterns, shape))
                                            for name, shape in shapes_of(config).items()})
    assert (tmp_path / "bf16" / "model.safetensors").stat().st_size > 450_000_000
    for engine, recipe in [("vllm-fp8", "prime-rl-blockwise"), ("vllm-compressed-tensors", "tensorwise")]:
        process = refitbench.start("export", "--model", tmp_path / "bf16", "--recipe", recipe, "--engine",
                                   engine, "--output", recipe)
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_bytes(process.pid))
        refitbench.finish(process, 30).expect(0)
        assert 10_000_000 < peak < 120_000_000


def peak_bytes(pid):
    """The largest resident size that the process had so far; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            rows = dict(line.split(":", 1) for line in status)
    except OSError:
        return 0
    return int(rows.get("VmHWM", "0 kB").split()[0]) * 1024


@pytest.mark.parametrize("engine, recipe", [
    ("vllm-fp8", "prime-rl-blockwise"), ("vllm-fp8", "tensorwise"), ("vllm-compressed-tensors", "deepgemm"),
    ("vllm-compressed-tensors", "nemo-rl-2037-pow2"), ("vllm-modelopt", "prime-rl-channelwise")])
def test_quantize_and_export_give_the_same_bytes(refitbench, tmp_path, engine, recipe):
    write_model(tmp_path / "bf16", CONFIGS["llama"])
    refitbench("quantize", "--recipe", recipe, "--input", tmp_path / "bf16" / "model.safetensors",
               "--output", "one.safetensors").expect(0)

    folder, _ = export(refitbench, tmp_path / "bf16", recipe, engine)

    one, tensors = read_safetensors(tmp_path / "one.safetensors"), read_export(folder)
    for name in filter(is_quantized, tensors):
        (mine,) = (tensors[name + suffix] for suffix in ("_scale", "_scale_inv") if name + suffix in tensors)
        (theirs,) = (one[name + suffix] for suffix in ("_scale", "_scale_inv") if name + suffix in one)
        assert (tensors[name][2], mine[2]) == (one[name][2], theirs[2]), name


def test_a_matrix_of_several_bands_has_the_bytes_that_quantize_gives(refitbench, tmp_path):
    # 8 Mi values are one band; the last one is ragged, and NeMo-RL pads its edge from the last element.
    config = CONFIGS["llama"] | {"num_hidden_layers": 1, "hidden_size": 264, "head_dim": 64,
                                 "intermediate_size": 33001, "vocab_size": 32}
    write_model(tmp_path / "bf16", config)
    for engine, recipe in [("vllm-fp8", "nemo-rl-linear"), ("vllm-fp8", "tensorwise"),
                           ("vllm-compressed-tensors", "prime-rl-channelwise")]:
        refitbench("quantize", "--recipe", recipe, "--input", tmp_path / "bf16" / "model.safetensors",
                   "--output", "one.safetensors").expect(0)
        folder, result = export(refitbench, tmp_path / "bf16", recipe, engine, "--unloadable", "bf16",
                                output=recipe)
        one, tensors = read_safetensors(tmp_path / "one.safetensors"), read_safetensors(
            folder / "model.safetensors")
        name = "model.layers.0.mlp.down_proj.weight"
        assert name not in {row["module"] + ".weight" for row in result["left_in_bf16"]}
        for suffix in ("", "_scale", "_scale_inv"):
            assert tensors.get(name + suffix) == one.get(name + suffix), recipe


def test_a_tied_head_is_written_once(refitbench, tmp_path):
    tensors = stored(values_of(CONFIGS["qwen3"]))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_model(tmp_path / "equal", CONFIGS["qwen3"], tensors)

    folder, result = export(refitbench, tmp_path / "equal", "prime-rl-blockwise", "vllm-fp8")

    assert "lm_head.weight" not in read_export(folder)
    assert result["not_written"] == ["lm_head.weight"]
    assert skip_list(quantization_config(folder)) == ["lm_head"]

    tensors["lm_head.weight"] = ("BF16", tensors["lm_head.weight"][1] ^ 1)
    write_model(tmp_path / "other", CONFIGS["qwen3"], tensors)
    export(refitbench, tmp_path / "other", "prime-rl-blockwise", "vllm-fp8", output="other-out",
           code=1).expect_said("lm_head.weight", "tie_word_embeddings")


def test_side_files_come_along_and_weights_do_not(refitbench, tmp_path):
    source = tmp_path / "bf16"
    write_model(source, CONFIGS["llama"])
    for name in ("chat_template.jinja", "LICENSE", "modeling_own.py", "special_tokens_map.json"):
        (source / name).write_text(name)
    for name in ("pytorch_model.bin", "consolidated.00.pth", ".gitattributes", "tf_model.h5",
                 "pytorch_model.bin.index.json"):
        (source / name).write_text(name)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool.jinja").write_text("tool")
    (source / "original").mkdir()
    (source / "original" / "consolidated.00.pth").write_text("old")
    (source / "link.json").symlink_to(source / "LICENSE")

    # Into a folder of the source, which must not copy itself.
    folder, result = export(refitbench, source, "prime-rl-blockwise", "vllm-fp8", output=source / "fp8")

    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = {"chat_template.jinja", "LICENSE", "modeling_own.py", "special_tokens_map.json", "link.json",
                "tokenizer.json", "tokenizer_config.json", "generation_config.json",
                "additional_chat_templates/tool.jinja"}
    assert found == expected | {"config.json", "model.safetensors", "model.safetensors.index.json"}
    assert set(result["side_files"]) == expected
    assert "original/" in result["not_copied"] and "pytorch_model.bin" in result["not_copied"]
    assert (folder / "link.json").read_text() == "LICENSE" and not (folder / "link.json").is_symlink()


def test_shards_keep_to_their_size_and_pairs_together(refitbench, tmp_path):
    source = write_model(tmp_path / "bf16", CONFIGS["qwen3_moe"])

    folder, result = export(refitbench, tmp_path / "bf16", "prime-rl-blockwise", "vllm-fp8",
                            "--max-shard-size", "300KB")

    tensors = read_export(folder)
    assert set(source) <= set(tensors)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    count = len(files)
    assert count > 3
    assert files == [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    assert [row["file"] for row in result["files"]] == files
    assert all(row["bytes"] <= 300_000 for row in result["files"])
    for name in tensors:
        if name.endswith("_scale_inv"):
            assert index[name] == index[name.removesuffix("_scale_inv")]


@pytest.mark.parametrize("model", ["qwen3_moe", "deepseek_v3"])
def test_stacked_experts_are_written_one_by_one(refitbench, tmp_path, model):
    tensors = stored(values_of(CONFIGS[model]))
    write_model(tmp_path / "single", CONFIGS[model], tensors)
    write_model(tmp_path / "stacked", CONFIGS[model], stacked(tensors, CONFIGS[model]))
    override = refitbench.write("override.json", json.dumps(
        {"quantization_config": {"modules_to_not_convert": ["model.layers.1.mlp.experts"]}}))

    for number, more in enumerate([(), ("--config-override", override)]):
        single, _ = export(refitbench, tmp_path / "single", "deepgemm", "vllm-fp8", *more,
                           output=f"single{number}")
        together, _ = export(refitbench, tmp_path / "stacked", "deepgemm", "vllm-fp8", *more,
                             output=f"stacked{number}")
        for path in single.iterdir():
            assert path.read_bytes() == (together / path.name).read_bytes(), path.name
        kept = read_export(single)["model.layers.1.mlp.experts.3.up_proj.weight"]
        assert kept[0] == ("BF16" if more else "F8_E4M3")


def test_a_deepseek_without_its_last_layer_is_exported_without(refitbench, tmp_path):
    config = CONFIGS["deepseek_v3"]
    tensors = {name: value for name, value in stored(values_of(config)).items()
               if not name.startswith("model.layers.2.")}
    write_model(tmp_path / "bf16", config, tensors)

    folder, _ = export(refitbench, tmp_path / "bf16", "prime-rl-blockwise", "vllm-fp8")

    assert not any(name.startswith("model.layers.2.") for name in read_export(folder))
    assert skip_list(quantization_config(folder)) == ["model.layers.1.mlp.gate", "lm_head"]


def test_an_override_is_merged_and_its_layers_stay_in_bf16(refitbench, tmp_path):
    source = write_model(tmp_path / "bf16", CONFIGS["llama"] | {"rope_scaling": {"factor": 8.0, "type": "x"}})
    override = refitbench.write("override.json", json.dumps({
        "max_position_embeddings": 4096, "rope_theta": None, "rope_scaling": {"factor": 4.0},
        "quantization_config": {"note": "kept", "ignored_layers": ["model.layers.0.mlp.down_proj"]}}))

    folder, result = export(refitbench, tmp_path / "bf16", "prime-rl-blockwise", "vllm-fp8",
                            "--config-override", override)

    config = json.loads((folder / "config.json").read_text())
    assert config["max_position_embeddings"] == 4096 and "rope_theta" not in config
    assert config["rope_scaling"] == {"factor": 4.0, "type": "x"}
    quant = config["quantization_config"]
    assert quant["note"] == "kept" and quant["weight_block_size"] == [128, 128]
    assert "ignored_layers" not in quant
    assert sorted(quant["modules_to_not_convert"]) == ["lm_head", "model.layers.0.mlp.down_proj"]
    name = "model.layers.0.mlp.down_proj.weight"
    tensors = read_export(folder)
    assert tensors[name] == ("BF16", source[name][1].shape, source[name][1].tobytes())
    assert name + "_scale_inv" not in tensors
    assert {"module": "model.layers.0.mlp.down_proj", "reason": "listed by --config-override"} in result[
        "left_in_bf16"]


def test_a_pattern_of_the_override_lists_what_it_matches(refitbench, tmp_path):
    write_model(tmp_path / "bf16", CONFIGS["llama"])
    override = refitbench.write("override.json", json.dumps(
        {"quantization_config": {"ignore": ["re:.*self_attn\\..*"]}}))

    folder, result = export(refitbench, tmp_path / "bf16", "prime-rl-channelwise",
                            "vllm-compressed-tensors", "--config-override", override)

    tensors = read_export(folder)
    for name, (dtype, _, _) in tensors.items():
        if name.endswith("_proj.weight"):
            assert dtype == ("BF16" if "self_attn" in name else "F8_E4M3"), name
    ignore = quantization_config(folder)["ignore"]
    assert {"lm_head", "re:.*self_attn\\..*", "model.layers.1.self_attn.o_proj"} <= set(ignore)
    assert len(result["left_in_bf16"]) == 1 + 2 * 4


CACHE = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False}


def with_cache_scales(folder, shape=(), scheme=True):
    tensors = stored(values_of(CONFIGS["llama"]))
    for layer in range(2):
        for part in "kv":
            tensors[f"model.layers.{layer}.self_attn.{part}_scale"] = (
                "F32", numpy.full(shape, 0.25 + layer, "<f4"))
    config = dict(CONFIGS["llama"])
    if scheme:
        config["quantization_config"] = {"quant_method": "compressed-tensors", "kv_cache_scheme": CACHE}
    write_model(folder, config, tensors)
    return tensors


def test_a_scheme_and_scales_of_the_cache_are_carried(refitbench, tmp_path):
    source = with_cache_scales(tmp_path / "bf16", (1,))

    folder, _ = export(refitbench, tmp_path / "bf16", "prime-rl-channelwise", "vllm-compressed-tensors")

    assert quantization_config(folder)["kv_cache_scheme"] == CACHE
    tensors = read_export(folder)
    for name in source:
        if name.endswith(("k_scale", "v_scale")):
            assert tensors[name] == ("F32", (1,), source[name][1].tobytes())


def test_scales_of_the_cache_that_cannot_be_carried_are_refused(refitbench, tmp_path):
    with_cache_scales(tmp_path / "scheme")
    export(refitbench, tmp_path / "scheme", "prime-rl-blockwise", "vllm-fp8",
           code=1).expect_said("kv_cache_scheme", "vllm-fp8")
    with_cache_scales(tmp_path / "wide", (3,), scheme=False)
    export(refitbench, tmp_path / "wide", "prime-rl-blockwise", "vllm-fp8",
           code=1).expect_said("k_scale", "[3]", "one floating-point number")
    with_cache_scales(tmp_path / "plain", scheme=False)
    export(refitbench, tmp_path / "plain", "prime-rl-blockwise", "transformers-fp8", code=1,
           output="tf").expect_said("k_scale", "transformers-fp8", "does not read")
    folder, _ = export(refitbench, tmp_path / "plain", "prime-rl-blockwise", "vllm-fp8")
    assert "model.layers.1.self_attn.v_scale" in read_export(folder)


def test_f16_and_f32_sources_are_rounded_where_the_engine_wants_it(refitbench, tmp_path):
    values = values_of(CONFIGS["llama"])
    exact = {name: f32_of_bf16(patterns) for name, patterns in values.items()}
    # Values that BF16 holds exactly, so that the export of F32 equals that of BF16.
    write_model(tmp_path / "bf16", CONFIGS["llama"], stored(values))
    write_model(tmp_path / "f32", CONFIGS["llama"], {name: ("F32", array) for name, array in exact.items()})

    one, _ = export(refitbench, tmp_path / "bf16", "prime-rl-blockwise", "vllm-fp8", output="one")
    two, _ = export(refitbench, tmp_path / "f32", "prime-rl-blockwise", "vllm-fp8", output="two")

    first, second = read_export(one), read_export(two)
    assert set(first) == set(second)
    for name, found in second.items():
        if found[0] == "F32" and first[name][0] == "BF16":
            assert found[2] == exact[name].tobytes()  # a norm: engines take it as it is
        else:
            assert found == first[name], name


def test_a_model_that_the_engine_cannot_hold_is_refused_with_its_reason(refitbench, tmp_path):
    # The shapes of SmolLM2-135M: blocks cut q, k and v, which vLLM fuses.
    config = CONFIGS["llama"] | {"hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3,
                                 "intermediate_size": 1536, "num_hidden_layers": 1, "vocab_size": 128}
    write_model(tmp_path / "bf16", config)

    outcome = export(refitbench, tmp_path / "bf16", "prime-rl-blockwise", "vllm-fp8", code=1)
    outcome.expect_said("model.layers.0.self_attn.q_proj.weight", "576 rows",
                        "vllm-compressed-tensors (fp8_channelwise)", "--unloadable bf16")
    assert outcome.stdout == ""

    folder, result = export(refitbench, tmp_path / "bf16", "prime-rl-blockwise", "vllm-fp8", "--unloadable",
                            "bf16")
    left = [f"model.layers.0.self_attn.{part}_proj" for part in "qkv"] + ["lm_head"]
    assert skip_list(quantization_config(folder)) == left
    assert "576" in result["left_in_bf16"][0]["reason"]
    tensors = read_export(folder)
    assert tensors["model.layers.0.self_attn.k_proj.weight"][0] == "BF16"
    assert tensors["model.layers.0.self_attn.o_proj.weight_scale_inv"][1] == (5, 5)

    export(refitbench, tmp_path / "bf16", "prime-rl-channelwise", "vllm-compressed-tensors",
           output="channel")


def test_a_model_whose_scales_the_engine_drops_is_refused(refitbench, tmp_path):
    write_model(tmp_path / "bf16", CONFIGS["llama"])
    for more in ((), ("--unloadable", "bf16")):
        export(refitbench, tmp_path / "bf16", "deepgemm", "sglang-fp8", *more,
               code=1).expect_said("sglang-fp8", "weight_scale_inv", "sglang-compressed-tensors")


def test_a_warning_of_the_contract_is_shown_once(refitbench, tmp_path):
    # The strict profile warns of SGLang's loader of Llamas; both layers have the same causes.
    write_model(tmp_path / "bf16", CONFIGS["llama"])
    _, result = export(refitbench, tmp_path / "bf16", "deepgemm", "strict")
    assert result["warnings"] and all("SGLang" in warning for warning in result["warnings"])
    kinds = [warning.split(":")[0].replace("layers.1", "layers.0") for warning in result["warnings"]]
    assert len(set(kinds)) == len(kinds)
    _, result = export(refitbench, tmp_path / "bf16", "tensorwise", "strict", output="tensor")
    assert result["warnings"] == []


def test_a_grid_that_transformers_cannot_read_back_is_refused(refitbench, tmp_path):
    write_model(tmp_path / "bf16", CONFIGS["qwen3"] | {"intermediate_size": 320})
    export(refitbench, tmp_path / "bf16", "deepgemm", "transformers-fp8",
           code=1).expect_said("down_proj", "320", "--unloadable")
    folder, _ = export(refitbench, tmp_path / "bf16", "deepgemm", "transformers-fp8", "--unloadable", "bf16")
    tensors = read_export(folder)
    assert tensors["model.layers.0.mlp.down_proj.weight"][0] == "BF16"
    assert tensors["model.layers.0.self_attn.k_proj.weight"][0] == "F8_E4M3"


@pytest.mark.parametrize("engine", ["sglang-compressed-tensors", "vllm-compressed-tensors"])
def test_a_fused_layer_in_bf16_is_listed_as_the_engine_looks_for_it(refitbench, tmp_path, engine):
    write_model(tmp_path / "bf16", CONFIGS["llama"])
    at = "model.layers.1.self_attn."
    override = refitbench.write("override.json", json.dumps(
        {"quantization_config": {"ignore": [f"{at}{part}_proj" for part in "qkv"]}}))

    folder, result = export(refitbench, tmp_path / "bf16", "prime-rl-channelwise", engine,
                            "--config-override", override)

    # SGLang does not know the parts of its fused layers.
    assert (at + "qkv_proj" in skip_list(quantization_config(folder))) == (engine[:6] == "sglang")
    assert [row["module"] for row in result["left_in_bf16"]] == [at + f"{part}_proj" for part in "qkv"] + [
        "lm_head"]
    assert read_export(folder)[at + "k_proj.weight"][0] == "BF16"


def test_experts_that_cut_a_block_stay_in_bf16_together(refitbench, tmp_path):
    config = CONFIGS["qwen3_moe"] | {"moe_intermediate_size": 192}
    source = write_model(tmp_path / "bf16", config)
    export(refitbench, tmp_path / "bf16", "prime-rl-blockwise", "vllm-fp8",
           code=1).expect_said("experts", "192")

    folder, _ = export(refitbench, tmp_path / "bf16", "prime-rl-blockwise", "vllm-fp8", "--unloadable",
                       "bf16")

    tensors = read_export(folder)
    assert all(tensors[name][0] == "BF16" for name in source if ".experts." in name)
    assert tensors["model.layers.1.self_attn.q_proj.weight"][0] == "F8_E4M3"
    listed = skip_list(quantization_config(folder))
    assert "model.layers.1.mlp.experts" in listed and "model.layers.1.mlp.experts.3.down_proj" in listed


def test_a_tensor_parallel_size_is_looked_at_where_it_is_given(refitbench, tmp_path):
    write_model(tmp_path / "bf16", CONFIGS["llama"])
    export(refitbench, tmp_path / "bf16", "prime-rl-blockwise", "vllm-fp8", "--tp", "1")
    # Two key heads of 64 rows on two ranks: 64 rows each.
    export(refitbench, tmp_path / "bf16", "prime-rl-blockwise", "vllm-fp8", "--tp", "2", output="two",
           code=1).expect_said("k_proj", "64 rows")
