// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/safetensors_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "core/error.hpp"
#include "weights/strict_json.hpp"

namespace refit::weights {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kLengthBytes = 8;
// The limit of the reference implementation, which refuses longer headers as an attack on memory.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr const char* kReplace =
    "; the file is damaged or is not safetensors: write or fetch it anew";

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& reason) {
    throw core::FileError(path.string() + ": " + reason + kReplace);
}

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& tensor,
                         const std::string& reason) {
    refuse(path, "tensor '" + tensor + "': " + reason);
}

/// A non-negative 64-bit integer; nullopt for anything else. The library stores every non-negative
/// integer as unsigned and one above 64 bits as a float.
std::optional<std::uint64_t> as_unsigned(const Json& value) {
    if (!value.is_number_unsigned()) return std::nullopt;
    return value.get<std::uint64_t>();
}

std::map<std::string, std::string> read_metadata(const std::filesystem::path& path,
                                                 const Json& value) {
    if (!value.is_object()) {
        refuse(path, "__metadata__ is " + brief(value) + ", expected an object of strings");
    }
    std::map<std::string, std::string> metadata;
    for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) {
            refuse(path,
                   "__metadata__ entry '" + key + "' is " + brief(text) + ", expected a string");
        }
        metadata.emplace(key, text.get<std::string>());
    }
    return metadata;
}

/// One entry of the header; `data_bytes` is what follows the header in the file.
StoredTensor read_entry(const std::filesystem::path& path, const std::string& name,
                        const Json& entry, std::uint64_t data_start, std::uint64_t data_bytes) {
    if (!entry.is_object()) {
        refuse(path, name, "its entry is " + brief(entry) + ", expected an object");
    }
    for (const char* key : {"dtype", "shape", "data_offsets"}) {
        if (!entry.contains(key)) refuse(path, name, std::string("has no ") + key);
    }
    StoredTensor tensor;
    tensor.name = name;

    const Json& dtype = entry["dtype"];
    const auto known = dtype.is_string()
                           ? core::from_safetensors_name(dtype.get_ref<const std::string&>())
                           : std::nullopt;
    if (!known) refuse(path, name, "unknown dtype " + brief(dtype));
    tensor.dtype = *known;

    const Json& shape = entry["shape"];
    if (!shape.is_array()) refuse(path, name, "shape is " + brief(shape) + ", expected a list");
    // In bits up to here: a type may have less than a byte.
    auto wanted = static_cast<std::uint64_t>(core::storage_bits(tensor.dtype));
    bool overflow = false;
    for (const Json& dimension : shape) {
        const auto extent = as_unsigned(dimension);
        if (!extent || *extent > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
            refuse(path, name,
                   "shape " + brief(shape) + " has the dimension " + brief(dimension) +
                       ", expected a whole number, 0 or more");
        }
        tensor.shape.push_back(static_cast<std::int64_t>(*extent));
        // The reference implementation multiplies with overflow check in order of the dimensions,
        // zeros included.
        overflow = overflow || __builtin_mul_overflow(wanted, *extent, &wanted);
    }
    if (overflow) {
        refuse(path, name,
               "shape " + brief(shape) + " times the bits of its dtype exceeds 64 bits");
    }
    if (wanted % 8 != 0) {
        refuse(path, name,
               "shape " + brief(shape) + " of " + dtype.get<std::string>() + " is " +
                   std::to_string(wanted) + " bits, expected whole bytes");
    }
    wanted /= 8;

    const Json& offsets = entry["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2 || !as_unsigned(offsets[0]) ||
        !as_unsigned(offsets[1])) {
        refuse(path, name, "data_offsets is " + brief(offsets) + ", expected [begin, end]");
    }
    const std::uint64_t begin = *as_unsigned(offsets[0]);
    const std::uint64_t end = *as_unsigned(offsets[1]);
    if (end < begin) refuse(path, name, "data_offsets " + brief(offsets) + " are reversed");
    if (end > data_bytes) {
        refuse(path, name,
               "data_offsets " + brief(offsets) + " lie beyond the end of the file, which holds " +
                   std::to_string(data_bytes) + " bytes of data");
    }
    if (end - begin != wanted) {
        refuse(path, name,
               "data_offsets " + brief(offsets) + " span " + std::to_string(end - begin) +
                   " bytes, shape " + core::to_string(tensor.shape) + " of " +
                   std::string(core::safetensors_name(tensor.dtype)) + " wants " +
                   std::to_string(wanted));
    }
    tensor.offset = data_start + begin;
    tensor.bytes = end - begin;
    return tensor;
}

