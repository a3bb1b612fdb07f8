# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What PyTorch and Triton do on this device, where recipes depend on it. One JSON line a question.

Exit code 77 without PyTorch or a device, 1 when an answer is not the one that the recipes have.
"""

import json
import sys

try:
    import torch
except ImportError:
    print("skipped: no PyTorch in this Python")
    sys.exit(77)
if not torch.cuda.is_available():
    print("skipped: PyTorch finds no CUDA device")
    sys.exit(77)

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

_WRONG = []


def answer(question, expected, found, **more):
    """Prints one line; an answer that is not the expected one is remembered."""
    if expected is not None and expected != found:
        _WRONG.append(question)
    print(json.dumps({"question": question, "expected": expected, "found": found, **more}))


def all_positive_bf16():
    """Every positive finite BF16 value as F32 on the device."""
    bits = torch.arange(1, 0x7F80, dtype=torch.int32, device="cuda") << 16
    return bits.view(torch.float32)


def bits_equal(left, right):
    """How many of two F32 tensors' elements have other bits."""
    return int((left.view(torch.int32) != right.view(torch.int32)).sum())


def torch_questions():
    """Division of a tensor by a number, and the cast, on the device."""
    amax = all_positive_bf16()
    reciprocal = torch.tensor(1.0, dtype=torch.float32) / torch.tensor(448.0, dtype=torch.float32)
    by_reciprocal = amax * reciprocal.to("cuda")
    divided = amax / 448.0
    answer("tensor / 448.0 on CUDA has the bits of tensor * fl32(1/448)", 0,
           bits_equal(divided, by_reciprocal))
    by_tensor = amax / torch.full_like(amax, 448.0)
    ieee = (amax.cpu().double() / 448.0).float().to("cuda")
    # The double quotient is rounded twice, which cannot change an F32 quotient of two F32 numbers
    # that is normal.
    normal = ieee >= 2.0 ** -126
    answer("tensor / tensor(448) on CUDA is the IEEE quotient", 0,
           bits_equal(by_tensor[normal], ieee[normal]))
    values = torch.tensor([float("inf"), -float("inf"), 1e9, 464.0, 465.0, float("nan"), -0.0],
                          device="cuda")
    codes = values.to(torch.float8_e4m3fn).view(torch.uint8).tolist()
    answer("cast of inf, -inf, 1e9, 464, 465, nan, -0 to float8_e4m3fn", None, codes,
           torch=torch.__version__)


def triton_questions():
    """`/`, div_rn, and NaN through max and clamp, in Triton."""

    @triton.jit
    def divide(left, right, plain, rounded, count, block: tl.constexpr):
        at = tl.program_id(0) * block + tl.arange(0, block)
        mask = at < count
        x = tl.load(left + at, mask=mask, other=1.0)
        y = tl.load(right + at, mask=mask, other=1.0)
        tl.store(plain + at, x / y, mask=mask)
        tl.store(rounded + at, tl.div_rn(x, y), mask=mask)

    @triton.jit
    def reduce_and_clamp(source, largest, clamped, block: tl.constexpr):
        at = tl.arange(0, block)
        x = tl.load(source + at)
        tl.store(largest, tl.max(tl.abs(x)))
        tl.store(clamped + at, tl.clamp(x, -448.0, 448.0))

    amax = all_positive_bf16()
    other = torch.full_like(amax, 448.0)
    plain, rounded = torch.empty_like(amax), torch.empty_like(amax)
    divide[(triton.cdiv(amax.numel(), 1024),)](amax, other, plain, rounded, amax.numel(), block=1024)
    exact = amax / other
    answer("Triton's div_rn is the IEEE quotient", 0, bits_equal(rounded, exact))
    answer("Triton's / differs from the IEEE quotient in so many of 32639", None,
           bits_equal(plain, exact), triton=triton.__version__)
    source = torch.ones(64, device="cuda")
    source[7] = float("nan")
    largest = torch.zeros(1, device="cuda")
    clamped = torch.zeros_like(source)
    reduce_and_clamp[(1,)](source, largest, clamped, block=64)
    answer("the maximum of 63 ones and a NaN in Triton is a number", True,
           not bool(largest.isnan().any()))
    answer("a NaN clamped to +-448 in Triton becomes", -448.0, float(clamped[7]))


torch_questions()
if triton is None:
    print(json.dumps({"question": "Triton", "found": "not installed"}))
else:
    try:
        triton_questions()
    except Exception as error:  # pylint: disable=broad-except
        # Triton builds its launcher with a C compiler, which such a machine need not have.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps({"question": "Triton", "found": "does not run here", "reason": reason}))
if _WRONG:
    print("failed: " + "; ".join(_WRONG))
sys.exit(1 if _WRONG else 0)
