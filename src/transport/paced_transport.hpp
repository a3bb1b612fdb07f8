// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Decorator that lets pieces cross no faster than a link of a given rate. Private to src/transport.
#pragma once

#include <memory>

#include "transport/link_pacer.hpp"
#include "transport/transport.hpp"

namespace refit::transport {

/// publish() reserves the link for the bytes of the piece; the inner transport gets the piece when
/// its last byte would be across. Never blocks outside of acquire() and finish(); a rank that
/// computes calls progress() to let due pieces go.
[[nodiscard]] std::unique_ptr<Transport> make_paced_transport(std::unique_ptr<Transport> inner,
                                                              const Endpoint& endpoint,
                                                              const LinkPacer& pacer);

}  // namespace refit::transport
