// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/case_runner.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "harness/case_audit.hpp"
#include "harness/case_outcome.hpp"
#include "harness/case_setup.hpp"
#include "harness/ceilings.hpp"
#include "harness/device_residency.hpp"
#include "harness/floor.hpp"
#include "harness/handshake.hpp"
#include "harness/planted_faults.hpp"
#include "harness/preflight.hpp"
#include "harness/process_memory.hpp"
#include "harness/rank_agreement.hpp"
#include "harness/rank_memory.hpp"
#include "harness/rank_part.hpp"
#include "harness/rank_report.hpp"
#include "harness/refit_cycle.hpp"
#include "harness/refit_results.hpp"
#include "harness/stream_options.hpp"
#include "kernels/backend.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "weights/safetensors_weights.hpp"

namespace refit::harness {
namespace {

class CaseRunner {
 public:
    CaseRunner(RunContext& context, const Case& c)
        : run_(context),
          world_(context.world),
          case_(c),
          transport_name_(transport_of(c, context.world.is_mpi())) {
        trainer_ = world_.rank() < c.trainer_ranks;
        record_ = begun_case(c, transport_name_);
    }

    record::CaseRecord run() {
        if (run_.monitor != nullptr) run_.monitor->set_timeout(case_.timeout_s);
        reset_peak_memory();
        together(world_, [&] { set_up(); });
        if (!find_backend()) return std::move(record_);
        agreed_ = shake_hands(world_, run_.status, case_, setup_, record_);
        check_source();
        if (core::has_error(record_.findings)) return finish_without_refit();
        if (!open_transport()) return std::move(record_);
        together(world_, [&] {
            allocate();
            run_.status.set_on_enter([this](Stage stage, std::int64_t bucket) {
                strike(case_, world_.rank(), iteration_, stage, bucket);
            });
        });
        if (run_refits()) audit();
        collect_memory();
        close();
        conclude();
        return std::move(record_);
    }

 private:
    void set_up() {
        run_.status.enter(Stage::setup);
        setup_ = set_up_case(case_);
        record_.scheme = std::string(quant::scheme_name(setup_.payload.scheme));
        record_.recipe = setup_.payload.recipe != nullptr ? setup_.payload.recipe->name : "";
        record_.tensors = static_cast<std::int64_t>(setup_.tensors.size());
        for (const model::TensorSpec& tensor : setup_.tensors) {
            record_.bytes_bf16 += 2 * core::element_count(tensor.shape);
        }
        record_.notes["engine_version"] = setup_.instance.engine_version;
        if (!setup_.quantization.json.empty())
            record_.notes["quantization_config"] = setup_.quantization.json;
    }

    bool find_backend() {
        backend_ = kernels::find_backend(case_.backend);
        // Ranks may stand on machines with different processors; all must have it.
        if (world_.all_true(backend_ != nullptr)) {
            record_.backend = std::string(backend_->name());
            if (record_.backend == "cuda") {
                record_.notes["cuda_device"] = kernels::cuda::cuda_description();
                cuda_before_ = kernels::cuda::cuda_seconds();
            }
            return true;
        }
        std::string mine;
        for (const kernels::BackendRow& row : kernels::backend_rows()) {
            if (backend_ == nullptr && row.name == case_.backend) mine = row.reason;
        }
        std::string reason = "backend " + case_.backend + " is not viable on every rank";
        const std::vector<std::string> reasons = world_.allgather(mine);
        for (std::size_t r = reasons.size(); r-- > 0;) {
            if (reasons[r].empty()) continue;
            const bool alone = std::count(reasons.begin(), reasons.end(), reasons[r]) == 1;
            reason = (alone && reasons.size() > 1 ? "rank " + std::to_string(r) + ": " : "") +
                     "backend " + case_.backend + ": " + reasons[r];
        }
        skip(reason);
        return false;
    }

    [[nodiscard]] bool kernel() const { return case_.wire == "kernel"; }

