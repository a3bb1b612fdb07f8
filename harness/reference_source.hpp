// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Where the rows of a quantized checkpoint's tensors lie in the unquantized one, which may hold
// experts alone where the other has them stacked, or the other way round.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checks/reference_check.hpp"
#include "model/tensor_spec.hpp"
#include "weights/checkpoint_directory.hpp"
#include "weights/stored_places.hpp"

namespace refit::harness {

/// The rows of one tensor, in order; a row is one of its last dimension.
struct SourceRows {
    struct Part {
        weights::StoredPlaces::Place at;
        std::int64_t rows = 0;
    };
    std::vector<Part> parts;  ///< empty: the reference has no such tensor
    std::string mismatch;     ///< the reference's shape, where it is another one; else empty

    [[nodiscard]] bool of_one_dtype() const;
    /// Rows [first, first + count) of `cols` columns. Where they lie in more than one part they are
    /// copied to `joined`, which must live as long as the result. All parts have one dtype.
    [[nodiscard]] checks::StoredMatrix matrix(std::int64_t first, std::int64_t count,
                                              std::int64_t cols,
                                              std::vector<std::byte>& joined) const;
    /// Gives the memory of rows [first, last) back.
    void release(std::int64_t first, std::int64_t last, std::int64_t cols) const;
};

class ReferenceSource {
 public:
    /// `reference` and `specs` must outlive this.
    ReferenceSource(const weights::CheckpointDirectory& reference,
                    const std::vector<model::TensorSpec>& specs, bool tied_embeddings);

    /// The source of the tensor `name`, stored as `wanted`.
    [[nodiscard]] SourceRows of(const std::string& name, const weights::StoredTensor& wanted) const;

 private:
    [[nodiscard]] weights::StoredPlaces::Place place_of(const std::string& name) const;
    [[nodiscard]] SourceRows experts_of(const std::string& name,
                                        const weights::StoredTensor& wanted) const;

    const weights::CheckpointDirectory& reference_;
    weights::StoredPlaces places_;
    std::map<std::string, const model::TensorSpec*> by_name_;
    bool tied_embeddings_;
};

}  // namespace refit::harness
