// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Keys that contradict each other are refused before anything moves, and say which to change.
#include "harness/stream_options.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/error.hpp"

namespace refit::harness {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// A scenario of one case with these keys set over the least one.
Case case_with(const Overrides& overrides) {
    const std::string text =
        "purpose: does it fit?\nmodel: tiny-llama\nreceiver: {engine: vllm-fp8}\n";
    return parse_scenario("question.yaml", text, overrides, {}).cases.at(0);
}

std::string error_of(const Overrides& overrides) {
    try {
        (void)set_up_case(case_with(overrides));
    } catch (const core::ScenarioError& error) {
        return error.what();
    }
    return "accepted";
}

TEST(StreamOptions, TakeEveryFramingWithAnEngineThatReadsIt) {
    for (const char* framing :
         {"native", "vllm-packed", "vllm-ipc", "sglang-bucket", "nemo-packed", "prime-rl"}) {
        EXPECT_EQ(error_of({{"transport.framing", framing}}), "accepted") << framing;
    }
    EXPECT_THAT(error_of({{"transport.framing", "vllm_packed"}}), HasSubstr("vllm-packed"));
}

TEST(StreamOptions, RefuseTwoSendersOfAFramingThatHasOne) {
    for (const char* framing :
         {"vllm-packed", "vllm-ipc", "sglang-bucket", "nemo-packed", "prime-rl"}) {
        EXPECT_THAT(error_of({{"transport.framing", framing}, {"trainer.ranks", "2"}}),
                    AllOf(HasSubstr(framing), HasSubstr("trainer.ranks to 1")));
    }
    EXPECT_EQ(error_of({{"trainer.ranks", "2"}}), "accepted");
}

TEST(StreamOptions, RefuseAFaultThatHasNothingToStrike) {
    const std::string fault = "[{name: bucket_bytes_disagree, receiver: 0}]";
    EXPECT_EQ(error_of({{"transport.framing", "vllm-packed"}, {"faults", fault}}), "accepted");
    for (const char* framing : {"native", "vllm-ipc", "prime-rl"}) {
        EXPECT_THAT(error_of({{"transport.framing", framing}, {"faults", fault}}),
                    HasSubstr("use vllm-packed"));
    }
    EXPECT_THAT(error_of({{"transport.framing", "nemo-packed"}, {"faults", fault}}),
                HasSubstr("transport.receiver_memory_bytes"));
}

TEST(StreamOptions, RefuseScalesThatAFramingOrASchemeDoesNotHave) {
    EXPECT_THAT(error_of({{"transport.framing", "prime-rl"}, {"payload.recipe", "areal-megatron"}}),
                AllOf(HasSubstr("areal-megatron"), HasSubstr("F32")));
    EXPECT_THAT(error_of({{"payload.scale_shape", "0d"}}), HasSubstr("fp8_tensorwise"));
    EXPECT_EQ(error_of({{"payload.scale_shape", "0d"}, {"payload.scheme", "fp8_tensorwise"}}),
              "accepted");
}

TEST(StreamOptions, GiveEachSideOfNemoTheBufferOfItsOwnDevice) {
    const Case same = case_with({{"transport.framing", "nemo-packed"}});
    EXPECT_EQ(sender_buffer_bytes(same), receiver_buffer_bytes(same, 0));
    EXPECT_EQ(sender_buffer_bytes(same), 1717986918U);  // 2 % of 80 GiB
    const Case mixed = case_with(
        {{"transport.framing", "nemo-packed"}, {"transport.receiver_memory_bytes", "141GiB"}});
    EXPECT_EQ(sender_buffer_bytes(mixed), 1717986918U);
    EXPECT_EQ(receiver_buffer_bytes(mixed, 0), 3027951943U);
    // What is given reaches the sender alone.
    const Case given =
        case_with({{"transport.framing", "nemo-packed"}, {"transport.bucket_bytes", "1MiB"}});
    EXPECT_EQ(sender_buffer_bytes(given), 1048576U);
    EXPECT_EQ(receiver_buffer_bytes(given, 0), 1717986918U);
}

TEST(StreamOptions, HalveTheBufferOfTheStruckReceiverAlone) {
    const Case c = case_with({{"transport.framing", "vllm-packed"},
                              {"transport.bucket_bytes", "1MiB"},
                              {"receiver.engines", "2"},
                              {"faults", "[{name: bucket_bytes_disagree, receiver: 1}]"}});
    EXPECT_EQ(sender_buffer_bytes(c), 1048576U);
    EXPECT_EQ(receiver_buffer_bytes(c, 0), 1048576U);
    EXPECT_EQ(receiver_buffer_bytes(c, 1), 524288U);
}

}  // namespace
}  // namespace refit::harness
