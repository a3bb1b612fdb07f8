# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""How fast PyTorch quantizes one weight by tiles of 128 x 128 on this device, eager and compiled.

One JSON line a case: median seconds of 20 timed by events after 5 warm-ups, and bytes per second (2
read and 1 written an element). The counterpart of refitbench-micro's quantize/prime-rl-blockwise/cuda.
Exit code 77 without PyTorch or a device.
"""

import json
import statistics
import sys

try:
    import torch
except ImportError:
    print("skipped: no PyTorch in this Python")
    sys.exit(77)
if not torch.cuda.is_available():
    print("skipped: PyTorch finds no CUDA device")
    sys.exit(77)

_TILE = 128


def quantize(weight):
    """Codes and scales of a [rows, cols] BF16 matrix whose sides are multiples of 128."""
    rows, cols = weight.shape
    tiles = weight.float().view(rows // _TILE, _TILE, cols // _TILE, _TILE)
    amax = tiles.abs().amax(dim=(1, 3), keepdim=True)
    scale = torch.clamp(amax / 448.0, min=1e-12)
    codes = torch.clamp(tiles / scale, -448.0, 448.0).to(torch.float8_e4m3fn)
    return codes.view(rows, cols), scale.view(rows // _TILE, cols // _TILE)


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


def report(name, rows, cols, call):
    """Times `call` and prints its line; a case that cannot run says why."""
    line = {"peer": name, "rows": rows, "cols": cols, "device": torch.cuda.get_device_name(),
            "torch": torch.__version__}
    try:
        line["seconds"] = median_seconds(call)
        line["bytes_per_s"] = 3 * rows * cols / line["seconds"]
    except Exception as error:  # pylint: disable=broad-except
        line["skipped"] = f"{type(error).__name__}: {error}".splitlines()[0]
    print(json.dumps(line))


for out_size, in_size in ((4096, 4096), (16384, 8192)):
    matrix = torch.randn(out_size, in_size, device="cuda").bfloat16()
    target = torch.empty_like(matrix)
    report("torch copy_ of the matrix (2 read, 2 written: take 4/3)", out_size, in_size,
           lambda m=matrix, t=target: t.copy_(m))
    report("torch eager", out_size, in_size, lambda m=matrix: quantize(m))
    compiled = torch.compile(quantize)
    report("torch.compile", out_size, in_size, lambda m=matrix: compiled(m))
