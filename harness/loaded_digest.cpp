// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/loaded_digest.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "wire/checksum.hpp"

namespace refit::harness {
namespace {

constexpr std::int64_t kChunkBytes = std::int64_t{32} << 20;

/// Who holds which part of one wanted parameter: each cell counted at the lowest TP rank that has
/// it.
struct Part {
    int tp_rank = 0;
    receiver::LoadSpan span;
};

/// Parts by wanted parameter, of all of them in one pass: a model of experts has tens of thousands.
std::vector<std::vector<Part>> parts_by_wanted(const receiver::ContractInstance& instance) {
    std::vector<std::vector<Part>> parts(instance.wanted.size());
    for (std::size_t tp = 0; tp < instance.spans.size(); ++tp) {
        for (const receiver::LoadSpan& span : instance.spans[tp]) {
            std::vector<Part>& of_wanted = parts[span.wanted];
            const bool known =
                std::any_of(of_wanted.begin(), of_wanted.end(),
                            [&](const Part& part) { return part.span.source == span.source; });
            if (!known) of_wanted.push_back({static_cast<int>(tp), span});
        }
    }
    return parts;
}

/// Bytes of rows [begin, end) of one part, as they lie in the destination.
std::string rows_of(const receiver::ContractInstance& instance,
                    const receiver::WeightLoader& loader, const receiver::LoadSpan& span,
                    std::int64_t begin, std::int64_t end) {
    const receiver::DestinationParameter& destination = instance.destinations[span.destination];
    const std::int64_t size = core::size_bytes(destination.dtype);
    const std::int64_t stride = destination.cols() * size;
    const std::byte* bytes = loader.loaded().bytes(span.destination).data();
    std::string out;
    for (std::int64_t r = std::max(begin, span.source.row);
         r < std::min(end, span.source.row + span.source.rows); ++r) {
        const std::byte* row =
            bytes + (span.dest_row + r - span.source.row) * stride + span.dest_col * size;
        out.append(reinterpret_cast<const char*>(row),
                   static_cast<std::size_t>(span.source.cols * size));
    }
    return out;
}

}  // namespace

std::map<std::string, std::string> loaded_digests(World& world, int trainers,
                                                  const receiver::ContractInstance& instance,
                                                  const receiver::WeightLoader* loader,
                                                  const std::vector<model::TensorSpec>& tensors,
                                                  const std::function<void()>& on_progress) {
    std::map<std::string, std::size_t> wanted_index;
    for (std::size_t i = 0; i < instance.wanted.size(); ++i)
        wanted_index[instance.wanted[i].name] = i;
    const int my_tp_rank = world.rank() - trainers;  // of the first engine; others hold copies
    const std::vector<std::vector<Part>> all_parts = parts_by_wanted(instance);
    nlohmann::json digests = nlohmann::json::object();
    for (const model::TensorSpec& tensor : tensors) {
        const auto found = wanted_index.find(tensor.name);
        if (found == wanted_index.end()) continue;
        const wire::WantedParameter& wanted = instance.wanted[found->second];
        const std::vector<Part>& parts = all_parts[found->second];
        if (parts.empty()) continue;
        // The engine's own dtype: a parameter may be F32 where BF16 travels.
        const std::int64_t element =
            core::size_bytes(instance.destinations[parts.front().span.destination].dtype);
        const std::int64_t rows = core::matrix_rows(wanted.shape);
        const std::int64_t row_bytes = core::matrix_cols(wanted.shape) * element;
        const std::int64_t step =
            std::max<std::int64_t>(1, kChunkBytes / std::max<std::int64_t>(1, row_bytes));
        wire::DigestStream stream;
        std::vector<char> chunk;
        for (std::int64_t begin = 0; begin < rows; begin += step) {
            const std::int64_t end = std::min(rows, begin + step);
            std::string mine;
            if (loader != nullptr && my_tp_rank < instance.tp) {
                for (const Part& part : parts) {
                    if (part.tp_rank == my_tp_rank)
                        mine += rows_of(instance, *loader, part.span, begin, end);
                }
            }
            const std::vector<std::string> all = world.gather(trainers, mine);
            on_progress();
            if (all.empty()) continue;
            chunk.assign(static_cast<std::size_t>((end - begin) * row_bytes), 0);
            std::vector<std::size_t> consumed(all.size(), 0);
            for (const Part& part : parts) {
                const auto rank = static_cast<std::size_t>(trainers + part.tp_rank);
                const std::int64_t width = part.span.source.cols * element;
                for (std::int64_t r = std::max(begin, part.span.source.row);
                     r < std::min(end, part.span.source.row + part.span.source.rows); ++r) {
                    std::memcpy(
                        chunk.data() + (r - begin) * row_bytes + part.span.source.col * element,
                        all[rank].data() + consumed[rank], static_cast<std::size_t>(width));
                    consumed[rank] += static_cast<std::size_t>(width);
                }
            }
            stream.update(chunk.data(), chunk.size());
        }
        digests[tensor.name] = wire::to_string(stream.value());
    }
    const std::string text = world.allgather(
        world.rank() == trainers ? digests.dump()
                                 : std::string())[static_cast<std::size_t>(trainers)];
    return nlohmann::json::parse(text).get<std::map<std::string, std::string>>();
}

}  // namespace refit::harness