    /// A checkpoint that does not fit its model is a finding, before anything is allocated.
    void check_source() {
        if (case_.weights_source != "safetensors") return;
        std::string found;
        together(world_, [&] {
            if (world_.rank() != 0) return;
            core::Findings findings = weights::check_checkpoint(case_.weights_path, setup_.tensors);
            for (core::Finding& finding : findings) finding.rank = 0;
            found = findings_to_json(findings);
        });
        found = broadcast_text(world_, found);
        add_findings(record_, findings_from_json(found));
    }

    record::CaseRecord finish_without_refit() {
        collect_memory();
        conclude();
        return std::move(record_);
    }

    bool open_transport() {
        if (world_.is_mpi() && transport_name_ == "loopback") {
            skip(
                "transport loopback plays all ranks in one process; start it without mpirun, or "
                "use --set transport.name=mpi");
            return false;
        }
        // Needs are the same on every rank, what is available is not: each node answers for itself.
        const double share = static_cast<double>(world_.local_size()) / world_.size();
        decide_residency(share);
        const bool may_stay =
            record_.backend == "cuda" && world_.all_true(why_staged_by_plan(device_part()).empty());
        check_machine(share, may_stay);

        transport::TransportOptions options;
        options.name = transport_name_;
        options.hub = run_.hub;
        options.link_bytes_per_s = case_.link_bytes_per_s;
        options.link_free_at_ns = &run_.status.page().link_free_at_ns;
        options.run_id = run_.run_id;
        transport::Endpoint endpoint{world_.rank(), case_.trainer_ranks, case_.engines * case_.tp,
                                     [this] { wait_turn(); }};
        std::string reason;
        together(world_, [&] {
            try {
                if (!run_.has_transport_ceiling(transport_name_)) {
                    transport::TransportOptions bare = options;
                    bare.link_bytes_per_s = 0;
                    auto probe = transport::make_transport(bare, endpoint);
                    const double rate = measure_transport(
                        world_, run_.status, *probe, case_.trainer_ranks,
                        std::min<std::uint64_t>(case_.bucket_bytes, std::uint64_t{16} << 20),
                        case_.depth);
                    run_.transport_ceiling(transport_name_, rate);
                }
                transport_ = transport::make_transport(options, endpoint);
                if (!setup_.transport_faults.empty()) {
                    aim_transport_faults(setup_, agreed_.manifest, case_.tp);
                    transport_ = transport::make_faulty_transport(std::move(transport_), endpoint,
                                                                  setup_.transport_faults);
                }
            } catch (const core::NotViable& error) {
                reason = error.what();
            }
        });
        const std::vector<std::string> reasons = world_.allgather(reason);
        const auto first = std::find_if(reasons.begin(), reasons.end(),
                                        [](const std::string& one) { return !one.empty(); });
        if (first != reasons.end()) {
            skip(*first);
            return false;
        }
        if (transport_name_ == "nccl") record_.notes["nccl"] = transport::nccl_description();
        if (record_.backend == "cuda") decide_device();
        if (may_stay && !on_device_) check_machine(share, false);
        together(world_,
                 [&] { transport_->open(stream_plan(case_, agreed_.manifest, on_device_)); });
        return true;
    }

    /// Does the machine have what the case needs? Where the refit may stay on the device, its
    /// memory is looked at when that is decided: one with too little stages instead.
    void check_machine(double share, bool may_stay) {
        const CaseNeeds needs = needs_of(
            case_, setup_,
            trainer_ && !kernel() ? agreed_.plan
                                  : trainer::RefitPlan{agreed_.manifest, {}, {}, {}, {}, {}},
            transport_name_, resident_, may_stay);
        together(world_, [&] {
            check_needs(needs, share);
            if (needs.device_memory == 0 || may_stay) return;
            // Without a device it is the transport that says so.
            if (const auto memory = kernels::cuda::device_memory())
                check_device_needs(needs, share, *memory);
        });
    }

    [[nodiscard]] DevicePart device_part() const {
        return {case_,
                setup_,
                agreed_.manifest,
                transport_name_,
                resident_,
                trainer_ ? world_.rank() : -1,
                world_.local_size()};
    }

