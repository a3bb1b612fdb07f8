// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/export_command.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/aligned_buffer.hpp"
#include "core/error.hpp"
#include "harness/checkpoint_writer.hpp"
#include "harness/export_plan.hpp"
#include "harness/fp8_file.hpp"
#include "harness/interruption.hpp"
#include "harness/matrix_quantizer.hpp"
#include "harness/run_output.hpp"
#include "model/hf_config.hpp"
#include "weights/stored_values.hpp"

namespace refit::harness {
namespace {

using nlohmann::json;

constexpr std::int64_t kCopyBytes = std::int64_t{16} << 20;
constexpr std::uint32_t kInfBits = 0x7f800000;

struct Totals {
    std::uint64_t bytes = 0;       ///< of all tensors as written
    std::uint64_t bytes_bf16 = 0;  ///< two for each element of the model
    std::int64_t tensors = 0;      ///< of the model, without scales
    std::int64_t quantized = 0;
};

std::vector<TensorGroup> groups_of(const ExportPlan& plan, Totals& totals) {
    std::vector<TensorGroup> groups;
    for (const ExportTensor& tensor : plan.tensors) {
        TensorGroup group = {{tensor.name, tensor.dtype, tensor.shape}};
        if (tensor.quantized()) {
            group.push_back({tensor.scale_name, tensor.scale_dtype, tensor.scale_shape});
        }
        for (const weights::TensorLayout& layout : group) totals.bytes += layout.bytes();
        if (tensor.of_model) {
            totals.bytes_bf16 += 2 * static_cast<std::uint64_t>(core::element_count(tensor.shape));
            ++totals.tensors;
        }
        if (tensor.quantized()) ++totals.quantized;
        groups.push_back(std::move(group));
    }
    return groups;
}

/// Rows [row, row + count) of the source as BF16, and their pages given back.
void read_rows(const ExportTensor& tensor, std::int64_t row, std::int64_t count,
               std::uint16_t* out) {
    const std::int64_t cols = core::matrix_cols(tensor.shape);
    weights::read_as_bf16(tensor.place, cols, {row, 0, count, cols}, out, cols);
    const std::int64_t row_bytes = cols * core::size_bytes(tensor.place.tensor->dtype);
    const std::int64_t begin = (tensor.place.first_row + row) * row_bytes;
    tensor.place.file->release(*tensor.place.tensor, static_cast<std::size_t>(begin),
                               static_cast<std::size_t>(begin + count * row_bytes));
}

std::string named(const ExportTensor& tensor) {
    return "tensor " + tensor.name + " of " + tensor.place.file->path().string();
}

/// The tensors of a plan into the files of an export.
class Exporter {
 public:
    Exporter(const ExportPlan& plan, const PendingDirectory& directory)
        : plan_(plan), directory_(directory), backend_(viable_backend("auto")) {}

    void write_shard(const Shard& shard, const std::vector<TensorGroup>& groups) {
        std::vector<weights::TensorLayout> layout;
        for (const std::size_t group : shard.groups) {
            layout.insert(layout.end(), groups[group].begin(), groups[group].end());
        }
        weights::SafetensorsStream file(directory_.path() / shard.file, std::move(layout),
                                        {{"format", "pt"}});
        for (const std::size_t group : shard.groups) {
            const ExportTensor& tensor = plan_.tensors[group];
            check_interruption();
            if (tensor.quantized()) {
                write_quantized(tensor, file);
            } else if (tensor.dtype == core::DType::bf16) {
                check_finite(tensor, &file);
            } else {
                write_verbatim(tensor, file);
            }
        }
        file.keep();
    }

 private:
    void check_interruption() const {
        throw_if_interrupted("writing " + directory_.target().string() +
                             " (nothing was left behind)");
    }

