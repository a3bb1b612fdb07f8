// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/safetensors_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "core/error.hpp"

namespace refit::weights {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kLengthBytes = 8;
// The limit of the reference implementation, which refuses longer headers as an attack on memory.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::uintmax_t kMaxIndexBytes = 100'000'000;
constexpr const char* kReplace =
    "; the file is damaged or is not safetensors: write or fetch it anew";

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& reason) {
    throw core::FileError(path.string() + ": " + reason + kReplace);
}

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& tensor,
                         const std::string& reason) {
    refuse(path, "tensor '" + tensor + "': " + reason);
}

std::string brief(const Json& value) {
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    constexpr std::size_t kLongest = 120;
    if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
    return text;
}

/// Thrown while keys are looked at, where no file name is known; carries the repeated key.
struct RepeatedKey {
    std::string key;
};

/// Looks at the keys of a JSON text and at nothing else.
class KeyCheck final : public nlohmann::json_sax<Json> {
 public:
    bool start_object(std::size_t) override {
        open_objects_.emplace_back();
        return true;
    }
    bool end_object() override {
        open_objects_.pop_back();
        return true;
    }
    bool key(std::string& name) override {
        if (!open_objects_.back().insert(name).second) throw RepeatedKey{name};
        return true;
    }
    bool null() override { return true; }
    bool boolean(bool) override { return true; }
    bool number_integer(Json::number_integer_t) override { return true; }
    bool number_unsigned(Json::number_unsigned_t) override { return true; }
    bool number_float(Json::number_float_t, const std::string&) override { return true; }
    bool string(std::string&) override { return true; }
    bool binary(Json::binary_t&) override { return true; }
    bool start_array(std::size_t) override { return true; }
    bool end_array() override { return true; }
    bool parse_error(std::size_t, const std::string&, const Json::exception&) override {
        return false;  // the parser itself says it better
    }

 private:
    std::vector<std::unordered_set<std::string>> open_objects_;
};

/// Parses JSON and refuses a key that stands twice in one object: the library keeps the last of
/// them silently, other readers the first, so two readers would see two different files. Its
/// callback could tell too, but nlohmann-json 3.11 walks over all members of an object whenever one
/// of them that is an object ends, which takes minutes for a file of 40,000 tensors.
Json parse_without_repeated_keys(std::string_view text) {
    KeyCheck keys;
    Json::sax_parse(text.begin(), text.end(), &keys);
    return Json::parse(text.begin(), text.end());
}

/// A non-negative 64-bit integer; nullopt for anything else. The library stores every non-negative
/// integer as unsigned and one above 64 bits as a float.
std::optional<std::uint64_t> as_unsigned(const Json& value) {
    if (!value.is_number_unsigned()) return std::nullopt;
    return value.get<std::uint64_t>();
}

/// A header nests an object, its tensors and their lists. One of 10^8 brackets would take gigabytes
/// as a tree, so that it is refused before it is parsed.
bool nests_deeper_than(std::string_view text, int limit) {
    int depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') {
                ++i;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > limit) return true;
        } else if (c == '}' || c == ']') {
            --depth;
        }
    }
    return false;
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