    /// Whether the refit stays on the device from weights to parameters: on every rank or on none,
    /// and the record says why not.
    void decide_device() {
        std::string mine;
        together(world_, [&] { mine = why_staged(device_part(), transport_->piece_device()); });
        std::string reason;
        for (const std::string& one : world_.allgather(mine)) {
            if (reason.empty()) reason = one;
        }
        on_device_ = reason.empty();
        record_.notes["device_resident"] = on_device_ ? "true" : "false (" + reason + ")";
    }

    /// Whether the trainers hold their weights; all ranks agree, and the record says why.
    void decide_residency(double share) {
        const std::string size = bytes_text(resident_bytes(setup_)) + " of weights";
        if (case_.resident == Resident::automatic) {
            // A planted write needs weights that stay in memory.
            const bool wanted = !setup_.trainer_faults.source_write.empty() || kernel();
            resident_ = world_.all_true(wanted || resident_fits(setup_, share));
            const std::string part = std::to_string(static_cast<int>(100 * kResidentShare)) +
                                     " % of the memory available)";
            record_.notes["weights_resident"] =
                kernel()    ? "true (auto: wire: kernel joins parts of several tensors)"
                : wanted    ? "true (auto: a planted write needs weights in memory)"
                : resident_ ? "true (auto: " + size + " take at most " + part
                            : "false (auto: " + size + " would take more than " + part;
        } else {
            resident_ = case_.resident == Resident::yes;
            record_.notes["weights_resident"] =
                std::string(resident_ ? "true" : "false") + " (as asked; " + size + ")";
        }
        if (!resident_ && checks("source_unchanged")) {
            not_applicable("source_unchanged",
                           "weights.resident is false, no weights stay in memory");
        }
        if (setup_.payload.recipe == nullptr && checks("layer_output")) {
            not_applicable("layer_output",
                           "BF16 weights are multiplied with BF16 activations, nothing is "
                           "quantized; round_trip compares the weights bit by bit");
        }
    }

    void not_applicable(const std::string& check, const std::string& reason) {
        std::string& names = record_.notes["checks_not_applicable"];
        names += (names.empty() ? "" : ",") + check;
        record_.notes[check] = "not applicable: " + reason;
    }

    [[nodiscard]] bool checks_source() const { return resident_ && checks("source_unchanged"); }

    void allocate() {
        run_.status.enter(Stage::source);
        part_ = std::make_unique<RankPart>(RankPartPlan{
            case_, setup_, agreed_.plan, agreed_.kernel_plan, agreed_.manifest, *backend_,
            world_.rank(), resident_, on_device_, [this] { run_.status.progressed(); }});
        record_.notes["weights"] = part_->source().description();
        if (part_->calibration() != nullptr) {
            record_.notes["kv_cache_scales"] = std::to_string(setup_.cache_scales.size()) +
                                               " F32 scales (" + case_.kv_cache_scales + "), " +
                                               part_->calibration()->description();
        }
    }

    /// All refits with their iterations. False when a refit failed: then the audit has nothing to
    /// look at.
    bool run_refits() {
        results_.has_source_stage(!resident_);
        RefitContext context{world_,
                             run_.status,
                             *transport_,
                             agreed_.manifest,
                             case_.trainer_ranks,
                             case_.pipeline,
                             part_->publisher(),
                             part_->loader()};
        context.source_by_bucket = !resident_;
        if (trainer_ && record_.backend == "cuda") context.staging_backend = backend_;
        if (part_->bucket_source() != nullptr) {
            context.read_source = [this](std::size_t bucket,
                                         const std::function<void()>& on_progress) {
                part_->bucket_source()->read(bucket, on_progress);
            };
        }
        together(world_, [&] {
            if (trainer_ && checks_source()) audit_.remember_source(*part_->held());
        });
        for (int refit = 0; refit < case_.refits; ++refit) {
            if (refit > 0 && !next_step(refit)) return false;
            const int warmup = refit == 0 ? case_.warmup : 0;
            for (int i = -warmup; i < case_.iterations; ++i) {
                iteration_ = i;
                if (run_.progress && world_.rank() == 0) {
                    run_.progress("case " + run_.where + " " + case_.name + ": " +
                                  (i < 0 ? "warm-up"
                                         : "iteration " + std::to_string(i + 1) + "/" +
                                               std::to_string(case_.iterations)));
                }
                const bool last = i + 1 == case_.iterations && refit + 1 == case_.refits;
                if (!one_refit(context, i >= 0, last)) return false;
            }
            if (refit + 1 < case_.refits && !audit()) return false;
        }
        return true;
    }

