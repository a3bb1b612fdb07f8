# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with FP8 checkpoints: each function breaks one thing in an `Fp8Checkpoint`.

`FAULTS` maps a name to (function, module that it breaks where no other is named, needs reference).
The last says that nothing in the checkpoint itself contradicts it: only the weights that it was
made from do.
"""

import numpy
from checkpoints import bf16, f32_of_bf16
from fp8_checkpoints import build, float8, quantized, scaled

Q, K, V, O = (f"model.layers.0.self_attn.{part}_proj" for part in "qkvo")
GATE, UP, DOWN = (f"model.layers.0.mlp.{part}_proj" for part in ("gate", "up", "down"))
E0_GATE = "model.layers.0.mlp.experts.0.gate_proj"
E1_UP = "model.layers.0.mlp.experts.1.up_proj"
E1_DOWN = "model.layers.0.mlp.experts.1.down_proj"
KV_A = "model.layers.0.self_attn.kv_a_proj_with_mqa"
Q_A = "model.layers.0.self_attn.q_a_proj"
KV_B = "model.layers.0.self_attn.kv_b_proj"


def weight(c, module):
    """(name, dtype, array) of a module's weight."""
    name = module + ".weight"
    return (name, *c.tensors[name])


def scale(c, module):
    """(name, dtype, array) of a module's scale."""
    name = c.scale_name(module)
    return (name, *c.tensors[name])


def change_scale(change, every=False):
    """A fault that replaces the scale's array by `change(array)`."""
    def apply(c, module):
        for one in (c.modules() if every else [module]):
            name, dtype, array = scale(c, one)
            c.tensors[name] = (dtype, change(array))
    return apply


