# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Small FP8 checkpoints in the forms that public tools write, made with numpy and ml_dtypes alone.

`build(model, scheme)` gives a right one; what a test breaks in it is its own business. The models
have two layers, hidden size 256, intermediate size 512 and a vocabulary of 512 unless their names
say else.
"""

import copy
import dataclasses
import functools
import json

import numpy
import pytest
from checkpoints import bf16, f32_of_bf16, write_safetensors

CLASSES = {"llama": ("LlamaForCausalLM", "llama"), "qwen2": ("Qwen2ForCausalLM", "qwen2"),
           "qwen3": ("Qwen3ForCausalLM", "qwen3"), "qwen3moe": ("Qwen3MoeForCausalLM", "qwen3_moe"),
           "dsv3": ("DeepseekV3ForCausalLM", "deepseek_v3")}

# name: (family, heads, KV heads, head dimension, what differs)
MODELS = {
    "llama": ("llama", 8, 4, 64, {}),
    "llama-square": ("llama", 4, 4, 64, {"intermediate_size": 256}),
    "llama-kv2": ("llama", 8, 2, 64, {}),
    "llama-ffn320": ("llama", 8, 4, 64, {"intermediate_size": 320}),
    "llama-h192": ("llama", 4, 2, 64, {"hidden_size": 192, "intermediate_size": 256}),
    "llama-q192": ("llama", 3, 1, 64, {"hidden_size": 384}),
    "llama-o192": ("llama", 6, 2, 64, {"hidden_size": 384}),
    "qwen2": ("qwen2", 4, 4, 64, {}),
    "qwen3": ("qwen3", 4, 2, 128, {"tie_word_embeddings": True}),
    "qwen3moe": ("qwen3moe", 4, 2, 128, {"moe_intermediate_size": 256}),
    "qwen3moe-i192": ("qwen3moe", 4, 2, 128, {"moe_intermediate_size": 192}),
    "dsv3": ("dsv3", 4, 4, None, {"qk_rope_head_dim": 64}),
    "dsv3-aligned": ("dsv3", 4, 4, None, {"qk_rope_head_dim": 128}),
}
for _name in [name for name in MODELS if name.startswith("llama")]:
    MODELS["qw" + _name[5:]] = ("qwen3", *MODELS[_name][1:])


@functools.lru_cache(maxsize=None)
def float8():
    """ml_dtypes' E4M3FN, which rounds to nearest even; truth of another hand."""
    return pytest.importorskip("ml_dtypes").float8_e4m3fn


