// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The recipes, each a row of data. A row is here only with a golden file of its own in
// tests/golden/recipes, made by an independent implementation.
#include <string>
#include <utility>
#include <vector>

#include "quant/recipe.hpp"

namespace refit::quant {
namespace {

using numerics::Edge;
using numerics::FloorOn;
using numerics::NonfiniteInput;
using numerics::PowerOfTwo;
using numerics::Quotient;
using numerics::ScaleFormula;
using numerics::ScaleStorage;
using numerics::SpecialAmax;
using numerics::TileScaling;

/// 1e-12 as BF16 tensors hold it: 1.00186526e-12.
constexpr float kBf16TinyFloor = 0x1.1ap-40F;
/// The bounds that ModelOpt puts on an amax: the smallest normal and the largest finite BF16.
constexpr float kSmallestNormal = 0x1p-126F;
constexpr float kBf16Max = 0x1.fep+127F;

constexpr const char* kBlockSuffix = "weight_scale_inv";
constexpr const char* kPlainSuffix = "weight_scale";

constexpr const char* kPrimeRl =
    "PrimeIntellect-ai/prime-rl @ 559b4477, src/prime_rl/trainer/models/fp8.py, "
    "quantize_to_fp8_blockwise";
constexpr const char* kPrimeRlChannel =
    "PrimeIntellect-ai/prime-rl pull request 2415 @ 6e9df4e2, "
    "src/prime_rl/trainer/models/fp8.py, quantize_to_fp8_channelwise";
constexpr const char* kNemoRl =
    "NVIDIA-NeMo/RL @ 7ea279ab, nemo_rl/models/generation/vllm/quantization/fp8.py, "
    "cast_tensor_to_fp8_blockwise";
constexpr const char* kAreal =
    "areal-project/AReaL pull request 1379 @ 287e16d9, torch fallback of the blockwise cast";
constexpr const char* kNemoRl2037 =
    "NVIDIA-NeMo/RL pull request 2037 @ a4d2cf3b, fp8_train_utils.py, the blockwise cast after "
    "nan_to_num(nan=0, posinf=448, neginf=-448)";
constexpr const char* kArealTriton =
    "areal-project/AReaL pull request 1379 @ 287e16d9, areal/utils/kernel/fp8_kernel.py, "
    "scaled_fp8_blockwise, Triton kernel";
constexpr const char* kArealMegatron =
    "areal-project/AReaL @ cbff54d6, areal/engine/megatron_utils/fp8/quantize.py, _quantize_param";
constexpr const char* kSlimeOnline =
    "THUDM/slime @ 624b824a, slime/backends/megatron_utils/kernels/fp8_kernel.py, Triton kernel";
constexpr const char* kVerlTriton =
    "verl-project/verl @ 1dda039b, verl/utils/kernel/fp8_kernel.py, Triton kernel";
constexpr const char* kOcpMx =
    "Open Compute Project, Microscaling Formats (MX) 1.0, section 6.3, with E4M3 elements";
constexpr const char* kModelOptMx =
    "NVIDIA/Model-Optimizer @ a2fbac7b, modelopt/torch/quantization/qtensor/mxfp8_tensor.py";
constexpr const char* kVerl =
    "verl-project/verl @ 1dda039b, verl/utils/kernel/fp8_kernel.py, torch fallback";
constexpr const char* kSlimeOffline = "THUDM/slime @ 624b824a, tools/convert_hf_to_fp8.py";
constexpr const char* kModelOpt =
    "NVIDIA/Model-Optimizer @ a2fbac7b and pull request 1807 @ 8251f485, "
    "modelopt/torch/quantization/qtensor/fp8_tensor.py and modelopt/torch/export";
constexpr const char* kDeepGemm =
    "deepseek-ai/DeepGEMM @ 54e22612, deep_gemm/utils/math.py, per_block_cast_to_fp8";
constexpr const char* kModelOptScalar =
    "NVIDIA/Model-Optimizer, nvidia-modelopt 0.47.0, modelopt/torch/export/quant_utils.py, "
    "get_scaling_factor and to_quantized_weight, on BF16 weights";
constexpr const char* kLlmCompressor =
    "vllm-project/llm-compressor 0.14.0.1 with compressed-tensors 0.19.0, "
    "quantization/utils/helpers.py, calculate_qparams, and "
    "quantization/lifecycle/forward_helpers.py, on BF16 weights";
constexpr const char* kTransformers =
    "huggingface/transformers 5.23.0, src/transformers/integrations/finegrained_fp8.py, "
    "Fp8Quantize, which leaves a matrix that whole blocks do not divide in BF16";
constexpr const char* kCompressedTensors =
    "vllm-project/compressed-tensors @ ac8e2ba82f4e, calculate_qparams and quantize";

/// Rows of scales instead of blocks.
TileScaling by_rows(TileScaling scaling) {
    scaling.tile_rows = 1;
    scaling.tile_cols = 0;
    return scaling;
}

TileScaling whole_tensor(TileScaling scaling) {
    scaling.tile_rows = 0;
    scaling.tile_cols = 0;
    return scaling;
}

TileScaling prime_rl() {
    TileScaling s;
    s.floor_on = FloorOn::scale;
    s.floor_value = 1e-12F;
    return s;
}

TileScaling slime_offline() {
    TileScaling s;
    s.floor_on = FloorOn::amax;
    s.floor_value = kBf16TinyFloor;
    return s;
}

TileScaling modelopt() {
    TileScaling s;
    s.special_amax = SpecialAmax::amax_is_448;
    s.floor_on = FloorOn::amax;
    s.floor_value = kSmallestNormal;
    s.amax_ceiling = kBf16Max;
    s.clamp = false;
    return s;
}

TileScaling deepgemm() {
    TileScaling s;
    s.floor_on = FloorOn::amax;
    s.floor_value = 1e-4F;
    s.quotient = Quotient::multiply_by_reciprocal;
    s.clamp = false;
    return s;
}

TileScaling compressed_tensors() {
    TileScaling s;
    s.zero_scale = 0x1p-23F;
    s.add_zero = true;
    return s;
}

/// On BF16 tensors, which every step rounds to. BF16's machine epsilon stands for a scale of 0.
TileScaling llm_compressor() {
    TileScaling s = compressed_tensors();
    s.zero_scale = 0x1p-7F;
    s.round_scale_to_bf16 = true;
    s.round_quotient_to_bf16 = true;
    s.scale_storage = ScaleStorage::bf16;
    return s;
}

/// BF16 tensors by an F32 scalar tensor: a CUDA device first rounds the scalar to BF16, a CPU does
/// not (ATen/native/cuda/BinaryDivTrueKernel.cu and cpu/BinaryOpsKernel.cpp).
TileScaling by_a_scalar(TileScaling scaling, bool on_cuda) {
    scaling = whole_tensor(scaling);
    scaling.round_scale_to_bf16 = on_cuda;
    scaling.round_quotient_to_bf16 = true;
    return scaling;
}

TileScaling transformers() {
    TileScaling s;
    s.formula = ScaleFormula::reciprocal_amax_times_448;
    s.special_amax = SpecialAmax::factor_is_one_unless_positive;
    s.quotient = Quotient::multiply_by_factor;
    return s;
}

TileScaling nemo_rl_linear() {
    TileScaling s;
    s.formula = ScaleFormula::reciprocal_amax_times_448;
    s.special_amax = SpecialAmax::factor_is_one;
    s.quotient = Quotient::multiply_by_factor;
    s.edge = Edge::pad_last_element;
    return s;
}

TileScaling nemo_rl_pow2() {
    TileScaling s;
    s.power_of_two = PowerOfTwo::exponent_byte;
    s.quotient = Quotient::multiply_by_factor;
    s.edge = Edge::pad_last_element;
    return s;
}

TileScaling verl_torch() {
    TileScaling s;
    s.formula = ScaleFormula::c448_over_amax;
    s.special_amax = SpecialAmax::factor_is_one;
    s.quotient = Quotient::multiply_by_factor;
    return s;
}

TileScaling areal_torch() {
    TileScaling s = verl_torch();
    s.floor_on = FloorOn::amax;
    s.floor_value = 1e-10F;
    return s;
}

/// What nan_to_num does before the cast.
TileScaling with_replacement(TileScaling scaling) {
    scaling.nonfinite_input = NonfiniteInput::replace;
    return scaling;
}

/// The kernel that AReaL, slime and verl share; its maxima and minima drop NaN.
TileScaling triton() {
    TileScaling s;
    s.floor_on = FloorOn::amax;
    s.floor_value = 1e-10F;
    s.quotient = Quotient::multiply_by_reciprocal;
    s.nonfinite_input = NonfiniteInput::drop_nan;
    return s;
}

TileScaling areal_megatron() {
    TileScaling s = triton();
    s.scale_storage = ScaleStorage::bf16;
    return s;
}

TileScaling mxfp8() {
    TileScaling s;
    s.tile_rows = 1;
    s.tile_cols = 32;
    s.power_of_two = PowerOfTwo::e8m0_floor;
    s.scale_storage = ScaleStorage::e8m0;
    return s;
}

TileScaling mxfp8_ceil() {
    TileScaling s = mxfp8();
    s.power_of_two = PowerOfTwo::e8m0_ceil;
    s.quotient = Quotient::multiply_by_factor;
    return s;
}

TileScaling mxfp8_above() {
    TileScaling s = mxfp8();
    s.power_of_two = PowerOfTwo::e8m0_above;
    s.add_zero = true;
    s.round_quotient_to_bf16 = true;
    return s;
}

class Catalog {
 public:
    void add(Recipe recipe) { rows_.push_back(std::move(recipe)); }

