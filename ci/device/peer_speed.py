# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""How fast PyTorch (eager, compiled) and Triton quantize, decode and check one weight on this device.

    peer_speed.py [--dry-run]

One JSON line a case: median seconds of 20 timed by events after 5 warm-ups, bytes per second, and
of_limit, the time of a copy_ of as many bytes in the same run over the median. The counterparts of
refitbench-micro's quantize/prime-rl-blockwise/cuda, quantize/prime-rl-channelwise/cuda and
dequantize/cuda, over the same shapes. Before it is timed, each implementation's codes are compared
with those of PyTorch's eager mode; how many differ is in the line.

--dry-run: on the CPU, one small shape, Triton by its interpreter, nothing compiled or timed: that the
implementations agree and the script runs. Exit code 77 without PyTorch or a device, 1 when the
implementations disagree by more than 1 code in 1000 (a division that is not rounded to nearest moves
some).
"""

import json
import os
import statistics
import sys

DRY = "--dry-run" in sys.argv[1:]
if set(sys.argv[1:]) - {"--dry-run"}:
    print(f"peer_speed.py: unknown arguments {sys.argv[1:]}; known: --dry-run", file=sys.stderr)
    sys.exit(2)
if DRY:
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

try:
    import torch
except ImportError:
    print("skipped: no PyTorch in this Python")
    sys.exit(77)
if not DRY and not torch.cuda.is_available():
    print("skipped: PyTorch finds no CUDA device")
    sys.exit(77)
try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

_TILE = 128
_SHAPES = ((256, 384),) if DRY else ((4096, 4096), (16384, 8192))
_DEVICE = "cpu" if DRY else "cuda"
_RECIPROCAL = float(torch.tensor(1.0) / torch.tensor(448.0))
_DISAGREEMENTS = []


def quantize_blocks(weight):
    """Codes and scales by tiles of 128 x 128 of a BF16 matrix whose sides are multiples of 128."""
    rows, cols = weight.shape
    tiles = weight.float().view(rows // _TILE, _TILE, cols // _TILE, _TILE)
    amax = tiles.abs().amax(dim=(1, 3), keepdim=True)
    scale = torch.clamp(amax * _RECIPROCAL, min=1e-12)
    codes = torch.clamp(tiles / scale, -448.0, 448.0).to(torch.float8_e4m3fn)
    return codes.view(rows, cols), scale.view(rows // _TILE, cols // _TILE)


def quantize_rows(weight):
    """The same by whole rows."""
    values = weight.float()
    scale = torch.clamp(values.abs().amax(dim=1, keepdim=True) * _RECIPROCAL, min=1e-12)
    return torch.clamp(values / scale, -448.0, 448.0).to(torch.float8_e4m3fn), scale


def dequantize_blocks(codes, scale):
    """BF16 from what quantize_blocks gave."""
    rows, cols = codes.shape
    tiles = codes.float().view(rows // _TILE, _TILE, cols // _TILE, _TILE)
    return (tiles * scale.view(rows // _TILE, 1, cols // _TILE, 1)).bfloat16().view(rows, cols)


def error_sums(weight, codes, scale):
    """Sums of x^2 and of the squared error: what an SQNR is made of."""
    values = weight.float()
    error = dequantize_blocks(codes, scale).float() - values
    return (values * values).sum(), (error * error).sum()


# Triton 3.9.0's interpreter loses the carry of a rounding into the next exponent when it casts to
# float8e4nv (125.6 gives 64, not 128). There the kernels store F32, and PyTorch casts.
_STORED = torch.float32 if DRY else torch.float8_e4m3fn


if triton is not None:
    @triton.jit
    def _blocks(source, codes, scales, cols, reciprocal, tile: tl.constexpr):
        """One program a tile: read once, amax, scale, codes."""
        row, col = tl.program_id(0), tl.program_id(1)
        at = ((row * tile + tl.arange(0, tile))[:, None] * cols
              + (col * tile + tl.arange(0, tile))[None, :])
        x = tl.load(source + at).to(tl.float32)
        scale = tl.maximum(tl.max(tl.abs(x)) * reciprocal, 1e-12)
        code = tl.clamp(tl.div_rn(x, tl.full((tile, tile), scale, tl.float32)), -448.0, 448.0)
        tl.store(codes + at, code.to(codes.dtype.element_ty))
        tl.store(scales + row * (cols // tile) + col, scale)

    @triton.jit
    def _rows(source, codes, scales, cols, reciprocal, width: tl.constexpr):
        """One program a row, which it holds whole."""
        row = tl.program_id(0)
        inside = tl.arange(0, width)
        x = tl.load(source + row * cols + inside, mask=inside < cols, other=0.0).to(tl.float32)
        scale = tl.maximum(tl.max(tl.abs(x)) * reciprocal, 1e-12)
        code = tl.clamp(tl.div_rn(x, tl.full((width,), scale, tl.float32)), -448.0, 448.0)
        tl.store(codes + row * cols + inside, code.to(codes.dtype.element_ty), mask=inside < cols)
        tl.store(scales + row, scale)


def triton_blocks(weight):
    """quantize_blocks in Triton."""
    rows, cols = weight.shape
    codes = torch.empty(rows, cols, dtype=_STORED, device=weight.device)
    scales = torch.empty(rows // _TILE, cols // _TILE, device=weight.device)
    _blocks[(rows // _TILE, cols // _TILE)](weight, codes, scales, cols, _RECIPROCAL, tile=_TILE,
                                            num_warps=8)
    return codes.to(torch.float8_e4m3fn), scales


def triton_rows(weight):
    """quantize_rows in Triton."""
    rows, cols = weight.shape
    codes = torch.empty(rows, cols, dtype=_STORED, device=weight.device)
    scales = torch.empty(rows, 1, device=weight.device)
    _rows[(rows,)](weight, codes, scales, cols, _RECIPROCAL, width=triton.next_power_of_2(cols),
                   num_warps=8)
    return codes.to(torch.float8_e4m3fn), scales


def median_seconds(call):
    """Median of 20 timings by CUDA events."""
    for _ in range(5):
        call()
    seconds = []
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) * 1e-3)
    return statistics.median(seconds)


def copy_seconds(count):
    """Median of a copy on the device that reads and writes `count` bytes together."""
    source = torch.empty(count // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return median_seconds(lambda: target.copy_(source))


def report(name, shape, moved, call, expected=None):
    """Compares and times `call`, which moves `moved` bytes, and prints its line; a case that cannot run
    says why."""
    line = {"peer": name, "rows": shape[0], "cols": shape[1], "torch": torch.__version__,
            "device": "cpu" if DRY else torch.cuda.get_device_name()}
    try:
        found = call()
        if expected is not None:
            differing = int((found[0].view(torch.uint8) != expected[0].view(torch.uint8)).sum())
            line["differing_codes"] = differing
            line["differing_scales"] = int((found[1] != expected[1]).sum())
            if differing > shape[0] * shape[1] / 1000:
                _DISAGREEMENTS.append(name)
        if not DRY:
            line["seconds"] = median_seconds(call)
            line["bytes_per_s"] = moved / line["seconds"]
            line["of_limit"] = copy_seconds(moved) / line["seconds"]
    except Exception as error:  # pylint: disable=broad-except
        if DRY:
            raise
        line["skipped"] = f"{type(error).__name__}: {error}".splitlines()[0]
    print(json.dumps(line), flush=True)


def compiled(call):
    """torch.compile of `call`; in a dry run `call` itself."""
    return call if DRY else torch.compile(call)


def main():
    """All cases over all shapes; the exit code."""
    torch.manual_seed(1)
    for shape in _SHAPES:
        elements = shape[0] * shape[1]
        weight = (torch.randn(*shape, device=_DEVICE) * 0.02).bfloat16()
        for kind, eager, in_triton in (("blocks", quantize_blocks, "triton_blocks"),
                                       ("rows", quantize_rows, "triton_rows")):
            expected = eager(weight)
            report(f"quantize {kind}, torch eager", shape, 3 * elements, lambda: eager(weight))
            faster = compiled(eager)
            report(f"quantize {kind}, torch.compile", shape, 3 * elements, lambda: faster(weight),
                   expected)
            if triton is None:
                print(json.dumps({"peer": f"quantize {kind}, Triton", "skipped": "not installed"}))
                continue
            ours = globals()[in_triton]
            report(f"quantize {kind}, Triton", shape, 3 * elements, lambda: ours(weight), expected)
        codes, scale = quantize_blocks(weight)
        for name, call in (("torch eager", dequantize_blocks),
                           ("torch.compile", compiled(dequantize_blocks))):
            report(f"dequantize, {name}", shape, 3 * elements, lambda: call(codes, scale))
        for name, call in (("torch eager", error_sums), ("torch.compile", compiled(error_sums))):
            report(f"check, {name}", shape, 3 * elements, lambda: call(weight, codes, scale))
    if _DISAGREEMENTS:
        print("failed: other codes than PyTorch's eager mode: " + "; ".join(_DISAGREEMENTS))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