    void write_quantized(const ExportTensor& tensor, weights::SafetensorsStream& file) {
        const std::int64_t cols = core::matrix_cols(tensor.shape);
        MatrixSource source;
        source.name = named(tensor);
        source.rows = core::matrix_rows(tensor.shape);
        source.cols = cols;
        source.read = [&](std::int64_t row, std::int64_t count, std::uint16_t* out) {
            check_interruption();
            read_rows(tensor, row, count, out);
        };
        const std::vector<float> scales = quantize_matrix(
            source, plan_.recipe->scaling, backend_,
            [&](std::int64_t row, std::int64_t, std::span<const std::byte> codes) {
                const auto* bytes = reinterpret_cast<const std::uint8_t*>(codes.data());
                if (backend_.count_nan_codes(bytes, static_cast<std::int64_t>(codes.size())) > 0) {
                    refuse_recipe(tensor, "NaN codes");
                }
                file.write(tensor.name, static_cast<std::uint64_t>(row * cols), codes);
            });
        const bool sound = std::all_of(scales.begin(), scales.end(), [](float scale) {
            return std::isfinite(scale) && scale > 0.0F;
        });
        if (!sound) refuse_recipe(tensor, "a scale that is not finite and above zero");
        std::vector<std::byte> stored;
        if (tensor.scale_dtype == core::DType::f32) {
            const auto* bytes = reinterpret_cast<const std::byte*>(scales.data());
            stored.assign(bytes, bytes + scales.size() * sizeof(float));
        } else {
            stored = quant::stored_scales(*plan_.recipe, scales);
        }
        file.write(tensor.scale_name, 0, stored);
    }

    [[noreturn]] void refuse_recipe(const ExportTensor& tensor, const std::string& what) const {
        throw core::Error(core::ExitCode::verdict,
                          named(tensor) + ": recipe " + plan_.recipe->name + " gives it " + what +
                              ", which no engine loads right; choose a recipe with a floor under "
                              "its scales");
    }

    /// F16 and F32 values as the source holds them.
    void write_verbatim(const ExportTensor& tensor, weights::SafetensorsStream& file) {
        const std::span<const std::byte> bytes = tensor.place.file->bytes(*tensor.place.tensor);
        for (std::size_t at = 0; at < bytes.size(); at += kCopyBytes) {
            const auto part =
                bytes.subspan(at, std::min<std::size_t>(kCopyBytes, bytes.size() - at));
            file.write(tensor.name, at, part);
            tensor.place.file->release(*tensor.place.tensor, at, at + part.size());
        }
        check_finite(tensor, nullptr);
    }

    /// Refuses NaN and Inf in a tensor that is not quantized; writes its values as BF16 to `file`
    /// where one is given.
    void check_finite(const ExportTensor& tensor, weights::SafetensorsStream* file) {
        const std::int64_t rows = core::matrix_rows(tensor.shape);
        const std::int64_t cols = core::matrix_cols(tensor.shape);
        if (rows == 0 || cols == 0) return;
        const std::int64_t step = std::max<std::int64_t>(1, kCopyBytes / 2 / cols);
        std::vector<std::uint16_t> values;
        for (std::int64_t row = 0; row < rows; row += step) {
            check_interruption();
            const std::int64_t count = std::min(step, rows - row);
            values.resize(static_cast<std::size_t>(count * cols));
            read_rows(tensor, row, count, values.data());
            if (backend_.max_abs_bits(values.data(), count * cols) >= kInfBits) {
                throw core::Error(core::ExitCode::verdict,
                                  named(tensor) + " holds " +
                                      describe_nonfinite(values, cols, row, {rows, cols, 1, 1}) +
                                      "; expected finite weights: mend the training checkpoint");
            }
            if (file == nullptr) continue;
            file->write(tensor.name, static_cast<std::uint64_t>(row * cols) * 2,
                        std::as_bytes(std::span<const std::uint16_t>(values)));
        }
    }

