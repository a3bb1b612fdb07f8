// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/export_plan.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "core/error.hpp"
#include "harness/export_source.hpp"
#include "model/hf_config.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/quantization_config.hpp"
#include "receiver/tp_feasibility.hpp"
#include "trainer/eligibility.hpp"
#include "weights/safetensors_weights.hpp"

namespace refit::harness {
namespace {

using model::Role;
using model::TensorSpec;

constexpr std::size_t kShownKinds = 6;
constexpr const char* kByOverride = "listed by --config-override";

[[noreturn]] void refuse(const std::string& text) {
    throw core::Error(core::ExitCode::verdict, text);
}

std::string module_of(const std::string& tensor) {
    return tensor.substr(0, tensor.rfind('.'));
}

/// "model.layers.3.mlp.experts" of an expert's module.
std::string stack_of(const std::string& expert_module) {
    return module_of(module_of(expert_module));
}

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text.empty() ? "none" : text;
}

/// The name without the numbers of its layer and expert.
std::string without_numbers(std::string name) {
    name.erase(
        std::remove_if(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; }),
        name.end());
    return name;
}

/// The findings as text, one for all that differ only in the number of their layer or expert.
std::vector<std::string> by_kind(const core::Findings& findings, core::Severity severity) {
    std::vector<std::pair<const core::Finding*, int>> kinds;
    std::map<std::string, std::size_t> kind_of;
    for (const core::Finding& finding : findings) {
        if (finding.severity != severity) continue;
        const std::string key = without_numbers(finding.tensor) + finding.measured;
        const auto [it, added] = kind_of.try_emplace(key, kinds.size());
        if (added) kinds.emplace_back(&finding, 0);
        ++kinds[it->second].second;
    }
    std::vector<std::string> texts;
    for (const auto& [finding, count] : kinds) {
        if (texts.size() == kShownKinds) {
            texts.push_back("and " + std::to_string(kinds.size() - kShownKinds) + " other kinds");
            break;
        }
        std::string text = finding->message;
        if (!finding->engine_message.empty()) {
            text += "\n    the engine says: " + finding->engine_message;
        } else if (finding->engine_behaviour == "silently_wrong") {
            text += "\n    the engine says nothing and ends with other weights";
        }
        if (count > 1) {
            text += "\n    and " + std::to_string(count - 1) + " more like it in other layers";
        }
        texts.push_back(std::move(text));
    }
    return texts;
}

bool has_scheme(const receiver::EngineContract& contract, quant::Scheme scheme) {
    const auto& schemes = contract.schemes;
    return std::find(schemes.begin(), schemes.end(), scheme) != schemes.end();
}

/// Refuses a recipe whose scheme the engine does not have.
void require_scheme(const quant::Recipe& recipe, const receiver::EngineContract& contract) {
    if (has_scheme(contract, recipe.scheme)) return;
    std::vector<std::string> engines;
    for (const receiver::EngineContract& other : receiver::engine_catalog()) {
        if (has_scheme(other, recipe.scheme)) engines.push_back(other.name);
    }
    std::vector<std::string> recipes;
    for (const quant::Recipe& other : quant::recipe_catalog()) {
        if (has_scheme(contract, other.scheme)) recipes.push_back(other.name);
    }
    throw core::UsageError("recipe " + recipe.name + " gives " +
                           std::string(quant::scheme_name(recipe.scheme)) + ", which engine " +
                           contract.name + " does not load; engines that do: " + joined(engines) +
                           "; recipes for " + contract.name + ": " + joined(recipes));
}

/// A linear layer or router, which an engine would take for quantized unless it is listed.
bool is_linear(const TensorSpec& spec) {
    switch (spec.role) {
        case Role::embedding:
        case Role::norm:
        case Role::bias:
            return false;
        default:
            return true;
    }
}

std::string reason_of(Role role) {
    switch (role) {
        case Role::head:
            return "output head";
        case Role::router:
            return "router";
        case Role::mtp_proj:
            return "projection of multi-token prediction, which engines build unquantized";
        default:
            return "not quantized by any trainer";
    }
}

/// Which engines load the model at this TP size, and in which scheme.
std::string alternatives(const model::ModelConfig& model, int tp) {
    std::vector<std::string> found;
    for (const receiver::EngineContract& contract : receiver::engine_catalog()) {
        for (const quant::Scheme scheme : contract.schemes) {
            if (scheme == quant::Scheme::bf16) continue;
            try {
                for (const auto& row : receiver::tp_feasibility(model, contract.name, scheme)) {
                    if (row.tp != tp || row.ep != 1 || !row.passes) continue;
                    found.push_back(contract.name + " (" + std::string(quant::scheme_name(scheme)) +
                                    ")");
                }
            } catch (const core::Error&) {
                // The engine does not have the architecture: no alternative.
            }
        }
    }
    return joined(found);
}