    bool next_step(int refit) {
        together(world_, [&] {
            run_.status.enter(Stage::source);
            part_->next_step(refit);
            if (trainer_ && checks_source()) audit_.remember_source(*part_->held());
        });
        return true;
    }

    [[nodiscard]] bool checks(const std::string& name) const {
        return std::find(case_.checks.begin(), case_.checks.end(), name) != case_.checks.end();
    }

    bool one_refit(RefitContext& context, bool measured, bool last) {
        ++version_;
        RefitResult mine = run_refit(context, version_);
        if (!trainer_ && mine.committed && !setup_.instance.destinations.empty())
            results_.saw_address(part_->loader()->address());
        return results_.add(std::move(mine), measured, last);
    }

    bool audit() {
        return audit_.run({part_->loader(), part_->held(), &part_->source(), part_->calibration(),
                           checks_source()},
                          version_);
    }

    void collect_memory() {
        if (on_device_) note_device_traffic(world_, part_->device_traffic(), record_);
        const bool shares = transport_ != nullptr && trainer_ && transport_name_ == "mpi_window";
        note_memory(world_, shares ? transport_->buffer_bytes() : 0, results_.addresses(), record_);
    }

    void close() {
        run_.status.set_on_enter({});
        if (transport_ != nullptr) transport_->close();
    }

    void conclude() {
        results_.conclude();
        const Floor floor = floor_of(case_, setup_.loading(), agreed_.manifest, transport_name_,
                                     run_.memory_copy_bytes_per_s);
        record_.floor_wall_s = floor.wall_s;
        record_.floor_formula = floor.formula;
        if (record_.backend == "cuda" && !on_device_) {
            // Of this rank, over all refits of the case: rank 0 is a trainer, and its record
            // counts.
            const kernels::cuda::CudaSeconds now = kernels::cuda::cuda_seconds();
            const auto note = [&](const char* name, double seconds) {
                record_.notes[name] = std::to_string(seconds);
            };
            note("cuda_to_device_s", now.to_device - cuda_before_.to_device);
            note("cuda_kernels_s", now.kernels - cuda_before_.kernels);
            note("cuda_from_device_s", now.from_device - cuda_before_.from_device);
        }
        record_.outcome = judge_outcome(case_.expect, record_.findings, !results_.error().empty());
    }

    void skip(const std::string& reason) {
        record_.outcome = "skipped";
        record_.skip_reason = reason;
    }

    void wait_turn() {
        run_.status.beat();
        if (run_.status.given_up_by_other()) throw RunGivenUp{};
    }

    RunContext& run_;
    World& world_;
    const Case& case_;
    std::string transport_name_;
    bool trainer_ = false;
    record::CaseRecord record_;
    CaseSetup setup_;
    const kernels::Backend* backend_ = nullptr;
    kernels::cuda::CudaSeconds cuda_before_;
    Agreement agreed_;
    CaseAudit audit_{world_, run_.status, case_, setup_, agreed_.manifest, record_};
    RefitResults results_{world_, case_, setup_, record_};
    std::unique_ptr<transport::Transport> transport_;
    bool resident_ = true;
    bool on_device_ = false;  ///< pieces, weights and parameters are memory of the device
    std::unique_ptr<RankPart> part_;
    std::int64_t iteration_ = 0;
    std::uint64_t version_ = 0;
};

}  // namespace

record::CaseRecord run_case(RunContext& context, const Case& c) {
    return CaseRunner(context, c).run();
}

}  // namespace refit::harness