    const ExportPlan& plan_;
    const PendingDirectory& directory_;
    const kernels::Backend& backend_;
};

/// The config as written must describe the tensors that are written.
void require_same_model(const PendingDirectory& directory, const ExportPlan& plan,
                        const std::filesystem::path& override_file) {
    model::ModelConfig written;
    try {
        written = model::read_hf_config(directory.path() / "config.json");
    } catch (const core::FileError& error) {
        throw core::UsageError("--config-override " + override_file.string() +
                               " makes a config.json that cannot be read: " + error.what());
    }
    const model::ModelConfig& expected = plan.model;
    const auto tensors = [](model::ModelConfig config, std::int64_t mtp_layers) {
        // A config may count layers for multi-token prediction that its checkpoint does not have.
        config.mtp_layers = mtp_layers;
        std::vector<std::pair<std::string, core::Shape>> list;
        for (const model::TensorSpec& spec : model::tensors_of(config)) {
            list.emplace_back(spec.name, spec.shape);
        }
        return list;
    };
    if (written.architecture == expected.architecture &&
        tensors(written, expected.mtp_layers) == tensors(expected, expected.mtp_layers)) {
        return;
    }
    throw core::UsageError("--config-override " + override_file.string() +
                           " changes which tensors the model has, or their shapes; leave the keys "
                           "that decide them (sizes, numbers of layers, heads and experts) as they "
                           "are in the source's config.json");
}

json left_json(const ExportPlan& plan) {
    json rows = json::array();
    for (const LeftInBf16& left : plan.left) {
        rows.push_back({{"module", left.module}, {"reason", left.reason}});
    }
    return rows;
}

void report(const ExportOptions& options, const std::vector<std::string>& argv,
            const ExportPlan& plan, const Totals& totals, const std::vector<Shard>& shards,
            const SideFiles& side, const std::filesystem::path& target) {
    json root = json_head("refitbench.export/1", argv);
    root["model"] = options.model.string();
    root["output"] = target.string();
    root["recipe"] = plan.recipe->name;
    root["scheme"] = quant::scheme_name(plan.recipe->scheme);
    root["engine"] = options.engine;
    root["engine_version"] = plan.engine_version;
    root["tp"] = options.tp;
    root["tensors"] = totals.tensors;
    root["quantized"] = totals.quantized;
    root["bytes"] = totals.bytes;
    root["bytes_bf16"] = totals.bytes_bf16;
    root["files"] = json::array();
    for (const Shard& shard : shards) {
        root["files"].push_back({{"file", shard.file}, {"bytes", shard.bytes}});
    }
    root["left_in_bf16"] = left_json(plan);
    root["warnings"] = plan.warnings;
    root["not_written"] = plan.not_written;
    root["side_files"] = side.copied;
    root["not_copied"] = side.not_copied;
    root["quantization_config"] = json::parse(plan.config->quantization_config(plan.skip_list));
    put_json(options.json, root);
    if (options.json == "-") return;
    fmt::print("# recipe {} for {}: {} of {} tensors quantized, {} linear layers left in BF16\n",
               plan.recipe->name, options.engine, totals.quantized, totals.tensors,
               plan.left.size());
    fmt::print("# {} bytes in {} file{}, {} in BF16\n# output: {}\n", totals.bytes, shards.size(),
               shards.size() == 1 ? "" : "s", totals.bytes_bf16, target.string());
}

int run_export(const ExportOptions& options, const std::vector<std::string>& argv) {
    ExportRequest request;
    request.model = options.model;
    request.recipe = options.recipe;
    request.engine = options.engine;
    request.config_override = options.config_override;
    request.tp = options.tp;
    request.unloadable = options.unloadable == "bf16" ? Unloadable::bf16 : Unloadable::refuse;
    check_writable(options.json);
    PendingDirectory directory(options.output, options.model);
    const ExportPlan plan = plan_export(request);

    Totals totals;
    const std::vector<TensorGroup> groups = groups_of(plan, totals);
    directory.require_room(totals.bytes);
    directory.write_text("config.json", plan.config->config_json(plan.skip_list));
    require_same_model(directory, plan, options.config_override);
    const std::string beside = plan.config->hf_quant_config(plan.skip_list);
    if (!beside.empty()) directory.write_text("hf_quant_config.json", beside);

    const std::vector<Shard> shards = cut_into_shards(groups, options.max_shard_bytes);
    Exporter exporter(plan, directory);
    const bool shows_progress = isatty(STDERR_FILENO) == 1;
    for (const Shard& shard : shards) {
        if (shows_progress) fmt::print(stderr, "# writing {}\n", shard.file);
        exporter.write_shard(shard, groups);
    }
    directory.write_text("model.safetensors.index.json", index_json(groups, shards));
    const SideFiles side = copy_side_files(options.model, directory);
    throw_if_interrupted("writing " + directory.target().string() + " (nothing was left behind)");
    directory.keep();
    for (const std::string& warning : plan.warnings) {
        fmt::print(stderr, "refitbench: warning: {}\n", warning);
    }
    report(options, argv, plan, totals, shards, side, directory.target());
    return 0;
}

}  // namespace

int export_command(const ExportOptions& options, const std::vector<std::string>& argv) {
    return guarded([&] { return run_export(options, argv); });
}

}  // namespace refit::harness
