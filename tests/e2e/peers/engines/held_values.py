# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What the parameters of a loaded model stand for: E4M3 codes times their scales, as F32."""

import torch

UNLOADED_CODE = 0x5A  # A finite code far from the weights of the tests.
UNLOADED = 7.0
SCALES = ("weight_scale_inv", "weight_scale")


def mark_unloaded(model):
    """Gives every weight a value that no checkpoint of the tests has; scales keep the engine's."""
    for name, parameter in model.named_parameters():
        if parameter.dtype == torch.float8_e4m3fn:
            parameter.data.view(torch.uint8).fill_(UNLOADED_CODE)
        elif parameter.is_floating_point() and "scale" not in name:
            parameter.data.fill_(UNLOADED)


def _spread(scales, rows, cols, block):
    """A grid of scales repeated to one a value; the last tiles may be ragged."""
    for axis, (size, wanted) in enumerate(zip((rows, cols), block)):
        count = scales.shape[axis]
        tile = wanted if -(-size // wanted) == count else size // count
        if tile * count < size:
            raise ValueError(f"{count} scales for {size} values of blocks of {wanted}")
        scales = scales.repeat_interleave(tile, axis)
        scales = scales.narrow(axis, 0, size)
    return scales


def _linear(codes, scales, widths, block):
    rows, cols = codes.shape
    if scales.dim() == 4:
        scales = scales[:, 0, :, 0]
    if scales.numel() == rows:
        return codes * scales.reshape(rows, 1)
    if scales.dim() == 2 and block:
        return codes * _spread(scales, rows, cols, block)
    flat = scales.reshape(-1)
    if flat.numel() == 1:
        return codes * flat
    if flat.numel() == len(widths):
        return codes * torch.repeat_interleave(flat, torch.tensor(widths)).reshape(rows, 1)
    raise ValueError(f"scales {tuple(scales.shape)} for a weight {tuple(codes.shape)}")


def _experts(codes, scales, halves, block):
    held = []
    for each, its in zip(codes, scales):
        parts = each.chunk(halves)
        grids = its.reshape(halves, 1) if its.numel() == halves else its.chunk(halves)
        held.append(torch.cat([_linear(part, grid, [part.shape[0]], block)
                               for part, grid in zip(parts, grids)]))
    return torch.stack(held)


def _block_of(module):
    method = getattr(module, "quant_method", None)
    for holder in (module, method, getattr(method, "quant_config", None),
                   getattr(module, "scheme", None)):
        size = getattr(holder, "weight_block_size", None)
        if isinstance(size, (list, tuple)):
            return tuple(size)
    return (128, 128)


def _scale_of(module, stem):
    for leaf in SCALES:
        scale = getattr(module, f"{stem}{leaf}", None)
        if isinstance(scale, torch.Tensor):
            return scale.detach().float()
    raise ValueError(f"{type(module).__name__} holds {stem}weight in E4M3 without a scale")


def held_values(model):
    """{parameter name: F32 values} of everything that is not a scale."""
    held = {}
    for path, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if "scale" in leaf or not parameter.is_floating_point():
                continue
            name, values = f"{path}.{leaf}", parameter.detach().float()
            if parameter.dtype == torch.float8_e4m3fn:
                stem = leaf.removesuffix("weight")
                scales, block = _scale_of(module, stem), _block_of(module)
                if values.dim() == 3:
                    values = _experts(values, scales, 2 if stem == "w13_" else 1, block)
                else:
                    values = _linear(values, scales, getattr(module, "logical_widths", []), block)
            held[name] = values
    return held


def differences(held, intended):
    """Names of the parameters whose values are not the intended ones as E4M3 could hold them."""
    wrong = []
    for name, values in intended.items():
        found = held.get(name)
        if found is None or found.shape != values.shape:
            wrong.append(f"{name} (shape {None if found is None else tuple(found.shape)}, "
                         f"not {tuple(values.shape)})")
            continue
        # Half a unit in the last place of three fraction bits, and of the subnormals of the tensor.
        allowed = values.abs() / 15 + values.abs().max() / 448 / 256
        if not bool(((found - values).abs() <= allowed).all()):
            wrong.append(name)
    return wrong