    /// A source that divides a tensor by a Python number: NAME as on CUDA, where PyTorch multiplies
    /// by fl32(1/448), and NAME-cpu with the IEEE division.
    void add_twins(Recipe recipe) {
        Recipe on_cpu = recipe;
        on_cpu.scaling.round_scale_to_bf16 = false;
        recipe.scaling.formula = ScaleFormula::amax_times_reciprocal_448;
        recipe.summary += "; amax / 448 as amax * fl32(1/448), as PyTorch on CUDA";
        on_cpu.name += "-cpu";
        on_cpu.summary += "; amax / 448 as IEEE division, as PyTorch on a CPU";
        add(std::move(recipe));
        add(std::move(on_cpu));
    }

    [[nodiscard]] std::vector<Recipe> take() && { return std::move(rows_); }

 private:
    std::vector<Recipe> rows_;
};

void add_llm_compressor(Catalog& catalog) {
    const std::string formula =
        "s = bf16(amax / 448), 0 -> 2^-7, Q(clamp(bf16(x / s) + 0)), BF16 scale";
    catalog.add({"llm-compressor-channel", Scheme::fp8_channelwise, by_rows(llm_compressor()),
                 kPlainSuffix, 2, "by rows: " + formula, kLlmCompressor});
    catalog.add({"llm-compressor-block", Scheme::fp8_blockwise, llm_compressor(), kPlainSuffix, 2,
                 formula, kLlmCompressor});
    catalog.add({"llm-compressor-tensor", Scheme::fp8_tensorwise, whole_tensor(llm_compressor()),
                 kPlainSuffix, 1, "whole tensor: " + formula, kLlmCompressor});
    catalog.add(
        {"llm-compressor-mxfp8", Scheme::mxfp8, mxfp8_above(), kPlainSuffix, 2,
         "smallest e in [-127, 127] with 448 * 2^e > amax, byte e + 127, Q(clamp(x / 2^e "
         "+ 0)); 255 from amax 1.75 * 2^127 on, where the source's byte depends on the device",
         kLlmCompressor});
}

std::vector<Recipe> make_catalog() {
    Catalog catalog;
    catalog.add_twins({"prime-rl-blockwise", Scheme::fp8_blockwise, prime_rl(), kBlockSuffix, 2,
                       "s = max(amax / 448, 1e-12), Q(clamp(x / s)), zero padding", kPrimeRl});
    catalog.add_twins({"prime-rl-channelwise", Scheme::fp8_channelwise, by_rows(prime_rl()),
                       kPlainSuffix, 2, "by rows: s = max(amax / 448, 1e-12), Q(clamp(x / s))",
                       kPrimeRlChannel});
    catalog.add({"nemo-rl-linear", Scheme::fp8_blockwise, nemo_rl_linear(), kBlockSuffix, 2,
                 "f = fl32(fl32(1/amax) * 448), 1 where amax is 0 or Inf, Q(clamp(x * f)), "
                 "s = fl32(1/f); edge tiles padded with the last element",
                 kNemoRl});
    catalog.add({"nemo-rl-pow2", Scheme::fp8_blockwise, nemo_rl_pow2(), kBlockSuffix, 2,
                 "e = clamp(ceil(log2(amax/448)), -127, 127) + 127, f = 1 if e = 0 else 2^(127-e), "
                 "Q(clamp(x * f)), s = 1/f; edge tiles padded with the last element",
                 kNemoRl});
    catalog.add({"nemo-rl-2037-linear", Scheme::fp8_blockwise, with_replacement(nemo_rl_linear()),
                 kBlockSuffix, 2, "NaN -> 0, Inf -> +-448 in the input, then nemo-rl-linear",
                 kNemoRl2037});
    catalog.add({"nemo-rl-2037-pow2", Scheme::fp8_blockwise, with_replacement(nemo_rl_pow2()),
                 kBlockSuffix, 2, "NaN -> 0, Inf -> +-448 in the input, then nemo-rl-pow2",
                 kNemoRl2037});
    catalog.add({"areal-torch", Scheme::fp8_blockwise, areal_torch(), kBlockSuffix, 2,
                 "f = fl32(448 / max(amax, 1e-10)), 1 where amax is 0 or Inf, Q(clamp(x * f)), "
                 "s = fl32(1/f)",
                 kAreal});
    catalog.add({"verl-torch", Scheme::fp8_blockwise, verl_torch(), kBlockSuffix, 2,
                 "f = fl32(448 / amax), 1 where amax is 0 or Inf, Q(clamp(x * f)), s = fl32(1/f)",
                 kVerl});
    for (const auto& [name, source] :
         {std::pair{"areal-triton", kArealTriton}, std::pair{"slime-online", kSlimeOnline},
          std::pair{"verl-triton", kVerlTriton}}) {
        catalog.add({name, Scheme::fp8_blockwise, triton(), kBlockSuffix, 2,
                     "s = max(amax, 1e-10) / 448, Q(clamp(x * fl32(1/s))), IEEE divisions; NaN "
                     "dropped from amax, a NaN element becomes -448",
                     source});
    }
    catalog.add({"areal-megatron", Scheme::fp8_blockwise, areal_megatron(), kBlockSuffix, 2,
                 "areal-triton, then the scale rounded to BF16", kArealMegatron});
    catalog.add_twins({"slime-offline", Scheme::fp8_blockwise, slime_offline(), kBlockSuffix, 2,
                       "s = max(amax, bf16(1e-12)) / 448, Q(clamp(x / s))", kSlimeOffline});
    catalog.add_twins(
        {"slime-offline-channel", Scheme::fp8_channelwise, by_rows(slime_offline()), kPlainSuffix,
         2, "by rows: s = max(amax, bf16(1e-12)) / 448, Q(clamp(x / s))", kSlimeOffline});
    catalog.add_twins(
        {"modelopt-pb-w8a8", Scheme::fp8_blockwise, modelopt(), kBlockSuffix, 2,
         "a = amax, 0 and NaN -> 448, within [2^-126, bf16 max]; s = a / 448, Q(x / s)",
         kModelOpt});
    catalog.add_twins({"modelopt-pb-wo", Scheme::fp8_blockwise, modelopt(), kPlainSuffix, 4,
                       "the numbers of modelopt-pb-w8a8 with a 4-D scale", kModelOpt});
    catalog.add_twins({"modelopt-pc-pt", Scheme::fp8_channelwise, by_rows(modelopt()), kPlainSuffix,
                       1, "the numbers of modelopt-pb-w8a8 by rows, 1-D scale", kModelOpt});
    catalog.add_twins({"deepgemm", Scheme::fp8_blockwise, deepgemm(), kBlockSuffix, 2,
                       "s = max(amax, 1e-4) / 448, Q(x * fl32(1/s))", kDeepGemm});
    Recipe ue8m0{"deepgemm-ue8m0",
                 Scheme::fp8_blockwise,
                 deepgemm(),
                 kBlockSuffix,
                 2,
                 "s = max(amax, 1e-4) / 448 rounded up to a power of two by its bits, "
                 "Q(x * fl32(1/s))",
                 kDeepGemm};
    ue8m0.scaling.power_of_two = PowerOfTwo::scale_up;
    catalog.add(std::move(ue8m0));
    catalog.add_twins({"compressed-tensors-channel", Scheme::fp8_channelwise,
                       by_rows(compressed_tensors()), kPlainSuffix, 2,
                       "by rows: s = amax / 448, 0 -> 2^-23, Q(clamp(x / s + 0))",
                       kCompressedTensors});
    catalog.add_twins(
        {"tensorwise", Scheme::fp8_tensorwise, whole_tensor(compressed_tensors()), kPlainSuffix, 1,
         "whole tensor: s = amax / 448, 0 -> 2^-23, Q(clamp(x / s + 0))", kCompressedTensors});
    Recipe slime_tensor{"slime-tensorwise",
                        Scheme::fp8_tensorwise,
                        by_a_scalar(slime_offline(), true),
                        kPlainSuffix,
                        1,
                        "whole tensor: s = max(amax, bf16(1e-12)) / 448, Q(clamp(bf16(x / s))); "
                        "on CUDA x / bf16(s)",
                        kSlimeOffline};
    catalog.add_twins(std::move(slime_tensor));
    catalog.add_twins({"modelopt-fp8", Scheme::fp8_tensorwise, by_a_scalar(modelopt(), true),
                       kPlainSuffix, 0,
                       "whole tensor: a as modelopt-pb-w8a8, s = a / 448, Q(bf16(x / s)); on CUDA "
                       "x / bf16(s)",
                       kModelOptScalar});
    add_llm_compressor(catalog);
    catalog.add({"transformers-blockwise", Scheme::fp8_blockwise, transformers(), kBlockSuffix, 2,
                 "f = fl32(fl32(1/amax) * 448), 1 where amax is 0 or NaN, Q(clamp(x * f)), "
                 "s = fl32(1/f)",
                 kTransformers});
    catalog.add({"mxfp8", Scheme::mxfp8, mxfp8(), kPlainSuffix, 2,
                 "e = clamp(floor(log2(amax)) - 8, -127, 127), Q(clamp(x / 2^e)), byte e + 127; "
                 "NaN -> byte 255",
                 kOcpMx});
    catalog.add({"mxfp8-ceil", Scheme::mxfp8, mxfp8_ceil(), kPlainSuffix, 2,
                 "e = clamp(ceil(log2(amax/448)), -127, 127), byte e + 127, 0 where amax is 0 or "
                 "NaN, Q(clamp(x * 2^(127 - byte)))",
                 kModelOptMx});
    return std::move(catalog).take();
}

}  // namespace

const std::vector<Recipe>& recipe_catalog() {
    static const std::vector<Recipe> catalog = make_catalog();
    return catalog;
}

}  // namespace refit::quant