def set_scale(value):
    """One scale in the middle gets another value."""
    def change(array):
        copy = array.copy()
        copy.reshape(-1)[copy.size // 2] = value
        return copy
    return change_scale(change)


def rename_scale(part="", leaf=None):
    """Scales of modules whose name contains `part` get the other name."""
    def apply(c, module):
        other = {"weight_scale": "weight_scale_inv", "weight_scale_inv": "weight_scale"}[c.leaf]
        for one in (c.modules() if module is None else [module]):
            if part in one:
                c.tensors[f"{one}.{other}"] = c.tensors.pop(c.scale_name(one))
    return apply


def resize(rows=0, cols=0, front=False):
    """The weight gets more (or fewer) rows or columns; the scale stays."""
    def apply(c, module):
        name, dtype, array = weight(c, module)
        wide = array[:rows] if rows < 0 else array
        wide = wide[:, :cols] if cols < 0 else wide
        margin = [(max(rows, 0), 0), (max(cols, 0), 0)]
        c.tensors[name] = (dtype, numpy.pad(wide, margin if front else [m[::-1] for m in margin],
                                            constant_values=0x31))
    return apply


def plant_code(code):
    """One code in the middle."""
    def apply(c, module):
        name, dtype, array = weight(c, module)
        copy = array.copy()
        copy[copy.shape[0] // 2, 5] = code
        c.tensors[name] = (dtype, copy)
    return apply


def drop(*leaves):
    """Tensors of the module go missing."""
    def apply(c, module):
        for leaf in leaves:
            del c.tensors[f"{module}.{c.leaf if leaf == 'scale' else leaf}"]
    return apply


def drop_all(prefix):
    """Every tensor whose name begins so goes missing."""
    def apply(c, module):
        for name in [name for name in c.tensors if name.startswith(prefix)]:
            del c.tensors[name]
    return apply


def configure(change):
    """Changes the quantization_config."""
    def apply(c, module):
        change(c.quantization)
    return apply


def _remove(*keys):
    def change(config):
        for key in keys:
            config.pop(key, None)
    return configure(change)


def _weights_of_group(**values):
    def change(config):
        config["config_groups"]["group_0"]["weights"].update(values)
    return configure(change)


def stale(c, module):
    """Weight and scale of an earlier step."""
    name, dtype, array = weight(c, module)
    values = f32_of_bf16(c.reference[name])
    moved = values + numpy.random.default_rng(3).normal(0, 0.01, values.shape).astype(numpy.float32)
    codes, scales = scaled(c.scheme, f32_of_bf16(bf16(moved)))
    c.tensors[name] = (dtype, codes)
    c.tensors[c.scale_name(module)] = ("F32", scales)


def swap_kv(c, module):
    """k and v exchanged, scales too."""
    for leaf in ("weight", c.leaf):
        a, b = f"{K}.{leaf}", f"{V}.{leaf}"
        c.tensors[a], c.tensors[b] = c.tensors[b], c.tensors[a]


def as_bf16(keep_scale):
    """The weight in BF16 although nothing says so."""
    def apply(c, module):
        c.tensors[module + ".weight"] = ("BF16", c.reference[module + ".weight"])
        if not keep_scale:
            del c.tensors[c.scale_name(module)]
    return apply


def scale_dtype(dtype, every=True):
    """Scales in another dtype."""
    def apply(c, module):
        for one in (c.modules() if every else [module]):
            name, _, array = scale(c, one)
            stored = {"BF16": bf16, "F16": lambda a: a.astype(numpy.float16),
                      "U8": lambda a: numpy.full(a.shape, 119, numpy.uint8)}[dtype](array)
            c.tensors[name] = (dtype, stored)
            if dtype != "U8":
                # Whoever stores rounded scales quantizes with them.
                exact = f32_of_bf16(stored) if dtype == "BF16" else stored.astype(numpy.float32)
                requantize(c, one, exact)
    return apply


def requantize(c, module, scales):
    """Codes for given scales."""
    name = module + ".weight"
    values = f32_of_bf16(c.reference[name])
    rows, cols = values.shape
    grid = scales.reshape(scales.shape[0], scales.shape[2]) if scales.ndim == 4 else scales
    if grid.ndim == 1:
        grid = grid[:, None]
    high, wide = (128, 128) if c.scheme in ("block", "ct-block", "pbwo") else \
        (-(-rows // grid.shape[0]), -(-cols // grid.shape[1]))
    spread = numpy.repeat(numpy.repeat(grid, high, 0), wide, 1)[:rows, :cols]
    ratio = numpy.clip((values / spread).astype(numpy.float32), -448, 448)
    c.tensors[name] = ("F8_E4M3", ratio.astype(float8()).view(numpy.uint8))


def blocks_of_64(c, module):
    """Every scale grid twice as fine."""
    for one in c.modules():
        codes, scales = quantized(f32_of_bf16(c.reference[one + ".weight"]), 64, 64)
        c.tensors[one + ".weight"] = ("F8_E4M3", codes)
        c.tensors[c.scale_name(one)] = ("F32", scales)


def extra_layer(c, module):
    """A third layer that the configuration does not have."""
    for name in [name for name in c.tensors if name.startswith("model.layers.1.")]:
        c.tensors[name.replace(".layers.1.", ".layers.2.")] = c.tensors[name]


def resize_raw(rows):
    """A tensor in BF16 with more or fewer rows."""
    def apply(c, module):
        name, dtype, array = weight(c, module)
        c.tensors[name] = (dtype, array[:rows] if rows < 0 else
                           numpy.concatenate([array, array[:rows]]))
    return apply


def tied_head(equal):
    """The head stored although it is tied."""
    def apply(c, module):
        dtype, array = c.tensors["model.embed_tokens.weight"]
        c.tensors["lm_head.weight"] = (dtype, array if equal else numpy.roll(array, 1, 0))
    return apply


def quantize_head(c, module):
    """The head in FP8 with a scale, not on any list."""
    codes, scales = scaled(c.scheme, f32_of_bf16(c.reference["lm_head.weight"]))
    c.tensors["lm_head.weight"] = ("F8_E4M3", codes)
    c.tensors["lm_head." + c.leaf] = ("F32", scales)


def stack_experts(c, module):
    """Experts of every layer as 3-D tensors under the names that transformers has in memory."""
    for layer in range(2):
        at = f"model.layers.{layer}.mlp.experts."
        numbers = sorted({int(name[len(at):].split(".")[0]) for name in c.tensors
                          if name.startswith(at)})
        for suffix, kind in (("", "weight"), ("_scale_inv", c.leaf)):
            parts = {part: [c.tensors.pop(f"{at}{e}.{part}_proj.{kind}") for e in numbers]
                     for part in ("gate", "up", "down")}
            dtype = parts["gate"][0][0]
            c.tensors[at + "gate_up_proj" + suffix] = (dtype, numpy.stack(
                [numpy.concatenate([g[1], u[1]]) for g, u in zip(parts["gate"], parts["up"])]))
            c.tensors[at + "down_proj" + suffix] = (
                dtype, numpy.stack([d[1] for d in parts["down"]]))


def add(name, dtype, array):
    """A tensor that no model has."""
    def apply(c, module):
        c.tensors[name] = (dtype, array)
    return apply


def split_files(c, module):
    """Two files with an index, as transformers 5 writes it."""
    c.files = 2
    c.index_extra = {"total_parameters": 12345}


def skip(*modules):
    """Modules in BF16 and listed."""
    def apply(c, module):
        for one in modules or [module]:
            c.skip(one)
    return apply


def unlist(part):
    """Takes every module whose name contains `part` off the skip list."""
    def change(config):
        for key in ("modules_to_not_convert", "ignore"):
            if key in config:
                config[key] = [entry for entry in config[key] if part not in entry]
    return configure(change)


def _reciprocal(array):
    return (1 / array).astype(numpy.float32)


def nothing(c, module):
    """A right checkpoint."""


# name: (fault, module, needs the reference)
FAULTS = {
    "nothing": (nothing, None, False),
    "shards": (split_files, None, False),
    "scale bf16": (scale_dtype("BF16"), None, False),
    "scale f16": (scale_dtype("F16"), None, False),
    "scale u8": (scale_dtype("U8", every=False), DOWN, False),
    "scale name": (rename_scale(), DOWN, False),
    "scale names": (rename_scale(), None, False),
    "attention scale names": (rename_scale("self_attn"), None, False),
    "scale missing": (drop("scale"), Q, False),
    "weight missing": (drop("weight"), K, False),
    "weight and scale missing": (drop("weight", "scale"), K, False),
    "layer missing": (drop_all("model.layers.1."), None, False),
    "expert missing": (drop_all("model.layers.0.mlp.experts.2."), None, False),
    "norm missing": (drop("weight"), "model.layers.0.input_layernorm", False),
    "bias missing": (drop("bias"), K, False),
    "embedding missing": (drop("weight"), "model.embed_tokens", False),
    "router missing": (drop("weight"), "model.layers.0.mlp.gate", False),
    "scale 0d": (change_scale(lambda a: a.reshape(-1)[0].reshape(())), O, False),
    "scales 0d": (change_scale(lambda a: a.reshape(-1)[0].reshape(()), every=True), None, False),
    "scale 1d": (change_scale(lambda a: a.reshape(-1)), Q, False),
    "scales 2d": (change_scale(lambda a: a[:, None] if a.ndim == 1 else a[:, 0, :, 0], every=True),
                  None, False),
    "scale 3d": (change_scale(lambda a: a[None]), O, False),
    "scale 1x1": (change_scale(lambda a: a.reshape(-1)[:1].reshape(1, 1)), Q, False),
    "scale 1xn": (change_scale(lambda a: a.reshape(1, -1)), Q, False),
    "scale one element": (change_scale(lambda a: a.reshape(-1)[:1]), O, False),
    "scale two elements": (change_scale(lambda a: numpy.concatenate([a, a])), O, False),
    "scale rows short": (change_scale(lambda a: a[:-1]), Q, False),
    "scale cols short": (change_scale(lambda a: a[:, :-1]), DOWN, False),
    "scale rows long end": (change_scale(lambda a: numpy.concatenate([a, a[:1]])), Q, False),
    "scale rows long front": (change_scale(lambda a: numpy.concatenate([a[:1], a])), Q, False),
    "scale 64 short": (change_scale(lambda a: a[:-64]), Q, False),
    "scale 64 long end": (change_scale(lambda a: numpy.concatenate([a, a[:64]])), Q, False),
    "scale 64 long front": (change_scale(lambda a: numpy.concatenate([a[:64], a])), GATE, False),
    "scale transposed": (change_scale(lambda a: numpy.ascontiguousarray(a.T)), DOWN, False),
    "scale reversed": (change_scale(lambda a: numpy.ascontiguousarray(a[::-1])), O, True),
    "scale reciprocal": (change_scale(_reciprocal), DOWN, True),
    "scale doubled": (change_scale(lambda a: a * numpy.float32(2)), DOWN, True),
    "scale nan": (set_scale(numpy.nan), DOWN, False),
    "scale inf": (set_scale(numpy.inf), DOWN, False),
    "scale zero": (set_scale(0), UP, False),
    "scale huge": (set_scale(3e38), DOWN, False),
    "scale subnormal": (set_scale(1e-40), UP, False),
    "scale negative": (set_scale(-0.001), DOWN, False),
    "blocks of 64": (blocks_of_64, None, False),
    "weight rows long end": (resize(rows=64), Q, False),
    "weight rows long front": (resize(rows=64, front=True), Q, False),
    "weight rows short": (resize(rows=-64), Q, False),
    "weight cols long end": (resize(cols=128), O, False),
    "weight cols long front": (resize(cols=128, front=True), O, False),
    "weight cols short": (resize(cols=-128), DOWN, False),
    "weight transposed": (lambda c, m: c.tensors.update({m + ".weight": (
        "F8_E4M3", numpy.ascontiguousarray(c.tensors[m + ".weight"][1].T))}), Q, False),
    "weight bf16 with scale": (as_bf16(True), Q, False),
    "weight bf16 without scale": (as_bf16(False), O, False),
    "code 7f": (plant_code(0x7F), GATE, False),
    "code ff": (plant_code(0xFF), O, False),
    "norm short": (resize_raw(-1), "model.layers.0.input_layernorm", False),
    "norm nan": (lambda c, m: c.tensors.update({m + ".weight": (
        "BF16", numpy.where(numpy.arange(256) == 9, 0x7FC0, c.tensors[m + ".weight"][1])
        .astype("<u2"))}), "model.layers.0.input_layernorm", False),
    "vocabulary long": (resize_raw(64), "model.embed_tokens", False),
    "vocabulary short": (resize_raw(-64), "model.embed_tokens", False),
    "extra layer": (extra_layer, None, False),
    "unexpected bias": (add(Q + ".bias", "BF16", bf16(numpy.zeros(512))), Q, False),
    "unknown tensor": (add("model.layers.0.self_attn.rotation.weight", "BF16",
                           bf16(numpy.zeros((4, 4)))), "model.layers.0.self_attn.rotation", False),
    "unknown projection": (add(Q + ".weight", "F8_E4M3", numpy.full((4, 256), 0x30, numpy.uint8)),
                           Q, False),
    "experts stacked": (stack_experts, None, False),
    "head tied equal": (tied_head(True), None, False),
    "head tied different": (tied_head(False), None, False),
    "head quantized": (quantize_head, None, False),
    "stale": (stale, DOWN, True),
    "swapped k v": (swap_kv, None, True),
    "skip down": (skip(DOWN), None, False),
    "skip q": (skip(Q), None, False),
    "skip whole qkv": (skip(Q, K, V), None, False),
    "skip gate": (skip(GATE), None, False),
    "listed but quantized": (lambda c, m: c.list(m), DOWN, False),
    "ignore list empty": (configure(lambda q: q.update(ignore=[])), None, False),
    "routers not listed": (unlist("mlp.gate"), "model.layers.0.mlp.gate", False),
    "config no block size": (_remove("weight_block_size"), None, False),
    "config no activation scheme": (_remove("activation_scheme"), None, False),
    "config static": (configure(lambda q: q.update(activation_scheme="static")), None, False),
    "config blocks of 64": (configure(lambda q: q.update(weight_block_size=[64, 64])), None, False),
    "config one block size": (configure(lambda q: q.update(weight_block_size=[128])), None, False),
    "config no algorithm": (_remove("quant_algo"), None, False),
    "config unknown algorithm": (configure(lambda q: q.update(quant_algo="FP9")), None, False),
    "config no groups": (configure(lambda q: q.update(config_groups={})), None, False),
    "config pack quantized": (configure(lambda q: q.update(format="pack-quantized")), None, False),
    "config strategy tensor": (_weights_of_group(strategy="tensor"), None, False),
    "config strategy channel": (_weights_of_group(strategy="channel", block_structure=None), None,
                                False),
    "config activations by tensor": (configure(
        lambda q: q["config_groups"]["group_0"]["input_activations"].update(strategy="tensor")),
        None, False),
    "config num bits 4": (_weights_of_group(num_bits=4), None, False),
    "config integers": (_weights_of_group(type="int"), None, False),
    "config without method": (_remove("quant_method"), None, False),
    "config of another method": (configure(lambda q: q.update(quant_method="gptq")), None, False),
}


def build_faulty(model, scheme, fault, module=None):
    """A checkpoint with one fault; `module` instead of the fault's own one."""
    c = build(model, scheme)
    function, default, _ = FAULTS[fault]
    function(c, module or default)
    return c