/// Ranges in order of their offsets must start at 0, touch, and end at the end of the file.
void check_coverage(const std::filesystem::path& path, const std::vector<StoredTensor>& sorted,
                    std::uint64_t data_start, std::uint64_t data_bytes) {
    std::uint64_t reached = data_start;
    const StoredTensor* previous = nullptr;
    for (const StoredTensor& tensor : sorted) {
        if (tensor.offset < reached) {
            refuse(path, tensor.name,
                   "its bytes overlap those of '" + (previous ? previous->name : "") + "' by " +
                       std::to_string(reached - tensor.offset));
        }
        if (tensor.offset > reached) {
            refuse(
                path, tensor.name,
                "a hole of " + std::to_string(tensor.offset - reached) + " bytes lies before it");
        }
        reached = tensor.offset + tensor.bytes;
        previous = &tensor;
    }
    if (reached != data_start + data_bytes) {
        refuse(path, std::to_string(data_start + data_bytes - reached) +
                         " bytes follow the last tensor and belong to none");
    }
}

std::string errno_text() {
    return std::system_category().message(errno);
}

/// Closes a descriptor; the mapping outlives it.
struct Descriptor {
    int fd = -1;
    explicit Descriptor(int descriptor) : fd(descriptor) {}
    ~Descriptor() {
        if (fd >= 0) (void)::close(fd);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
};

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
    // Non-blocking, so that a named pipe in the place of a file is refused below instead of waited
    // for.
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file.fd < 0) {
        throw core::FileError(path.string() + ": cannot be opened: " + errno_text());
    }
    struct stat status = {};
    if (::fstat(file.fd, &status) != 0) {
        throw core::FileError(path.string() + ": cannot be examined: " + errno_text());
    }
    if (!S_ISREG(status.st_mode)) {
        throw core::FileError(path.string() + ": is not a regular file; give a safetensors file");
    }
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size < kLengthBytes) {
        refuse(path,
               "has " + std::to_string(size) + " bytes, less than the 8 of the header length");
    }
    // The whole size is held against the header below. A file that is cut after that ends the
    // process with SIGBUS at the next read: a checkpoint must not be written to while it is read.
    void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
    if (mapping == MAP_FAILED) {
        throw core::FileError(path.string() + ": cannot be mapped into memory: " + errno_text());
    }
    data_ = static_cast<const std::byte*>(mapping);
    size_ = size;
    // The destructor does not run when the constructor throws.
    try {
        std::uint64_t header_bytes = 0;
        for (std::size_t i = 0; i < kLengthBytes; ++i) {
            header_bytes |= std::to_integer<std::uint64_t>(data_[i]) << (8 * i);  // little-endian
        }
        if (header_bytes > kMaxHeaderBytes) {
            refuse(path, "states a header of " + std::to_string(header_bytes) +
                             " bytes, the format allows " + std::to_string(kMaxHeaderBytes));
        }
        if (header_bytes > size - kLengthBytes) {
            refuse(path, "states a header of " + std::to_string(header_bytes) +
                             " bytes, which reaches beyond the end of the file (" +
                             std::to_string(size) + " bytes)");
        }
        const std::string_view text(reinterpret_cast<const char*>(data_) + kLengthBytes,
                                    header_bytes);
        if (text.empty() || text.front() != '{') {
            refuse(path, "its header does not start with '{'");
        }
        constexpr int kHeaderDepth = 4;
        if (nests_deeper_than(text, kHeaderDepth)) {
            refuse(path, "its header nests deeper than a header does");
        }
        Json header;
        try {
            header = parse_without_repeated_keys(text);
        } catch (const RepeatedKey& repeated) {
            refuse(path, repeated.key, "its header has this name twice");
        } catch (const Json::exception& e) {
            refuse(path, std::string("its header is not JSON: ") + e.what());
        }
        const std::uint64_t data_start = kLengthBytes + header_bytes;
        const std::uint64_t data_bytes = size - data_start;
        for (const auto& [name, entry] : header.items()) {
            if (name == "__metadata__") {
                metadata_ = read_metadata(path, entry);
            } else {
                tensors_.push_back(read_entry(path, name, entry, data_start, data_bytes));
            }
        }
        // An empty tensor lies before the one that starts where it stands.
        std::stable_sort(tensors_.begin(), tensors_.end(),
                         [](const StoredTensor& a, const StoredTensor& b) {
                             return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
                         });
        check_coverage(path, tensors_, data_start, data_bytes);
        for (std::size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
    } catch (...) {
        (void)::munmap(mapping, size);
        throw;
    }
}

SafetensorsFile::~SafetensorsFile() {
    if (data_ != nullptr) (void)::munmap(const_cast<std::byte*>(data_), size_);
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
    const auto it = by_name_.find(name);
    return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const StoredTensor& tensor) const {
    return {data_ + tensor.offset, tensor.bytes};
}

void SafetensorsFile::release(const StoredTensor& tensor, std::size_t begin,
                              std::size_t end) const {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    // The mapping starts at a page, so that offsets in the file are offsets from a page.
    const std::size_t first = (tensor.offset + begin + page - 1) / page * page;
    const std::size_t last = (tensor.offset + end) / page * page;
    if (first >= last) return;
    // The mapping is private, read-only and backed by the file: nothing can be lost, and a refusal
    // only costs memory.
    (void)::madvise(const_cast<std::byte*>(data_) + first, last - first, MADV_DONTNEED);
}

}  // namespace refit::weights
