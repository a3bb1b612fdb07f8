// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Dtypes and shapes.
#include <algorithm>
#include <vector>

#include "receiver/contract_checker.hpp"

namespace refit::receiver {
namespace {

using core::Severity;
using core::Shape;
using core::to_string;

std::string dtypes_text(const std::vector<core::DType>& dtypes) {
    std::string text;
    for (const core::DType dtype : dtypes) text += (text.empty() ? "" : " or ") + dtype_text(dtype);
    return text;
}

std::string with_rank(const Shape& shape) {
    return to_string(shape) + " (" + std::to_string(shape.size()) + "-D)";
}

/// Types of quantized weights that no contract wants.
bool is_quantizers_other(core::DType dtype) {
    return core::size_bytes(dtype) == 0 || dtype == core::DType::f8_e5m2 ||
           dtype == core::DType::f8_e4m3fnuz || dtype == core::DType::f8_e5m2fnuz;
}

}  // namespace

void ContractChecker::compare_dtype(const wire::ParameterMeta& came, std::size_t index) {
    const wire::WantedParameter& wanted = instance_.wanted[index];
    const bool fits =
        std::find(wanted.dtypes.begin(), wanted.dtypes.end(), came.dtype) != wanted.dtypes.end();
    if (fits) {
        if (came.dtype == core::DType::u8 && !instance_.config.e8m0_scales) codes_of_scales(came);
        return;
    }
    const bool half = came.dtype == core::DType::bf16 || came.dtype == core::DType::f16;
    if (contract_.intersection && half && wanted.dtypes.front() == core::DType::f32) {
        narrow_scale(came);
        return;
    }
    const LoadOutcome outcome = dtype_outcome(row_of(index), came.dtype);
    std::string remedy = "send it as " + dtype_text(wanted.dtypes.front());
    if (!wanted.scale.empty() && is_quantizers_other(came.dtype)) {
        remedy = "quantize the original weights anew, to F8_E4M3";
    } else if (!wanted.scale.empty()) {
        remedy = "quantize it, or leave its module out in the quantization_config";
    } else if (came.dtype == core::DType::f8_e4m3) {
        remedy = "send it in " + dtype_text(wanted.dtypes.front()) +
                 ", or take its module off the skip list of the quantization_config";
    }
    add(came.name, {.check = "dtype",
                    .measured = dtype_text(came.dtype),
                    .limit = dtypes_text(wanted.dtypes),
                    .behaviour = outcome.behaviour,
                    .engine_message = outcome.engine_message,
                    .remedy = remedy,
                    .message = "came as " + dtype_text(came.dtype) + ", the contract wants " +
                               dtypes_text(wanted.dtypes) + "; " +
                               what_happens_to(came.dtype, wanted, outcome)});
}

std::string ContractChecker::what_happens_to(core::DType came, const wire::WantedParameter& wanted,
                                             const LoadOutcome& outcome) const {
    if (core::size_bytes(came) == 0) {
        return "PyTorch has no conversion from this type, so that " + who_ +
               " refuses it or cannot read it";
    }
    if (outcome.behaviour == "raises") return who_ + " refuses it";
    if (came == core::DType::f8_e4m3fnuz || came == core::DType::f8_e5m2fnuz) {
        return who_ +
               " converts value by value, which rounds what the other type lacks, and makes "
               "this type itself out of F8_E4M3 on the devices that need it (AMD's MI300)";
    }
    if (came == core::DType::c64) return who_ + " drops the imaginary parts";
    if (came == core::DType::f64) return who_ + " rounds it";
    if (wanted.scale.empty() && came != core::DType::f8_e4m3 && came != core::DType::f8_e5m2) {
        return who_ + " converts the numbers, whatever they stand for";
    }
    return who_ + " casts it without a scale";
}

void ContractChecker::narrow_scale(const wire::ParameterMeta& came) {
    add(came.name,
        {.check = "dtype",
         .measured = dtype_text(came.dtype),
         .limit = "F32",
         .behaviour = "raises",
         .remedy = "send it as F32, the values stay the same",
         .message = "came as " + dtype_text(came.dtype) +
                    ", the profile wants scales in F32; the engines of this catalogue widen "
                    "it without loss, but there are loaders that take F32 for granted"});
}

void ContractChecker::codes_of_scales(const wire::ParameterMeta& came) {
    add(came.name, {.check = "dtype",
                    .severity = Severity::warning,
                    .measured = dtype_text(came.dtype),
                    .limit = "F32, or scale_fmt \"ue8m0\"",
                    .behaviour = "ignored",
                    .remedy = "write scale_fmt into the quantization_config, or send F32",
                    .message = "came as U8, which " + instance_.engine +
                               " reads as E8M0 exponents although the quantization_config "
                               "does not say so"});
}

void ContractChecker::compare_shape(const wire::ParameterMeta& came, std::size_t index) {
    const wire::WantedParameter& wanted = instance_.wanted[index];
    if (came.shape == wanted.shape) {
        compare_cuts(came, wanted);
        return;
    }
    const auto weight = wanted_.find(wanted.scale_of);
    const LoadOutcome outcome =
        shape_outcome(row_of(index), came.shape, wanted,
                      weight == wanted_.end() ? Shape{} : instance_.wanted[weight->second].shape);
    if (!outcome.behaviour.empty()) report_shape(came, wanted, outcome);
}

void ContractChecker::report_shape(const wire::ParameterMeta& came,
                                   const wire::WantedParameter& wanted,
                                   const LoadOutcome& outcome) {
    const bool other_rank = came.shape.size() != wanted.shape.size();
    const bool same_elements =
        other_rank && core::element_count(came.shape) == core::element_count(wanted.shape);
    const std::string found = other_rank ? with_rank(came.shape) : to_string(came.shape);
    const std::string limit = other_rank ? with_rank(wanted.shape) : to_string(wanted.shape);
    add(came.name, {.check = "shape_contract",
                    .severity = outcome.is_error ? Severity::error : Severity::warning,
                    .measured = to_string(came.shape),
                    .limit = to_string(wanted.shape),
                    .behaviour = outcome.behaviour,
                    .engine_message = outcome.engine_message,
                    .remedy = same_elements ? "reshape it to " + to_string(wanted.shape) +
                                                  ", the values stay the same"
                                            : std::string("send it with the shape of the contract"),
                    .message = "came " + found + ", the contract wants " + limit + "; " +
                               consequence(outcome.behaviour, who_)});
}

void ContractChecker::compare_cuts(const wire::ParameterMeta& came,
                                   const wire::WantedParameter& wanted) {
    if (!cells_) return;
    if (came.row_cuts == wanted.row_cuts && came.col_cuts == wanted.col_cuts) return;
    add(came.name, {.check = "shape_contract",
                    .measured = "other cells",
                    .limit = "the cells of the wanted list",
                    .remedy = "give the trainers the wanted list of these receivers",
                    .message = "the manifest cuts it into other cells than the receivers asked "
                               "for"});
}

}  // namespace refit::receiver
