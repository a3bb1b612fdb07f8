// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/tensor_rows.hpp"

#include <limits>
#include <map>
#include <set>

#include "checks/layer_output.hpp"
#include "harness/stream_check.hpp"

namespace refit::harness {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

record::TensorRow row_without_figures(const std::string& name, const std::string& role) {
    record::TensorRow row;
    row.name = name;
    row.role = role;
    row.sqnr_db = row.expected_sqnr_db = kNaN;
    row.relative_error = row.cosine = kNaN;
    row.output_snr_db = row.expected_output_snr_db = kNaN;
    return row;
}

void add_figures(record::TensorRow& row, const checks::TensorAudit& audit) {
    if (audit.quantized) {
        row.sqnr_db = checks::sqnr_db(audit.sum_x2, audit.sum_error2);
        row.expected_sqnr_db = checks::sqnr_db(audit.sum_x2, audit.sum_expected_error2);
        row.relative_error = checks::relative_error(audit);
        row.cosine = checks::cosine(audit);
        row.output_snr_db = checks::output_snr_db(audit.output);
        row.expected_output_snr_db = checks::expected_output_snr_db(audit.output);
    }
    row.max_error_over_bound = audit.max_error_over_bound;
    row.saturated = audit.saturated;
    row.flushed = audit.flushed;
    row.exact = audit.exact;
    row.subnormal = checks::subnormal_codes(audit);
}

/// Bytes and recipe of each weight on the wire, scales of a weight with the weight.
class WireRows {
 public:
    WireRows(const CaseSetup& setup, const wire::RefitManifest& manifest, const std::string& recipe)
        : manifest_(manifest), recipe_(recipe), in_kernel_format_(bytes_in_kernel_format(setup)) {
        for (const wire::ParameterMeta& parameter : manifest.parameters) {
            if (!parameter.scale_of.empty())
                scale_bytes_[parameter.scale_of] = parameter.rows() * parameter.row_bytes();
        }
        for (const wire::WantedParameter& wanted : setup.instance.wanted) {
            if (!wanted.scale.empty()) quantized_.insert(wanted.name);
        }
    }

    void fill(record::TensorRow& row) {
        const auto kernel_bytes = in_kernel_format_.find(row.name);
        if (kernel_bytes != in_kernel_format_.end()) {
            row.bytes = kernel_bytes->second;
            if (quantized_.contains(row.name)) row.recipe = recipe_;
        }
        const std::int64_t index = manifest_.find(row.name);
        if (index < 0) return;
        const wire::ParameterMeta& parameter =
            manifest_.parameters[static_cast<std::size_t>(index)];
        row.bytes = parameter.rows() * parameter.row_bytes() + scale_bytes_[row.name];
        row.recipe = parameter.recipe;
    }

 private:
    const wire::RefitManifest& manifest_;
    const std::string& recipe_;
    std::map<std::string, std::int64_t> in_kernel_format_;
    std::map<std::string, std::int64_t> scale_bytes_;
    std::set<std::string> quantized_;
};

}  // namespace

std::vector<record::TensorRow> tensor_rows(const CaseSetup& setup,
                                           const wire::RefitManifest& manifest,
                                           const checks::MergedAudit& merged,
                                           const std::string& recipe) {
    std::map<std::string, const checks::TensorAudit*> audits;
    for (const checks::TensorAudit& audit : merged.tensors) audits[audit.tensor] = &audit;
    WireRows wire_rows(setup, manifest, recipe);
    std::vector<record::TensorRow> rows;
    for (const model::TensorSpec& tensor : setup.tensors) {
        record::TensorRow row =
            row_without_figures(tensor.name, std::string(model::role_name(tensor.role)));
        row.rows = core::matrix_rows(tensor.shape);
        row.cols = core::matrix_cols(tensor.shape);
        wire_rows.fill(row);
        const auto found = audits.find(tensor.name);
        if (found != audits.end()) add_figures(row, *found->second);
        rows.push_back(std::move(row));
    }
    for (const model::TensorSpec& scale : setup.cache_scales) {
        record::TensorRow row = row_without_figures(scale.name, "kv_cache_scale");
        row.rows = 1;
        row.cols = 1;
        row.bytes = static_cast<std::int64_t>(sizeof(float));
        const auto found = audits.find(scale.name);
        if (found != audits.end()) row.exact = found->second->exact;
        rows.push_back(std::move(row));
    }
    return rows;
}

}  // namespace refit::harness
