// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/framing.hpp"

#include <algorithm>
#include <charconv>

#include "core/error.hpp"
#include "core/nearest_name.hpp"

namespace refit::wire {
namespace {

/// Closes a message once its size is beyond the buffer: the tensor that overflows is in it.
std::vector<FramedBucket> close_after_exceeding(const std::vector<FramedTensor>& tensors,
                                                std::uint64_t buffer_bytes) {
    std::vector<FramedBucket> buckets;
    bool open = false;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (!open) buckets.emplace_back();
        FramedBucket& bucket = buckets.back();
        bucket.ranges.push_back({i, bucket.bytes, tensors[i].bytes()});
        bucket.bytes += tensors[i].bytes();
        open = bucket.bytes <= buffer_bytes;
    }
    return buckets;
}

/// Closes a message before a tensor that would take it beyond the buffer.
std::vector<FramedBucket> close_before_exceeding(const std::vector<FramedTensor>& tensors,
                                                 std::uint64_t buffer_bytes) {
    std::vector<FramedBucket> buckets;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const std::uint64_t bytes = tensors[i].bytes();
        const bool full = !buckets.empty() && buckets.back().bytes > 0 &&
                          buckets.back().bytes + bytes > buffer_bytes;
        if (buckets.empty() || full) buckets.emplace_back();
        FramedBucket& bucket = buckets.back();
        bucket.ranges.push_back({i, bucket.bytes, bytes});
        bucket.bytes += bytes;
    }
    return buckets;
}

void refuse_larger_than_buffer(const std::vector<FramedTensor>& tensors,
                               std::uint64_t buffer_bytes) {
    for (const FramedTensor& tensor : tensors) {
        if (tensor.bytes() <= buffer_bytes) continue;
        const std::string size = std::to_string(tensor.bytes());
        throw core::ScenarioError(
            "transport.framing vllm-ipc: vLLM raises ValueError: Tensor '" + tensor.name +
            "' has size " + size + " bytes, which exceeds buffer_size_bytes=" +
            std::to_string(buffer_bytes) + ". Increase buffer_size_bytes to at least " + size +
            "; set transport.bucket_bytes to that or more");
    }
}

/// One state dict for what stands outside of the layers, then one a layer; in each one message a
/// type, types in the order in which they first occur.
std::vector<FramedBucket> by_layer_and_type(const std::vector<FramedTensor>& tensors) {
    std::vector<int> layers;
    for (const FramedTensor& tensor : tensors) layers.push_back(tensor.layer);
    std::sort(layers.begin(), layers.end());
    layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
    std::vector<FramedBucket> buckets;
    for (const int layer : layers) {
        std::vector<core::DType> types;
        for (const FramedTensor& tensor : tensors) {
            if (tensor.layer == layer &&
                std::find(types.begin(), types.end(), tensor.dtype) == types.end())
                types.push_back(tensor.dtype);
        }
        for (const core::DType type : types) {
            FramedBucket& bucket = buckets.emplace_back();
            for (std::size_t i = 0; i < tensors.size(); ++i) {
                if (tensors[i].layer != layer || tensors[i].dtype != type) continue;
                bucket.ranges.push_back({i, bucket.bytes, tensors[i].bytes()});
                bucket.bytes += tensors[i].bytes();
            }
        }
    }
    return buckets;
}

