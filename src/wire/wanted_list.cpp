// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/wanted_list.hpp"

#include <nlohmann/json.hpp>

#include "core/error.hpp"

namespace refit::wire {

using nlohmann::json;

std::string to_json(const WantedList& wanted) {
    json root = json::array();
    for (const WantedParameter& p : wanted) {
        json dtypes = json::array();
        for (const core::DType dtype : p.dtypes) dtypes.push_back(core::safetensors_name(dtype));
        root.push_back({p.name, std::move(dtypes), p.shape, p.scale, p.scale_of, p.row_cuts,
                        p.col_cuts, p.fuse_group, p.calibration});
    }
    return root.dump();
}

WantedList wanted_list_from_json(const std::string& text) {
    WantedList wanted;
    try {
        for (const json& row : json::parse(text)) {
            WantedParameter p;
            p.name = row.at(0).get<std::string>();
            for (const json& name : row.at(1)) {
                const auto dtype = core::from_safetensors_name(name.get<std::string>());
                if (!dtype)
                    throw core::Error(core::ExitCode::environment,
                                      "the wanted list has an unknown dtype for " + p.name);
                p.dtypes.push_back(*dtype);
            }
            p.shape = row.at(2).get<core::Shape>();
            p.scale = row.at(3).get<std::string>();
            p.scale_of = row.at(4).get<std::string>();
            p.row_cuts = row.at(5).get<std::vector<std::int64_t>>();
            p.col_cuts = row.at(6).get<std::vector<std::int64_t>>();
            p.fuse_group = row.at(7).get<std::string>();
            p.calibration = row.at(8).get<std::string>();
            wanted.push_back(std::move(p));
        }
    } catch (const json::exception& error) {
        throw core::Error(
            core::ExitCode::environment,
            std::string("the wanted list of the receivers is malformed: ") + error.what());
    }
    return wanted;
}

}  // namespace refit::wire
