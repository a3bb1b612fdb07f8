// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/reference_source.hpp"

#include <algorithm>
#include <span>

#include "core/shape.hpp"

namespace refit::harness {

bool SourceRows::of_one_dtype() const {
    return std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
        return part.at.tensor->dtype == parts.front().at.tensor->dtype;
    });
}

checks::StoredMatrix SourceRows::matrix(std::int64_t first, std::int64_t count, std::int64_t cols,
                                        std::vector<std::byte>& joined) const {
    const core::DType dtype = parts.front().at.tensor->dtype;
    const std::int64_t row_bytes = cols * core::size_bytes(dtype);
    joined.clear();
    std::int64_t top = 0;
    for (const Part& part : parts) {
        const std::int64_t begin = std::max(first, top);
        const std::int64_t end = std::min(first + count, top + part.rows);
        if (begin < end) {
            const std::int64_t row = part.at.first_row + begin - top;
            const std::span<const std::byte> bytes =
                part.at.file->bytes(*part.at.tensor)
                    .subspan(static_cast<std::size_t>(row * row_bytes),
                             static_cast<std::size_t>((end - begin) * row_bytes));
            if (end - begin == count) return {dtype, bytes, count, cols};
            joined.insert(joined.end(), bytes.begin(), bytes.end());
        }
        top += part.rows;
    }
    return {dtype, joined, count, cols};
}

void SourceRows::release(std::int64_t first, std::int64_t last, std::int64_t cols) const {
    std::int64_t top = 0;
    for (const Part& part : parts) {
        const std::int64_t begin = std::max(first, top);
        const std::int64_t end = std::min(last, top + part.rows);
        const std::int64_t row_bytes = cols * core::size_bytes(part.at.tensor->dtype);
        const std::int64_t shift = part.at.first_row - top;
        if (begin < end) {
            part.at.file->release(*part.at.tensor,
                                  static_cast<std::size_t>((begin + shift) * row_bytes),
                                  static_cast<std::size_t>((end + shift) * row_bytes));
        }
        top += part.rows;
    }
}

ReferenceSource::ReferenceSource(const weights::CheckpointDirectory& reference,
                                 const std::vector<model::TensorSpec>& specs, bool tied_embeddings)
    : reference_(reference), places_(reference, specs), tied_embeddings_(tied_embeddings) {
    for (const model::TensorSpec& spec : specs) by_name_.emplace(spec.name, &spec);
}

weights::StoredPlaces::Place ReferenceSource::place_of(const std::string& name) const {
    const auto known = by_name_.find(name);
    if (known != by_name_.end()) return places_.find(*known->second);
    auto at = reference_.find(name);
    // A head that is stored although it is tied is a copy of the embedding.
    if (at.tensor == nullptr && tied_embeddings_ && name == "lm_head.weight") {
        at = reference_.find("model.embed_tokens.weight");
    }
    return {at.file, at.tensor, 0};
}

/// The projections of all experts, one by one, for a stack of them: the layout of transformers,
/// with gate rows before up rows (see stored_places.hpp).
SourceRows ReferenceSource::experts_of(const std::string& name,
                                       const weights::StoredTensor& wanted) const {
    SourceRows rows;
    const std::size_t dot = name.rfind(".experts.");
    if (dot == std::string::npos || wanted.shape.size() != 3) return rows;
    const std::string stem = name.substr(0, dot) + ".experts.";
    std::string stack = name.substr(stem.size());
    if (stack.ends_with(".weight")) stack.resize(stack.size() - std::string(".weight").size());
    std::vector<std::string> projections = {stack};
    if (stack == "gate_up_proj") projections = {"gate_proj", "up_proj"};
    const auto parts = static_cast<std::int64_t>(projections.size());
    for (std::int64_t expert = 0; expert < wanted.shape[0]; ++expert) {
        for (const std::string& projection : projections) {
            const auto at =
                reference_.find(stem + std::to_string(expert) + "." + projection + ".weight");
            if (at.tensor == nullptr) return {};
            const core::Shape one = {wanted.shape[1] / parts, wanted.shape[2]};
            if (at.tensor->shape != one || wanted.shape[1] % parts != 0) {
                rows.mismatch = core::to_string(at.tensor->shape) + " in " + at.tensor->name;
            }
            rows.parts.push_back({{at.file, at.tensor, 0}, one[0]});
        }
    }
    return rows;
}

SourceRows ReferenceSource::of(const std::string& name, const weights::StoredTensor& wanted) const {
    const weights::StoredPlaces::Place place = place_of(name);
    if (place.tensor == nullptr) return experts_of(name, wanted);
    SourceRows rows;
    const core::Shape& shape = wanted.shape;
    const core::Shape& source = place.tensor->shape;
    const std::int64_t cols = shape.empty() ? 1 : shape.back();
    const std::int64_t height = cols == 0 ? 0 : core::element_count(shape) / cols;
    const bool stacked = source.size() > shape.size();
    const bool fits = stacked ? !shape.empty() && !source.empty() && cols == source.back() &&
                                    (place.first_row + height) * cols <= core::element_count(source)
                              : shape == source;
    if (!fits) rows.mismatch = core::to_string(source);
    rows.parts.push_back({place, height});
    return rows;
}

}  // namespace refit::harness