namespace {

/// A file name of the index: no path, so that an index cannot reach out of its directory.
void check_shard_name(const std::filesystem::path& index, const std::string& tensor,
                      const std::string& file) {
    const std::filesystem::path path(file);
    bool leaves = file.empty() || path.is_absolute() || file.find('\0') != std::string::npos;
    for (const std::filesystem::path& part : path) leaves = leaves || part == "..";
    if (leaves) {
        throw core::FileError(
            index.string() + ": tensor '" + tensor + "' is placed in '" + file +
            "', which is outside of the checkpoint's directory; name a file in it");
    }
}

Json read_index(const std::filesystem::path& path) {
    std::error_code error;
    const std::uintmax_t bytes = std::filesystem::file_size(path, error);
    if (error) throw core::FileError(path.string() + ": cannot be read: " + error.message());
    if (bytes > kMaxIndexBytes) {
        throw core::FileError(path.string() + ": has " + std::to_string(bytes) +
                              " bytes, an index has at most " + std::to_string(kMaxIndexBytes));
    }
    std::ifstream in(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in || text.size() != bytes) {
        throw core::FileError(path.string() + ": cannot be read; check its permissions");
    }
    try {
        Json index = parse_without_repeated_keys(text);
        if (!index.is_object() || !index.contains("weight_map") ||
            !index["weight_map"].is_object()) {
            throw core::FileError(path.string() +
                                  ": has no weight_map object; it must map tensor to file name");
        }
        return index;
    } catch (const RepeatedKey& repeated) {
        throw core::FileError(path.string() + ": has the key '" + repeated.key +
                              "' twice; each tensor belongs to one file");
    } catch (const Json::exception& e) {
        throw core::FileError(path.string() + ": is not JSON: " + e.what());
    }
}

/// weight_map of the index as file -> tensors that it places there.
std::map<std::string, std::vector<std::string>> shards_of(const std::filesystem::path& index_path) {
    const Json index = read_index(index_path);
    std::map<std::string, std::vector<std::string>> shards;
    for (const auto& [tensor, file] : index["weight_map"].items()) {
        if (!file.is_string()) {
            throw core::FileError(index_path.string() + ": tensor '" + tensor + "' is placed in " +
                                  brief(file) + ", expected a file name");
        }
        auto name = file.get<std::string>();
        check_shard_name(index_path, tensor, name);
        shards[std::move(name)].push_back(tensor);
    }
    if (shards.empty()) {
        throw core::FileError(index_path.string() +
                              ": its weight_map is empty; it must name every tensor");
    }
    return shards;
}

/// Every `*.safetensors` of the directory, in order of their names.
std::vector<std::filesystem::path> files_in(const std::filesystem::path& directory) {
    std::vector<std::filesystem::path> found;
    std::error_code error;
    for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
         it.increment(error)) {
        if (it->path().extension() == ".safetensors") found.push_back(it->path());
    }
    if (error) throw core::FileError(directory.string() + ": cannot be listed: " + error.message());
    std::sort(found.begin(), found.end());
    return found;
}

/// Names of the files that `save_pretrained` and its like give shards: "-00001-of-00003".
bool is_shard(const std::filesystem::path& path) {
    static const std::regex shard("-[0-9]{4,}-of-[0-9]{4,}$");
    return std::regex_search(path.stem().string(), shard);
}

[[noreturn]] void refuse_files(const std::filesystem::path& directory,
                               const std::vector<std::filesystem::path>& found) {
    std::string names;
    for (const auto& path : found) names += (names.empty() ? "" : ", ") + path.filename().string();
    throw core::FileError(
        directory.string() + ": has " +
        (found.empty() ? "no *.safetensors" : std::to_string(found.size()) + " (" + names + ")") +
        " and neither model.safetensors.index.json nor model.safetensors; a checkpoint has an "
        "index with its "
        "shards, or one file");
}

/// Shards without an index must be all of those that their names count.
void check_shard_count(const std::filesystem::path& directory,
                       const std::vector<std::filesystem::path>& shards) {
    static const std::regex count("-([0-9]+)-of-([0-9]+)$");
    for (const std::filesystem::path& shard : shards) {
        const std::string stem = shard.stem().string();
        std::smatch match;
        if (!std::regex_search(stem, match, count)) continue;
        if (match[2].str().size() > 9 || std::stoul(match[2].str()) == shards.size()) continue;
        throw core::FileError(directory.string() + ": has " + std::to_string(shards.size()) +
                              " shards, and by its name " + shard.filename().string() +
                              " is one of " + match[2].str() + ": fetch the others");
    }
}

}  // namespace

void CheckpointDirectory::disagree(IndexRule rule, const std::filesystem::path& shard,
                                   IndexProblem problem) {
    if (rule == IndexRule::exact) {
        throw core::FileError(shard.string() + ": tensor '" + problem.tensor + "' is " +
                              problem.found + "; fetch index and shards from one revision");
    }
    index_problems_.push_back(std::move(problem));
}

