// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/safetensors_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "core/error.hpp"

namespace refit::weights {
namespace {

/// A file that vanishes unless it is kept.
class TemporaryFile {
 public:
    explicit TemporaryFile(const std::filesystem::path& target)
        : target_(target), path_(target.string() + ".partial." + std::to_string(getpid())) {
        // Renaming over a device or a folder would take its place.
        std::error_code missing;
        const auto status = std::filesystem::status(target_, missing);
        if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
            throw core::FileError("cannot write " + target_.string() +
                                  ": it exists and is not a regular file; name another output");
        }
        fd_ = open(path_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
        if (fd_ < 0) fail("create");
    }
    ~TemporaryFile() {
        if (fd_ >= 0) close(fd_);
        if (!kept_) unlink(path_.c_str());
    }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    void write(const void* data, std::size_t bytes, std::uint64_t offset) {
        const auto* cursor = static_cast<const char*>(data);
        while (bytes > 0) {
            // One call takes at most 2 GiB.
            const ssize_t done =
                ::pwrite(fd_, cursor, std::min<std::size_t>(bytes, std::size_t{1} << 30),
                         static_cast<off_t>(offset));
            if (done < 0 && errno == EINTR) continue;
            if (done <= 0) fail("write");
            cursor += done;
            bytes -= static_cast<std::size_t>(done);
            offset += static_cast<std::uint64_t>(done);
        }
    }

    void keep() {
        if (fsync(fd_) != 0) fail("sync");
        // The descriptor is gone whether or not close reports an error.
        const int fd = std::exchange(fd_, -1);
        if (close(fd) != 0) fail("close");
        if (rename(path_.c_str(), target_.c_str()) != 0) fail("rename");
        kept_ = true;
    }

 private:
    [[noreturn]] void fail(const char* what) const {
        const std::string reason = std::strerror(errno);
        throw core::FileError("cannot " + std::string(what) + " " + target_.string() + ": " +
                              reason + "; nothing was left behind");
    }

    std::filesystem::path target_;
    std::filesystem::path path_;
    int fd_ = -1;
    bool kept_ = false;
};

}  // namespace

std::uint64_t TensorLayout::bytes() const {
    return static_cast<std::uint64_t>(core::storage_bytes(dtype, core::element_count(shape)));
}

class SafetensorsStream::Impl {
 public:
    Impl(const std::filesystem::path& path, std::vector<TensorLayout> tensors,
         const std::map<std::string, std::string>& metadata)
        : path_(path), file_(path) {
        std::stable_sort(tensors.begin(), tensors.end(),
                         [](const TensorLayout& a, const TensorLayout& b) {
                             const std::int64_t size_a = core::storage_bits(a.dtype);
                             const std::int64_t size_b = core::storage_bits(b.dtype);
                             return size_a != size_b ? size_a > size_b : a.name < b.name;
                         });
        nlohmann::ordered_json header = nlohmann::ordered_json::object();
        if (!metadata.empty()) header["__metadata__"] = metadata;
        std::uint64_t offset = 0;
        for (const TensorLayout& tensor : tensors) {
            const std::uint64_t bytes = tensor.bytes();
            header[tensor.name] = {{"dtype", core::safetensors_name(tensor.dtype)},
                                   {"shape", tensor.shape},
                                   {"data_offsets", {offset, offset + bytes}}};
            parts_[tensor.name] = {offset, bytes, 0};
            offset += bytes;
        }
        std::string text = header.dump();
        text.append((8 - text.size() % 8) % 8, ' ');
        const std::uint64_t length = text.size();
        std::uint8_t little_endian[8];
        for (int i = 0; i < 8; ++i) little_endian[i] = static_cast<std::uint8_t>(length >> (8 * i));
        file_.write(little_endian, sizeof little_endian, 0);
        file_.write(text.data(), text.size(), sizeof little_endian);
        data_begin_ = sizeof little_endian + text.size();
    }

    void write(const std::string& tensor, std::uint64_t offset, std::span<const std::byte> bytes) {
        const auto it = parts_.find(tensor);
        if (it == parts_.end()) {
            throw core::FileError("cannot write " + path_.string() + ": tensor " + tensor +
                                  " is not in its header");
        }
        Part& part = it->second;
        if (offset > part.bytes || bytes.size() > part.bytes - offset) {
            throw core::FileError("cannot write " + path_.string() + ": tensor " + tensor +
                                  " has " + std::to_string(part.bytes) + " bytes, found " +
                                  std::to_string(bytes.size()) + " for its byte " +
                                  std::to_string(offset));
        }
        file_.write(bytes.data(), bytes.size(), data_begin_ + part.begin + offset);
        part.written += bytes.size();
    }

    void keep() {
        for (const auto& [name, part] : parts_) {
            if (part.written == part.bytes) continue;
            throw core::FileError("cannot write " + path_.string() + ": tensor " + name + " has " +
                                  std::to_string(part.bytes) + " bytes, " +
                                  std::to_string(part.written) + " were written");
        }
        file_.keep();
    }

 private:
    struct Part {
        std::uint64_t begin = 0;
        std::uint64_t bytes = 0;
        std::uint64_t written = 0;
    };
    std::filesystem::path path_;
    TemporaryFile file_;
    std::uint64_t data_begin_ = 0;
    std::unordered_map<std::string, Part> parts_;
};

SafetensorsStream::SafetensorsStream(const std::filesystem::path& path,
                                     std::vector<TensorLayout> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : impl_(std::make_unique<Impl>(path, std::move(tensors), metadata)) {}

SafetensorsStream::~SafetensorsStream() = default;

void SafetensorsStream::write(const std::string& tensor, std::uint64_t offset,
                              std::span<const std::byte> bytes) {
    impl_->write(tensor, offset, bytes);
}

void SafetensorsStream::keep() {
    impl_->keep();
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
    std::vector<TensorLayout> layout;
    layout.reserve(tensors.size());
    for (const TensorToWrite& tensor : tensors) {
        layout.push_back({tensor.name, tensor.dtype, tensor.shape});
    }
    SafetensorsStream file(path, std::move(layout), metadata);
    for (const TensorToWrite& tensor : tensors) {
        const std::span<const std::byte> bytes = tensor.bytes();
        const auto expected = static_cast<std::size_t>(
            core::storage_bytes(tensor.dtype, core::element_count(tensor.shape)));
        if (bytes.size() != expected) {
            throw core::FileError("cannot write " + path.string() + ": tensor " + tensor.name +
                                  " has " + std::to_string(bytes.size()) + " bytes, its shape " +
                                  core::to_string(tensor.shape) + " needs " +
                                  std::to_string(expected));
        }
        file.write(tensor.name, 0, bytes);
    }
    file.keep();
}

}  // namespace refit::weights
