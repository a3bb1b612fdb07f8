# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Lets a public quantizer write tiny checkpoint directories.

    python quantize_with.py TOOL FOLDER KIND:SCHEME...

TOOL is llmcompressor, modelopt or transformers; KIND is one of save_pretrained.py. The model is
written to FOLDER/KIND, what the tool makes of it to FOLDER/KIND-SCHEME. FOLDER/KIND-SCHEME.values
holds what the tool's own dequantization gives, as F32, where it has one: codes and scales as they
are in the file, `dequantize` of compressed-tensors, FP8QTensor.dequantize of ModelOpt, or
Fp8Dequantize of transformers. Prints the tool's version.
"""

import copy
import importlib.metadata
import pathlib
import sys
import tempfile
from unittest import mock

import safetensors.torch
import torch
import transformers
from save_pretrained import KINDS, main as save

# Linear layers that these recipes leave in BF16, as the tools' own examples do.
IGNORED = ["lm_head", "re:.*mlp.gate$"]
CACHE = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}


def batches():
    """Token numbers to calibrate with."""
    torch.manual_seed(3)
    return [torch.randint(0, 640, (2, 64)) for _ in range(4)]


def tokenizer():
    """llm-compressor wants one; nothing is tokenized."""
    from tokenizers import Tokenizer, models
    words = Tokenizer(models.WordLevel({str(i): i for i in range(640)}, unk_token="0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="0",
                                                pad_token="1", eos_token="2")


def llmcompressor(model, scheme, folder):
    """SCHEME is a preset of compressed-tensors; "+kv" adds an FP8 KV cache."""
    import datasets
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    preset, _, cache = scheme.partition("+")
    modifier = QuantizationModifier(targets="Linear", scheme=preset, ignore=IGNORED,
                                    kv_cache_scheme=CACHE if cache else None)
    calibration = {"pipeline": "datafree"}
    if preset == "FP8" or cache:
        rows = [{"input_ids": row.tolist(), "attention_mask": [1] * 64}
                for batch in batches() for row in batch]
        calibration = {"dataset": datasets.Dataset.from_list(rows), "num_calibration_samples": 8,
                       "max_seq_length": 64}
    oneshot(model=model, recipe=modifier, processor=tokenizer(), **calibration)
    model.save_pretrained(folder, save_compressed=True)


def llmcompressor_values(name, codes, scale, config):
    """`dequantize` of compressed-tensors with the scale as F32."""
    from compressed_tensors.compressors.mx_utils import decompress_mx_scale
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    arguments = QuantizationArgs(**config["config_groups"]["group_0"]["weights"])
    if scale.dtype == torch.uint8:
        scale = decompress_mx_scale(scale)
    return dequantize(codes, scale.float(), args=arguments)


def modelopt(model, scheme, folder):
    """SCHEME is the name of a configuration; "+kv" adds an FP8 KV cache."""
    import modelopt.torch.quantization as quantization
    from modelopt.torch.export import export_hf_checkpoint
    name, _, cache = scheme.partition("+")
    config = copy.deepcopy(getattr(quantization, name))
    if cache:
        from modelopt.torch.quantization.config import FP8_KV_CFG
        config["quant_cfg"] = [*config["quant_cfg"], *copy.deepcopy(FP8_KV_CFG["quant_cfg"])]

    def calibrate(prepared):
        for batch in batches():
            prepared(batch)

    quantization.quantize(model, config, calibrate)
    with torch.inference_mode():
        export_hf_checkpoint(model, dtype=torch.bfloat16, export_dir=folder)


def modelopt_values(name, codes, scale, config):
    """FP8QTensor.dequantize; none for MXFP8, whose tensors have a class of their own."""
    from modelopt.torch.quantization.qtensor import FP8QTensor
    if scale.dtype == torch.uint8:
        return None
    tensor = FP8QTensor(codes.shape, torch.float32, codes)
    if scale.dim() == 4:
        return tensor.dequantize(torch.float32, scale=scale[:, 0, :, 0],
                                 block_sizes={-1: 128, -2: 128})
    return tensor.dequantize(torch.float32, scale=scale[:, None] if scale.dim() else scale)


def transformers_fp8(model, scheme, folder):
    """FineGrainedFP8Config on a CPU that says it is a GPU: nothing but the check asks."""
    size = {"FP8_BLOCK": (128, 128), "FP8_TENSOR": None}[scheme]
    config = transformers.FineGrainedFP8Config(
        weight_block_size=size, modules_to_not_convert=["lm_head", "kv_a_proj_with_mqa"])
    with tempfile.TemporaryDirectory() as plain, \
            mock.patch("torch.cuda.is_available", lambda: True), \
            mock.patch("torch.cuda.get_device_capability", lambda *which: (9, 0)):
        model.save_pretrained(plain)
        transformers.AutoModelForCausalLM.from_pretrained(
            plain, quantization_config=config, dtype=torch.bfloat16,
            device_map="cpu").save_pretrained(folder)


def transformers_fp8_values(name, codes, scale, config):
    """Fp8Dequantize in the scale's F32."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize
    return Fp8Dequantize(None)._dequantize_one(codes, scale)


TOOLS = {"llmcompressor": (llmcompressor, llmcompressor_values, "llmcompressor"),
         "modelopt": (modelopt, modelopt_values, "nvidia-modelopt"),
         "transformers": (transformers_fp8, transformers_fp8_values, "transformers")}


def stored(folder):
    """Every tensor of a directory."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= safetensors.torch.load_file(path)
    return tensors


def write_values(folder, values_of):
    """FOLDER.values: the tool's own dequantization of each FP8 tensor that has a scale."""
    tensors, values = stored(folder), {}
    config = transformers.PretrainedConfig.from_json_file(folder / "config.json")
    for name, codes in tensors.items():
        scale = tensors.get(name + "_scale", tensors.get(name + "_scale_inv"))
        if codes.dtype != torch.float8_e4m3fn or scale is None:
            continue
        found = values_of(name, codes, scale, config.quantization_config)
        if found is not None:
            values[name] = found.float().contiguous()
    if values:
        folder.with_name(folder.name + ".values").mkdir()
        safetensors.torch.save_file(
            values, folder.with_name(folder.name + ".values") / "values.safetensors")


def main(tool, root, *pairs):
    quantize, values_of, package = TOOLS[tool]
    root = pathlib.Path(root)
    for pair in pairs:
        kind, scheme = pair.split(":")
        if not (root / kind).exists():
            save(kind, str(root / kind), "50GB")
        # The tools ask for the configuration that a file gives.
        model = transformers.AutoModelForCausalLM.from_pretrained(root / kind, dtype=torch.bfloat16)
        folder = root / f"{kind}-{scheme}"
        quantize(model.eval(), scheme, str(folder))
        write_values(folder, values_of)
    print("version", importlib.metadata.version(package))


if __name__ == "__main__":
    assert set(pair.split(":")[0] for pair in sys.argv[3:]) <= set(KINDS), sys.argv
    main(*sys.argv[1:])