def config_of(model):
    """config.json of a model, without quantization_config."""
    family, heads, kv_heads, head_dim, extra = MODELS[model]
    architecture, model_type = CLASSES[family]
    config = {"architectures": [architecture], "model_type": model_type, "hidden_size": 256,
              "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "vocab_size": 512, "rms_norm_eps": 1e-6,
              "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
    if head_dim is not None:
        config["head_dim"] = head_dim
    if family == "qwen3moe":
        config |= {"num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1,
                   "mlp_only_layers": [], "norm_topk_prob": True}
    if family == "dsv3":
        config |= {"q_lora_rank": 128, "kv_lora_rank": 128, "qk_nope_head_dim": 128,
                   "v_head_dim": 128,
                   "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
                   "moe_intermediate_size": 256, "first_k_dense_replace": 1, "moe_layer_freq": 1,
                   "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc",
                   "scoring_func": "sigmoid"}
    return config | extra


def _mlp(prefix, hidden, rows):
    return {prefix + "gate_proj.weight": (rows, hidden), prefix + "up_proj.weight": (rows, hidden),
            prefix + "down_proj.weight": (hidden, rows)}


def _layer(config, layer):
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    at = f"model.layers.{layer}."
    attention = at + "self_attn."
    shapes = {at + "input_layernorm.weight": (hidden,),
              at + "post_attention_layernorm.weight": (hidden,)}
    if "kv_lora_rank" in config:
        query, latent, rope = (config["q_lora_rank"], config["kv_lora_rank"],
                               config["qk_rope_head_dim"])
        nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
        shapes |= {attention + "q_a_proj.weight": (query, hidden),
                   attention + "q_a_layernorm.weight": (query,),
                   attention + "q_b_proj.weight": (heads * (nope + rope), query),
                   attention + "kv_a_proj_with_mqa.weight": (latent + rope, hidden),
                   attention + "kv_a_layernorm.weight": (latent,),
                   attention + "kv_b_proj.weight": (heads * (nope + value), latent),
                   attention + "o_proj.weight": (hidden, heads * value)}
    else:
        head = config["head_dim"]
        keys = config["num_key_value_heads"] * head
        shapes |= {attention + "q_proj.weight": (heads * head, hidden),
                   attention + "k_proj.weight": (keys, hidden),
                  attention + "v_proj.weight": (keys, hidden),
                   attention + "o_proj.weight": (hidden, heads * head)}
        if config["model_type"] == "qwen2":
            shapes |= {attention + "q_proj.bias": (heads * head,),
                       attention + "k_proj.bias": (keys,), attention + "v_proj.bias": (keys,)}
        if config["model_type"].startswith("qwen3"):
            shapes |= {attention + "q_norm.weight": (head,), attention + "k_norm.weight": (head,)}
    experts = config.get("num_experts") or config.get("n_routed_experts")
    if not experts or layer < config.get("first_k_dense_replace", 0):
        return shapes | _mlp(at + "mlp.", hidden, config["intermediate_size"])
    shapes[at + "mlp.gate.weight"] = (experts, hidden)
    for expert in range(experts):
        shapes |= _mlp(f"{at}mlp.experts.{expert}.", hidden, config["moe_intermediate_size"])
    if "n_routed_experts" in config:
        shapes[at + "mlp.gate.e_score_correction_bias"] = (experts,)
        shapes |= _mlp(at + "mlp.shared_experts.", hidden, config["moe_intermediate_size"])
    return shapes


def shapes_of(config):
    """{name: shape} of the unquantized checkpoint."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        shapes |= _layer(config, layer)
    return shapes


def is_quantized(name):
    """Whether tools quantize the tensor: the projections of attention and MLP."""
    return name.endswith("_proj.weight") or name.endswith("kv_a_proj_with_mqa.weight")


@functools.lru_cache(maxsize=None)
def _unquantized(text, seed):
    """{name: BF16 patterns} of a config given as JSON text."""
    random = numpy.random.default_rng(seed)
    return {name: bf16(random.normal(1.0 if "norm" in name else 0.0, 0.03, shape))
            for name, shape in shapes_of(json.loads(text)).items()}


def tiles_amax(values, rows, cols):
    """Largest magnitude of each tile of `rows` x `cols`; ragged edges padded with zeros."""
    height, width = -(-values.shape[0] // rows), -(-values.shape[1] // cols)
    padded = numpy.zeros((height * rows, width * cols), numpy.float32)
    padded[:values.shape[0], :values.shape[1]] = values
    return numpy.abs(padded).reshape(height, rows, width, cols).max(axis=(1, 3))


def quantized(values, rows=128, cols=128):
    """E4M3 codes and F32 scales of a matrix, one scale a tile: s = amax / 448, Q(x / s)."""
    amax = tiles_amax(values, rows, cols)
    scales = (amax / numpy.float32(448)).astype(numpy.float32)
    height, width = values.shape
    spread = numpy.repeat(numpy.repeat(scales, rows, 0), cols, 1)[:height, :width]
    codes = (values / spread).astype(numpy.float32).astype(float8()).view(numpy.uint8)
    return codes, scales


# scheme: (quant_method, leaf of the scale, what is done with the [tiles, tiles] grid)
SCHEMES = {
    "block": ("fp8", "weight_scale_inv"), "tensor": ("fp8", "weight_scale"),
    "ct-block": ("compressed-tensors", "weight_scale"),
    "channel": ("compressed-tensors", "weight_scale"),
    "ct-tensor": ("compressed-tensors", "weight_scale"),
    "pcpt": ("modelopt", "weight_scale"), "pbwo": ("modelopt", "weight_scale"),
}


def scaled(scheme, values):
    """Codes, and the scale in the shape that the scheme stores."""
    if scheme in ("block", "ct-block"):
        return quantized(values)
    if scheme == "pbwo":
        codes, scales = quantized(values)
        return codes, scales[:, None, :, None]
    if scheme in ("channel", "pcpt"):
        codes, scales = quantized(values, 1, values.shape[1])
        return codes, scales if scheme == "channel" else scales[:, 0]
    codes, scales = quantized(values, *values.shape)
    return codes, scales.reshape(1)


def quantization_config(scheme):
    """The object that tools write into config.json."""
    if scheme in ("block", "tensor"):
        config = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
        return config | ({"weight_block_size": [128, 128]} if scheme == "block" else {})
    if scheme in ("pcpt", "pbwo"):
        algorithm = {"pcpt": "FP8_PER_CHANNEL_PER_TOKEN", "pbwo": "FP8_PB_WO"}[scheme]
        return {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"]}
    strategy = {"ct-block": "block", "channel": "channel", "ct-tensor": "tensor"}[scheme]
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False,
               "group_size": None, "strategy": strategy, "actorder": None, "observer": "minmax",
               "observer_kwargs": {},
               "block_structure": [128, 128] if strategy == "block" else None}
    inputs = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": True,
              "strategy": {"block": "group", "channel": "token", "tensor": "tensor"}[strategy],
              "group_size": 128 if strategy == "block" else None}
    return {"quant_method": "compressed-tensors", "format": "float-quantized",
            "quantization_status": "compressed", "kv_cache_scheme": None, "ignore": ["lm_head"],
            "global_compression_ratio": None,
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights,
                                          "input_activations": inputs, "output_activations": None}}}


@dataclasses.dataclass
class Fp8Checkpoint:
    """A checkpoint in memory; `tensors` maps a name to (dtype name, array)."""

    config: dict
    scheme: str
    tensors: dict
    reference: dict
    files: int = 1
    index_extra: dict = dataclasses.field(default_factory=dict)

    @property
    def leaf(self):
        """Last part of the name of the scales."""
        return SCHEMES[self.scheme][1]

    @property
    def quantization(self):
        """The quantization_config, for changing."""
        return self.config["quantization_config"]

    def scale_name(self, module):
        """Name of the scale of a module's weight."""
        return f"{module}.{self.leaf}"

    def modules(self):
        """Every quantized module."""
        return [name.removesuffix(".weight") for name, (dtype, _) in self.tensors.items()
                if dtype == "F8_E4M3"]

    def skip(self, module):
        """Leaves a module in BF16 and lists it."""
        self.tensors[module + ".weight"] = ("BF16", self.reference[module + ".weight"])
        self.tensors.pop(self.scale_name(module), None)
        self.list(module)

    def list(self, module):
        """Puts a module on the skip list."""
        method = SCHEMES[self.scheme][0]
        key = "modules_to_not_convert" if method == "fp8" else "ignore"
        self.quantization.setdefault(key, []).append(module)

    def write(self, folder):
        """Writes config.json and the files; returns the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
        if self.files == 1:
            write_safetensors(folder / "model.safetensors", self.tensors)
            return folder
        names, placed = sorted(self.tensors), {}
        for number in range(self.files):
            file = f"model-{number + 1:05d}-of-{self.files:05d}.safetensors"
            part = names[number::self.files]
            placed |= {name: file for name in part}
            write_safetensors(folder / file, {name: self.tensors[name] for name in part})
        total = sum(array.nbytes for _, array in self.tensors.values())
        index = {"metadata": {"total_size": total} | self.index_extra, "weight_map": placed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        return folder

    def write_reference(self, folder):
        """Writes the BF16 checkpoint that this one was made from."""
        folder.mkdir(parents=True, exist_ok=True)
        plain = {key: value for key, value in self.config.items() if key != "quantization_config"}
        (folder / "config.json").write_text(json.dumps(plain), encoding="utf-8")
        write_safetensors(folder / "model.safetensors",
                          {name: ("BF16", patterns) for name, patterns in self.reference.items()})
        return folder


@functools.lru_cache(maxsize=None)
def _built(model, scheme, seed):
    config = config_of(model)
    values = _unquantized(json.dumps(config), seed)
    tensors = {}
    for name, patterns in values.items():
        if not is_quantized(name):
            tensors[name] = ("BF16", patterns)
            continue
        codes, scales = scaled(scheme, f32_of_bf16(patterns))
        tensors[name] = ("F8_E4M3", codes)
        tensors[f"{name.removesuffix('.weight')}.{SCHEMES[scheme][1]}"] = ("F32", scales)
    quantization = quantization_config(scheme)
    routers = [name.removesuffix(".weight") for name in values if name.endswith(".mlp.gate.weight")]
    if routers:  # Qwen's own checkpoints and llm-compressor's recipes name them.
        key = "modules_to_not_convert" if SCHEMES[scheme][0] == "fp8" else "ignore"
        quantization.setdefault(key, []).extend(routers)
    return config | {"quantization_config": quantization}, tensors, values


def build(model, scheme, seed=11):
    """A right checkpoint; arrays are shared between calls and must be replaced, not written to."""
    config, tensors, reference = _built(model, scheme, seed)
    return Fp8Checkpoint(copy.deepcopy(config), scheme, dict(tensors), dict(reference))