CheckpointDirectory::CheckpointDirectory(const std::filesystem::path& directory, IndexRule rule)
    : path_(directory) {
    std::error_code error;
    if (!std::filesystem::is_directory(directory, error)) {
        throw core::FileError(
            directory.string() +
            ": is not a directory; give the directory of a Hugging Face checkpoint");
    }
    const std::filesystem::path index_path = directory / "model.safetensors.index.json";
    if (!std::filesystem::exists(index_path)) {
        open_without_index(rule);
        return;
    }
    has_index_ = true;

    std::map<std::string, std::string> placed;  // tensor -> file by the index
    const auto shards = shards_of(index_path);
    for (const auto& [file, tensors] : shards) {
        for (const std::string& tensor : tensors) placed.emplace(tensor, file);
        const std::filesystem::path shard = directory / file;
        if (!std::filesystem::exists(shard)) {
            throw core::FileError(shard.string() + ": is missing; " +
                                  index_path.filename().string() + " places " +
                                  std::to_string(tensors.size()) + " tensors in it, '" +
                                  tensors.front() + "' among them: fetch the shard");
        }
        files_.push_back(std::make_unique<SafetensorsFile>(shard));
        const SafetensorsFile& opened = *files_.back();
        for (const std::string& tensor : tensors) {
            if (opened.find(tensor) == nullptr) {
                disagree(
                    rule, shard,
                    {tensor, "not in it, " + index_path.filename().string() + " places it there",
                     "in " + file});
            }
        }
    }
    take_tensors(rule, placed);
    for (const auto& opened : files_) {
        for (const StoredTensor& tensor : opened->tensors()) {
            if (placed.contains(tensor.name)) continue;
            disagree(
                rule, opened->path(),
                {tensor.name, "in it, but " + index_path.filename().string() + " does not list it",
                 "listed with its file"});
        }
    }
}

void CheckpointDirectory::open_without_index(IndexRule rule) {
    const std::filesystem::path usual = path_ / "model.safetensors";
    std::vector<std::filesystem::path> found = {usual};
    if (!std::filesystem::exists(usual)) found = files_in(path_);
    if (found.size() > 1 && rule == IndexRule::reported) {
        // What else lies there (a consolidated copy, a draft model) is no shard.
        std::erase_if(found, [](const auto& path) { return !is_shard(path); });
        check_shard_count(path_, found);
        lacks_index_ = found.size() > 1;
    }
    if (found.size() != 1 && !lacks_index_) refuse_files(path_, files_in(path_));
    for (const auto& path : found) files_.push_back(std::make_unique<SafetensorsFile>(path));
    take_tensors(rule, {});
}

bool same_bytes(const CheckpointDirectory::Location& a, const CheckpointDirectory::Location& b) {
    if (a.tensor->dtype != b.tensor->dtype || a.tensor->shape != b.tensor->shape) return false;
    constexpr std::size_t kStep = std::size_t{4} << 20;
    const std::span<const std::byte> left = a.file->bytes(*a.tensor);
    const std::span<const std::byte> right = b.file->bytes(*b.tensor);
    for (std::size_t at = 0; at < left.size(); at += kStep) {
        const std::size_t count = std::min(kStep, left.size() - at);
        if (std::memcmp(left.data() + at, right.data() + at, count) != 0) return false;
        a.file->release(*a.tensor, at, at + count);
        b.file->release(*b.tensor, at, at + count);
    }
    return true;
}

std::vector<std::filesystem::path> CheckpointDirectory::other_files() const {
    std::vector<std::filesystem::path> others = files_in(path_);
    std::erase_if(others, [&](const std::filesystem::path& path) {
        return std::any_of(files_.begin(), files_.end(), [&](const auto& opened) {
            return opened->path().filename() == path.filename();
        });
    });
    return others;
}

void CheckpointDirectory::take_tensors(IndexRule rule,
                                       const std::map<std::string, std::string>& placed) {
    for (const auto& opened : files_) {
        for (const StoredTensor& tensor : opened->tensors()) {
            const Location here{opened.get(), &tensor};
            const auto [it, inserted] = by_name_.emplace(tensor.name, here);
            if (inserted) continue;
            if (rule == IndexRule::exact) {
                throw core::FileError(opened->path().string() + ": tensor '" + tensor.name +
                                      "' is also in " + it->second.file->path().string() +
                                      "; a tensor belongs to one file");
            }
            const auto place = placed.find(tensor.name);
            const bool better = place != placed.end() && opened->path() == path_ / place->second;
            duplicates_.push_back(better ? Duplicate{here, it->second}
                                         : Duplicate{it->second, here});
            if (better) it->second = here;
        }
    }
}

std::vector<std::string> CheckpointDirectory::names() const {
    std::vector<std::string> names;
    names.reserve(by_name_.size());
    for (const auto& [name, location] : by_name_) names.push_back(name);
    return names;
}

CheckpointDirectory::Location CheckpointDirectory::find(const std::string& name) const {
    const auto it = by_name_.find(name);
    return it == by_name_.end() ? Location{} : it->second;
}

}  // namespace refit::weights