std::vector<FramingRow> make_catalog() {
    std::vector<FramingRow> rows;
    FramingRow row;
    row.name = "native";
    row.framing = Framing::native;
    row.rule =
        "units (a weight with its scale, fused partners) in the order of the manifest, each at a "
        "multiple of 64 bytes; a unit that does not fit opens the next bucket";
    row.hazard = "none known: manifest, digests, end marker, version";
    row.uncounted =
        "the manifest, once before the first refit; header and digests in front of every piece";
    row.source = "refitbench";
    row.kernel_format = true;
    rows.push_back(row);

    row = {};
    row.name = "vllm-packed";
    row.framing = Framing::vllm_packed;
    row.rule =
        "list order; a message ends after the tensor with which it exceeds bucket_bytes; no "
        "padding, no alignment, no header";
    row.hazard =
        "the receiver computes the boundaries again from its own setting; a view at an odd offset "
        "raises; a tensor without dimensions raises";
    row.uncounted =
        "names, dtypes and shapes of all tensors, in the control request before the messages";
    row.source =
        "vLLM 017e9f4, vllm/distributed/weight_transfer/packed_tensor.py: pack_tensors, "
        "packed_nccl_broadcast_consumer";
    row.engines = "vllm-";
    row.recomputed = true;
    row.views_bytes = true;
    row.refuses_scalars = true;
    rows.push_back(row);

    row = {};
    row.name = "vllm-ipc";
    row.framing = Framing::vllm_ipc;
    row.rule =
        "list order; a message ends before the tensor that would exceed bucket_bytes; a single "
        "larger tensor is an error; one buffer is used again";
    row.hazard = "a view at an odd offset raises; a tensor without dimensions raises";
    row.uncounted = "names, dtypes, shapes, sizes and memory handles, in the control requests";
    row.source =
        "vLLM 017e9f4, vllm/distributed/weight_transfer/packed_tensor.py: packed_ipc_producer";
    row.engines = "vllm-";
    row.views_bytes = true;
    row.refuses_scalars = true;
    rows.push_back(row);

    row = {};
    row.name = "sglang-bucket";
    row.framing = Framing::sglang_bucket;
    row.rule =
        "one request a bucket, start and end byte of every tensor in it, no padding; the sender "
        "closes a bucket before the tensor that would exceed bucket_bytes, a larger one has its "
        "own";
    row.hazard =
        "a view at an odd offset raises; q_a_proj and kv_a_proj_with_mqa in two requests are lost";
    row.uncounted =
        "name, dtype, shape, first and last byte of each tensor, in the request of its bucket";
    row.source =
        "SGLang 8905cbd, python/sglang/srt/weight_sync/tensor_bucket.py: FlattenedTensorBucket; "
        "the sender's rule: AReaL cbff54d, areal/engine/fsdp_engine.py";
    row.views_bytes = true;
    rows.push_back(row);

    row = {};
    row.name = "nemo-packed";
    row.framing = Framing::nemo_packed;
    row.rule =
        "list order; a message ends after the tensor with which it exceeds 2 % of the device's "
        "memory, at most 5 GiB; each side takes its own device's";
    row.hazard =
        "two kinds of device disagree about the boundaries; bucket_bytes reaches the sender alone; "
        "a tensor without dimensions raises";
    row.uncounted =
        "nothing beside a refit: names, shapes and dtypes go over once, before training";
    row.source =
        "NeMo-RL 7ea279a, nemo_rl/utils/packed_tensor.py: packed_broadcast_producer, "
        "packed_broadcast_consumer";
    row.engines = "vllm-";
    row.recomputed = true;
    row.refuses_scalars = true;
    rows.push_back(row);

    row = {};
    row.name = "prime-rl";
    row.framing = Framing::prime_rl;
    row.rule =
        "number of state dicts, then for each (what is outside of the layers, then layer by layer) "
        "a manifest and one flat tensor a type, types in the order of their first tensor";
    row.hazard =
        "no checksum, no version, no end marker; in kernel format a missing name is not noticed "
        "and a whole tensor meets a shard";
    row.uncounted =
        "an int64 that counts the state dicts; before each of them an int64 and a pickle of that "
        "many bytes, {dtype: [(name, shape, number of elements)]}";
    row.source =
        "prime-rl 559b447, src/prime_rl/transports/weights/nccl.py and "
        "src/prime_rl/inference/vllm/worker/nccl.py";
    row.engines = "vllm-";
    row.kernel_format = true;
    rows.push_back(row);
    return rows;
}

}  // namespace

const std::vector<FramingRow>& framing_catalog() {
    static const std::vector<FramingRow> kRows = make_catalog();
    return kRows;
}

std::vector<std::string> framing_names() {
    std::vector<std::string> names;
    for (const FramingRow& row : framing_catalog()) names.push_back(row.name);
    return names;
}

