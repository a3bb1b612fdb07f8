// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "checks/audit.hpp"
#include "core/error.hpp"

namespace refit::checks {

namespace {

using Json = nlohmann::json;

/// Hexadecimal text: exact, and JSON itself has no NaN and no infinity.
std::string exact_text(double value) {
    std::array<char, 64> text{};
    const auto end =
        std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::hex);
    return {text.data(), end.ptr};
}

double exact_value(const Json& json) {
    const auto& text = json.get_ref<const std::string&>();
    double value = 0.0;
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, value, std::chars_format::hex);
    if (read.ec != std::errc{} || read.ptr != end) {
        throw core::Error(core::ExitCode::environment,
                          "audit result from another rank: '" + text + "' is not a number");
    }
    return value;
}

Json output_to_json(const OutputSums& sums) {
    return {{"outputs", sums.outputs},
            {"y2", exact_text(sums.y2)},
            {"error2", exact_text(sums.error2)},
            {"expected_error2", exact_text(sums.expected_error2)}};
}

OutputSums output_from_json(const Json& json) {
    OutputSums sums;
    sums.outputs = json.at("outputs").get<std::int64_t>();
    sums.y2 = exact_value(json.at("y2"));
    sums.error2 = exact_value(json.at("error2"));
    sums.expected_error2 = exact_value(json.at("expected_error2"));
    return sums;
}

Json tensor_to_json(const TensorAudit& tensor) {
    return {{"tensor", tensor.tensor},
            {"quantized", tensor.quantized},
            {"elements", tensor.elements},
            {"sum_x2", exact_text(tensor.sum_x2)},
            {"sum_error2", exact_text(tensor.sum_error2)},
            {"sum_expected_error2", exact_text(tensor.sum_expected_error2)},
            {"max_error_over_bound", exact_text(tensor.max_error_over_bound)},
            {"saturated", tensor.saturated},
            {"flushed", tensor.flushed},
            {"exact", tensor.exact},
            {"mismatched", tensor.mismatched},
            {"sum_x_error", exact_text(tensor.sum_x_error)},
            {"codes", tensor.codes},
            {"scale", tensor.scale},
            {"scales", tensor.scales},
            {"output", output_to_json(tensor.output)}};
}

TensorAudit tensor_from_json(const Json& json) {
    TensorAudit tensor;
    tensor.tensor = json.at("tensor").get<std::string>();
    tensor.quantized = json.at("quantized").get<bool>();
    tensor.elements = json.at("elements").get<std::int64_t>();
    tensor.sum_x2 = exact_value(json.at("sum_x2"));
    tensor.sum_error2 = exact_value(json.at("sum_error2"));
    tensor.sum_expected_error2 = exact_value(json.at("sum_expected_error2"));
    tensor.max_error_over_bound = exact_value(json.at("max_error_over_bound"));
    tensor.saturated = json.at("saturated").get<std::int64_t>();
    tensor.flushed = json.at("flushed").get<std::int64_t>();
    tensor.exact = json.at("exact").get<std::int64_t>();
    tensor.mismatched = json.at("mismatched").get<std::int64_t>();
    tensor.sum_x_error = exact_value(json.at("sum_x_error"));
    tensor.codes = json.at("codes").get<std::vector<std::int64_t>>();
    tensor.scale = json.at("scale").get<std::string>();
    tensor.scales = json.at("scales").get<std::map<int, std::int64_t>>();
    tensor.output = output_from_json(json.at("output"));
    return tensor;
}

Json finding_to_json(const core::Finding& finding) {
    return {{"check", finding.check},
            {"error", finding.severity == core::Severity::error},
            {"tensor", finding.tensor},
            {"index", finding.index},
            {"measured", finding.measured},
            {"limit", finding.limit},
            {"rank", finding.rank},
            {"message", finding.message},
            {"engine_behaviour", finding.engine_behaviour},
            {"engine_message", finding.engine_message},
            {"remedy", finding.remedy}};
}

core::Finding finding_from_json(const Json& json) {
    core::Finding finding;
    finding.check = json.at("check").get<std::string>();
    finding.severity =
        json.at("error").get<bool>() ? core::Severity::error : core::Severity::warning;
    finding.tensor = json.at("tensor").get<std::string>();
    finding.index = json.at("index").get<std::vector<std::int64_t>>();
    finding.measured = json.at("measured").get<std::string>();
    finding.limit = json.at("limit").get<std::string>();
    finding.rank = json.at("rank").get<int>();
    finding.message = json.at("message").get<std::string>();
    finding.engine_behaviour = json.at("engine_behaviour").get<std::string>();
    finding.engine_message = json.at("engine_message").get<std::string>();
    finding.remedy = json.at("remedy").get<std::string>();
    return finding;
}

}  // namespace

std::string to_json(const AuditResult& result) {
    Json json = {
        {"tensors", Json::array()}, {"digests", Json::array()}, {"findings", Json::array()}};
    for (const TensorAudit& tensor : result.tensors)
        json["tensors"].push_back(tensor_to_json(tensor));
    for (const PartDigest& part : result.digests) {
        json["digests"].push_back(
            {{"key", part.key}, {"low", part.digest.low}, {"high", part.digest.high}});
    }
    for (const core::Finding& finding : result.findings) {
        json["findings"].push_back(finding_to_json(finding));
    }
    // A name that is not UTF-8 must not hide the finding about it.
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

AuditResult audit_from_json(const std::string& text) {
    try {
        const Json json = Json::parse(text);
        AuditResult result;
        for (const Json& tensor : json.at("tensors")) {
            result.tensors.push_back(tensor_from_json(tensor));
        }
        for (const Json& part : json.at("digests")) {
            result.digests.push_back(
                {part.at("key").get<std::string>(),
                 {part.at("low").get<std::uint64_t>(), part.at("high").get<std::uint64_t>()}});
        }
        for (const Json& finding : json.at("findings")) {
            result.findings.push_back(finding_from_json(finding));
        }
        return result;
    } catch (const Json::exception& error) {
        throw core::Error(
            core::ExitCode::environment,
            std::string("audit result from another rank: not what an audit writes: ") +
                error.what());
    }
}

}  // namespace refit::checks
