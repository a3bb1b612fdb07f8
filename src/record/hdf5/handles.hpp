// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Identifiers of HDF5 that close themselves, its errors as RecordError, and the types and spaces
// that a record is made of.
#pragma once

#include <hdf5.h>

#include <string>
#include <utility>

namespace refit::record::hdf5 {

/// Throws RecordError with `what`, the version of HDF5, and the innermost description of its error
/// stack.
[[noreturn]] void fail(const std::string& what);

/// `status` of a call of HDF5; a negative one is fail(what).
template <typename Status>
Status checked(Status status, const std::string& what) {
    if (status < 0) fail(what);
    return status;
}

/// One HDF5 identifier, closed at the end of the scope. A negative `id` is fail(what).
class Handle {
 public:
    using Close = herr_t (*)(hid_t);
    Handle(hid_t id, Close close, const std::string& what)
        : id_(checked(id, what)), close_(close) {}
    Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    Handle& operator=(Handle&&) = delete;
    ~Handle() {
        if (id_ >= 0) close_(id_);
    }
    [[nodiscard]] hid_t get() const { return id_; }

 private:
    hid_t id_;
    Close close_;
};

/// HDF5 prints its error stack by itself unless told not to; errors belong into RecordError.
class QuietErrors {
 public:
    QuietErrors() {
        H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    }
    QuietErrors(const QuietErrors&) = delete;
    QuietErrors& operator=(const QuietErrors&) = delete;
    ~QuietErrors() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

 private:
    H5E_auto2_t function_ = nullptr;
    void* data_ = nullptr;
};

/// Tracking the order of attributes gives an object the second header version, the only one that
/// holds attributes above 64 KiB (a long argument list).
void track_attributes(const Handle& properties);

/// A new group of `parent`, with the order of attributes tracked.
[[nodiscard]] Handle group(hid_t parent, const std::string& name);

/// UTF-8 of any length.
[[nodiscard]] Handle string_type();

/// The enumeration that h5py reads as a bool.
[[nodiscard]] Handle bool_type();

/// A dataspace [count].
[[nodiscard]] Handle simple_space(hsize_t count);

/// The dataspace of one value.
[[nodiscard]] Handle scalar_space();

}  // namespace refit::record::hdf5