const FramingRow& find_framing(const std::string& name) {
    for (const FramingRow& row : framing_catalog()) {
        if (row.name == name) return row;
    }
    throw core::UsageError(core::unknown_name_message("framing", name, framing_names()));
}

const FramingRow& framing_row(Framing framing) {
    for (const FramingRow& row : framing_catalog()) {
        if (row.framing == framing) return row;
    }
    throw core::ShapeError("framing number " + std::to_string(static_cast<int>(framing)) +
                           " is not in the catalogue of framings");
}

std::vector<FramedBucket> frame(Framing framing, const std::vector<FramedTensor>& tensors,
                                std::uint64_t buffer_bytes) {
    switch (framing) {
        case Framing::vllm_packed:
        case Framing::nemo_packed:
            return close_after_exceeding(tensors, buffer_bytes);
        case Framing::vllm_ipc:
            refuse_larger_than_buffer(tensors, buffer_bytes);
            return close_before_exceeding(tensors, buffer_bytes);
        case Framing::sglang_bucket:
            return close_before_exceeding(tensors, buffer_bytes);
        case Framing::prime_rl:
            return by_layer_and_type(tensors);
        case Framing::native:
            break;
    }
    throw core::ShapeError("the framing native has no list of tensors; it packs units of shards");
}

std::uint64_t nemo_buffer_bytes(std::uint64_t device_memory_bytes) {
    constexpr double kShare = 0.02;
    constexpr std::uint64_t kMost = std::uint64_t{5} << 30;
    const auto part = static_cast<std::uint64_t>(static_cast<double>(device_memory_bytes) * kShare);
    return std::min(part, kMost);
}

int layer_in_name(std::string_view name) {
    constexpr std::string_view kLayers = ".layers.";
    const std::size_t at = name.find(kLayers);
    if (at == std::string_view::npos) return -1;
    int layer = -1;
    const char* first = name.data() + at + kLayers.size();
    const char* last = name.data() + name.size();
    const auto [end, error] = std::from_chars(first, last, layer);
    return error == std::errc() && end != last && *end == '.' ? layer : -1;
}

std::string torch_type_name(core::DType dtype) {
    switch (dtype) {
        case core::DType::bf16:
            return "BFloat16";
        case core::DType::f16:
            return "Half";
        case core::DType::f32:
            return "Float";
        case core::DType::f64:
            return "Double";
        case core::DType::f8_e4m3:
            return "Float8_e4m3fn";
        case core::DType::f8_e5m2:
            return "Float8_e5m2";
        case core::DType::f8_e8m0:
            return "Float8_e8m0fnu";
        case core::DType::u8:
            return "Byte";
        case core::DType::i8:
            return "Char";
        case core::DType::i16:
            return "Short";
        case core::DType::i32:
            return "Int";
        case core::DType::i64:
            return "Long";
        case core::DType::u16:
            return "UInt16";
        case core::DType::u32:
            return "UInt32";
        case core::DType::u64:
            return "UInt64";
        case core::DType::boolean:
            return "Bool";
        case core::DType::f8_e4m3fnuz:
            return "Float8_e4m3fnuz";
        case core::DType::f8_e5m2fnuz:
            return "Float8_e5m2fnuz";
        case core::DType::f4:
            return "Float4_e2m1fn_x2";
        case core::DType::c64:
            return "ComplexFloat";
        case core::DType::f6_e2m3:
        case core::DType::f6_e3m2:
            break;  // PyTorch has none
    }
    return std::string(core::safetensors_name(dtype));
}

std::string misaligned_view_text(core::DType dtype, std::uint64_t offset) {
    const auto size = static_cast<std::uint64_t>(core::size_bytes(dtype));
    if (offset % size == 0) return {};
    return "RuntimeError: self.storage_offset() must be divisible by " + std::to_string(size) +
           " to view Byte as " + torch_type_name(dtype) + " (different element sizes), but got " +
           std::to_string(offset);
}

std::string scalar_view_text(core::DType dtype) {
    if (core::size_bytes(dtype) == 1) return {};
    return "RuntimeError: self.dim() cannot be 0 to view " + torch_type_name(dtype) +
           " as Byte (different element sizes)";
}

}  // namespace refit::wire