class Planner {
 public:
    explicit Planner(const ExportRequest& request)
        : request_(request), contract_(receiver::find_engine(request.engine)) {
        plan_.recipe = &quant::find_recipe(request.recipe);
        require_scheme(*plan_.recipe, contract_);
        plan_.model = model::read_hf_config(request.model / "config.json");
        plan_.config.emplace(request.model, request.engine, plan_.recipe->scheme,
                             request.config_override);
        plan_.model = weights::config_of_checkpoint(std::move(plan_.model), request.model);
        plan_.model.quantization_config.reset();
        specs_ = model::tensors_of(plan_.model);
        plan_.source = std::make_unique<weights::CheckpointDirectory>(request.model);
        plan_.places = std::make_unique<weights::StoredPlaces>(*plan_.source, specs_);
    }

    ExportPlan run() {
        check_source(*plan_.source, *plan_.places, specs_);
        const SurplusTensors surplus =
            sort_surplus(*plan_.source, *plan_.places, plan_.model, specs_, contract_);
        plan_.not_written = surplus.left_out;
        for (const TensorSpec& spec : specs_) {
            if (is_linear(spec) && !trainer::is_eligible(spec)) {
                left_.emplace(module_of(spec.name), reason_of(spec.role));
            }
        }
        for (const TensorSpec& spec : specs_) {
            const std::string module = module_of(spec.name);
            if (!trainer::is_eligible(spec)) continue;
            if (is_left_by_engine(module)) {
                left_.emplace(module, "left so by default for " + request_.engine);
            }
            const auto& names = plan_.config->listed_by_override();
            if (std::find(names.begin(), names.end(), module) != names.end()) {
                left_.emplace(module, kByOverride);
            }
        }
        const receiver::ContractInstance instance = settle();
        plan_.engine_version = instance.engine_version;
        plan_.warnings = by_kind(instance.refusals, core::Severity::warning);
        list_tensors(instance);
        for (const weights::CheckpointDirectory::Location& at : surplus.cache_scales) {
            ExportTensor tensor;
            tensor.name = at.tensor->name;
            tensor.shape = at.tensor->shape;
            tensor.dtype = at.tensor->dtype;
            tensor.place = {at.file, at.tensor, 0};
            tensor.of_model = false;
            plan_.tensors.push_back(std::move(tensor));
        }
        return std::move(plan_);
    }

 private:
    /// The contract for the config as it will be written, once no layer is left in it that the
    /// engine cannot load.
    receiver::ContractInstance settle() {
        // Every round leaves at least one more layer in BF16.
        for (;;) {
            make_skip_list();
            const std::string text = plan_.config->quantization_config(plan_.skip_list);
            const receiver::QuantizationConfig config =
                receiver::parse_quantization_config(request_.engine, text);
            if (config.scheme != plan_.recipe->scheme) {
                throw core::UsageError("--config-override makes engine " + request_.engine +
                                       " read the quantization_config as " +
                                       std::string(quant::scheme_name(config.scheme)) +
                                       ", but recipe " + plan_.recipe->name + " gives " +
                                       std::string(quant::scheme_name(plan_.recipe->scheme)) +
                                       "; change one of the two");
            }
            receiver::ContractInstance instance =
                receiver::apply_contract(contract_, plan_.model, config, request_.tp);
            const bool may_leave = request_.unloadable == Unloadable::bf16;
            if (!instance.not_for_scenarios.empty()) {
                const bool helps = add_experts(instance.not_for_scenarios);
                if (may_leave && helps) continue;
                throw core::UsageError(instance.not_for_scenarios +
                                       (helps ? "; '--unloadable bf16' lists them" : ""));
            }
            const bool listed = add_overridden(instance);
            if (add_fused(instance) || listed) continue;
            if (!core::has_error(instance.refusals)) return instance;
            if (!may_leave || !add_refused(instance)) refuse_model(instance.refusals);
        }
    }

    /// An engine that does not know the parts of its fused layers looks for their own names: those
    /// whose parts all stay in BF16. Experts are listed by their stack.
    bool add_fused(const receiver::ContractInstance& instance) {
        if (contract_.skip_rule != receiver::SkipRule::path_endings) return false;
        std::map<std::string, bool> whole;
        for (const wire::WantedParameter& parameter : instance.wanted) {
            const bool expert = parameter.fuse_group.find(".experts.") != std::string::npos;
            if (parameter.fuse_group.empty() || expert || !parameter.name.ends_with(".weight")) {
                continue;
            }
            const auto it = whole.try_emplace(parameter.fuse_group, true).first;
            const auto left = left_.find(module_of(parameter.name));
            it->second = it->second && left != left_.end();
            if (left != left_.end()) fused_of_[left->first] = parameter.fuse_group;
        }
        bool changed = false;
        for (const auto& [name, is_whole] : whole) {
            if (is_whole) changed |= fused_.insert(name).second;
        }
        return changed;
    }

    [[nodiscard]] bool is_left_by_engine(const std::string& module) const {
        const auto& names = plan_.config->listed_by_engine();
        return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
            return module == name || module.ends_with("." + name);
        });
    }

    /// Layers that the override leaves in BF16 by the engine's own rule of matching.
    bool add_overridden(const receiver::ContractInstance& instance) {
        bool changed = false;
        std::unordered_map<std::string, const wire::WantedParameter*> wanted;
        for (const wire::WantedParameter& parameter : instance.wanted) {
            wanted.emplace(parameter.name, &parameter);
        }
        for (const TensorSpec& spec : specs_) {
            const auto it = wanted.find(spec.name);
            if (it == wanted.end() || !it->second->scale.empty() || !trainer::is_eligible(spec)) {
                continue;
            }
            const bool listed = !plan_.config->listed_by_override().empty();
            changed |= left_
                           .emplace(module_of(spec.name),
                                    listed ? "listed by --config-override"
                                           : "matched by another entry of the skip list")
                           .second;
        }
        return changed;
    }

    /// Leaves in BF16 what the refusals name, with everything that the engine fuses with it.
    bool add_refused(const receiver::ContractInstance& instance) {
        std::unordered_map<std::string, std::string> group_of;
        for (const wire::WantedParameter& parameter : instance.wanted) {
            group_of.emplace(module_of(parameter.name), parameter.fuse_group);
        }
        std::map<std::string, std::string> refused;  // module, fused layer or stack -> reason
        for (const core::Finding& finding : instance.refusals) {
            if (finding.severity != core::Severity::error) continue;
            const std::string module = module_of(finding.tensor);
            const std::string reason =
                finding.measured + ", " + request_.engine + " wants " + finding.limit;
            refused.emplace(module, reason);
            const auto group = group_of.find(module);
            if (group != group_of.end() && !group->second.empty()) {
                refused.emplace(group->second, reason);
            }
            const std::size_t experts = module.find(".experts.");
            if (experts != std::string::npos) {
                refused.emplace(module.substr(0, experts) + ".experts", reason);
            }
        }
        bool changed = false;
        for (const TensorSpec& spec : specs_) {
            if (!trainer::is_eligible(spec)) continue;
            const std::string module = module_of(spec.name);
            auto it = refused.find(module);
            if (it == refused.end()) it = refused.find(group_of[module]);
            if (it == refused.end() && spec.expert >= 0) it = refused.find(stack_of(module));
            if (it != refused.end()) changed |= left_.emplace(module, it->second).second;
        }
        const bool any = std::any_of(specs_.begin(), specs_.end(), [this](const TensorSpec& spec) {
            return trainer::is_eligible(spec) && left_.count(module_of(spec.name)) == 0;
        });
        if (!any) refuse_model(instance.refusals);
        return changed;
    }

    /// Leaves all experts in BF16. False when they are already, or are all that could be quantized.
    bool add_experts(const std::string& reason) {
        bool changed = false;
        bool others = false;
        for (const TensorSpec& spec : specs_) {
            if (!trainer::is_eligible(spec)) continue;
            if (spec.expert < 0) {
                others |= left_.count(module_of(spec.name)) == 0;
            } else {
                changed |= left_.emplace(module_of(spec.name), reason).second;
            }
        }
        return changed && others;
    }

    [[noreturn]] void refuse_model(const core::Findings& refusals) const {
        std::string text = "exporting " + request_.model.string() + " by recipe " +
                           plan_.recipe->name + " for " + request_.engine + ": the engine cannot " +
                           "load it so";
        for (const std::string& kind : by_kind(refusals, core::Severity::error)) {
            text += "\n  " + kind;
        }
        text += "\nAt TP " + std::to_string(request_.tp) +
                " this model loads in: " + alternatives(plan_.model, request_.tp);
        if (request_.unloadable == Unloadable::refuse) {
            text +=
                "\n'--unloadable bf16' leaves the layers concerned in BF16, where there are "
                "others";
        }
        refuse(text);
    }

    /// Full names in model order; a stack of experts under its own name too, which is the module
    /// that engines hold. What the override lists comes last, as it was written.
    void make_skip_list() {
        plan_.left.clear();
        plan_.skip_list.clear();
        std::map<std::string, bool> whole_stack;
        for (const TensorSpec& spec : specs_) {
            if (spec.expert < 0) continue;
            const std::string module = module_of(spec.name);
            const auto it = whole_stack.try_emplace(stack_of(module), true).first;
            it->second = it->second && left_.count(module) != 0;
        }
        std::set<std::string> listed;
        const auto list = [&](const std::string& name) {
            if (listed.insert(name).second) plan_.skip_list.push_back(name);
        };
        for (const TensorSpec& spec : specs_) {
            if (!is_linear(spec)) continue;
            const std::string module = module_of(spec.name);
            const auto it = left_.find(module);
            if (it == left_.end()) continue;
            plan_.left.push_back({module, it->second});
            if (spec.expert >= 0 && whole_stack[stack_of(module)]) list(stack_of(module));
            list(module);
            const auto fused = fused_of_.find(module);
            if (fused != fused_of_.end() && fused_.count(fused->second) != 0) list(fused->second);
        }
        // A tied head is not among the tensors, but engines build its module.
        if (plan_.model.tied_embeddings) list("lm_head");
        for (const std::string& name : plan_.config->listed_by_override()) list(name);
    }

    void list_tensors(const receiver::ContractInstance& instance) {
        std::unordered_map<std::string, const wire::WantedParameter*> wanted;
        for (const wire::WantedParameter& parameter : instance.wanted) {
            wanted.emplace(parameter.name, &parameter);
        }
        for (const TensorSpec& spec : specs_) {
            const auto it = wanted.find(spec.name);
            const bool quantize =
                trainer::is_eligible(spec) && left_.count(module_of(spec.name)) == 0;
            if (it == wanted.end() || quantize == it->second->scale.empty()) {
                refuse(spec.name + ": " + (quantize ? "to be quantized" : "to be left in BF16") +
                       ", but the contract of " + request_.engine + " has it " +
                       (it == wanted.end() ? "not at all" : "otherwise") +
                       "; choose another engine");
            }
            plan_.tensors.push_back(
                quantize ? quantized(spec, *it->second, *wanted.at(it->second->scale))
                         : unquantized(spec, *it->second));
        }
    }

    ExportTensor quantized(const TensorSpec& spec, const wire::WantedParameter& weight,
                           const wire::WantedParameter& scale) const {
        ExportTensor tensor;
        tensor.name = spec.name;
        tensor.shape = spec.shape;
        tensor.dtype = weight.dtypes.front();
        tensor.place = plan_.places->find(spec);
        tensor.scale_name = scale.name;
        tensor.scale_shape = scale.shape;
        tensor.scale_dtype = quant::scale_dtype(*plan_.recipe);
        const auto takes = [&scale](core::DType dtype) {
            return std::find(scale.dtypes.begin(), scale.dtypes.end(), dtype) != scale.dtypes.end();
        };
        // F32 holds every BF16 value.
        if (!takes(tensor.scale_dtype) && tensor.scale_dtype == core::DType::bf16) {
            tensor.scale_dtype = core::DType::f32;
        }
        const core::Shape grid =
            quant::scale_shape(*plan_.recipe, spec.shape, plan_.recipe->scale_rank);
        const bool fits = core::element_count(grid) == core::element_count(scale.shape);
        if (!takes(tensor.scale_dtype) || !fits) {
            refuse(scale.name + ": recipe " + plan_.recipe->name + " gives " +
                   std::string(core::safetensors_name(tensor.scale_dtype)) + " " +
                   core::to_string(grid) + ", " + request_.engine + " wants " +
                   std::string(core::safetensors_name(scale.dtypes.front())) + " " +
                   core::to_string(scale.shape) + "; choose another recipe or engine");
        }
        return tensor;
    }

    /// The source's bytes, or BF16 where the engine would not take the source's dtype as it is.
    ExportTensor unquantized(const TensorSpec& spec, const wire::WantedParameter& wanted) const {
        ExportTensor tensor;
        tensor.name = spec.name;
        tensor.shape = spec.shape;
        tensor.place = plan_.places->find(spec);
        const core::DType stored = tensor.place.tensor->dtype;
        const bool taken =
            std::find(wanted.dtypes.begin(), wanted.dtypes.end(), stored) != wanted.dtypes.end();
        const bool alone = tensor.place.tensor->shape == spec.shape;
        tensor.dtype = taken && alone ? stored : core::DType::bf16;
        return tensor;
    }

    const ExportRequest& request_;
    const receiver::EngineContract& contract_;
    ExportPlan plan_;
    std::vector<TensorSpec> specs_;
    std::map<std::string, std::string> left_;      ///< module -> reason
    std::map<std::string, std::string> fused_of_;  ///< module -> the fused layer it is part of
    std::set<std::string> fused_;                  ///< fused layers that stay in BF16 whole
};

}  // namespace

ExportPlan plan_export(const ExportRequest& request) {
    return Planner(request).run();
}

}  // namespace refit::harness
