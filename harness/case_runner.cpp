// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/case_runner.hpp"

#include <algorithm>
#include <limits>
#include <set>
#include <sstream>

#include "core/error.hpp"
#include "harness/case_audit.hpp"
#include "harness/case_outcome.hpp"
#include "harness/case_setup.hpp"
#include "harness/ceilings.hpp"
#include "harness/device_residency.hpp"
#include "harness/floor.hpp"
#include "harness/planted_faults.hpp"
#include "harness/preflight.hpp"
#include "harness/process_memory.hpp"
#include "harness/rank_agreement.hpp"
#include "harness/rank_part.hpp"
#include "harness/rank_report.hpp"
#include "harness/refit_cycle.hpp"
#include "harness/stream_check.hpp"
#include "harness/stream_options.hpp"
#include "kernels/backend.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "receiver/framing_check.hpp"
#include "weights/safetensors_weights.hpp"

namespace refit::harness {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double median(std::vector<double> values) {
    if (values.empty()) return kNaN;
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

class CaseRunner {
 public:
    CaseRunner(RunContext& context, const Case& c)
        : run_(context),
          world_(context.world),
          case_(c),
          transport_name_(transport_of(c, context.world.is_mpi())) {
        trainer_ = world_.rank() < c.trainer_ranks;
        receiver_index_ = world_.rank() - c.trainer_ranks;
        record_ = begun_case(c, transport_name_);
    }

    record::CaseRecord run() {
        if (run_.monitor != nullptr) run_.monitor->set_timeout(case_.timeout_s);
        reset_peak_memory();
        together(world_, [&] { set_up(); });
        if (!find_backend()) return std::move(record_);
        handshake();
        check_source();
        if (core::has_error(record_.findings)) return finish_without_refit();
        if (!open_transport()) return std::move(record_);
        together(world_, [&] {
            allocate();
            run_.status.set_on_enter([this](Stage stage, std::int64_t bucket) {
                strike(case_, world_.rank(), iteration_, stage, bucket);
            });
        });
        const bool refitted = run_refits();
        if (refitted) audit();
        collect_memory();
        close();
        conclude(refitted);
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

    /// Receivers publish what they want; trainers answer with the manifest of what they will send;
    /// receivers hold it to their contract before any byte moves.
    void handshake() {
        run_.status.enter(Stage::handshake);
        const int first_receiver = case_.trainer_ranks;
        const std::string wanted_text =
            world_.rank() == first_receiver ? wire::to_json(setup_.instance.wanted) : std::string();
        const std::string wanted =
            world_.allgather(wanted_text)[static_cast<std::size_t>(first_receiver)];
        const std::string layout =
            kernel()
                ? world_.allgather(world_.rank() == first_receiver
                                       ? wire::to_json(setup_.layout)
                                       : std::string())[static_cast<std::size_t>(first_receiver)]
                : std::string();
        std::string manifest_text;
        together(world_, [&] {
            if (!trainer_) return;
            plan_refit(wire::wanted_list_from_json(wanted), layout);
            if (world_.rank() == 0) manifest_text = wire::to_json(manifest_);
        });
        manifest_text = broadcast_text(world_, manifest_text);
        std::string found;
        together(world_, [&] {
            if (trainer_) {
                core::Findings findings =
                    kernel() ? kernel_plan_.checkpoint.findings : plan_.findings;
                for (core::Finding& finding : findings) finding.rank = world_.rank();
                if (world_.rank() == 0) found = findings_to_json(findings);
                return;
            }
            manifest_ = wire::manifest_from_json(manifest_text);
            StreamCheck stream = check_stream(case_, setup_, manifest_, receiver_index_);
            open_layers_ = stream.most_open_layers;
            core::Findings& findings = stream.findings;
            for (core::Finding& finding : findings) finding.rank = world_.rank();
            // All receivers hold the same contract against the same manifest: one of them speaks,
            // and one whose own buffer is another.
            const bool differs =
                receiver_buffer_bytes(case_, receiver_index_) != receiver_buffer_bytes(case_, 0);
            if (receiver_index_ == 0 || differs) found = findings_to_json(findings);
        });
        for (const std::string& one : world_.allgather(found)) {
            if (!one.empty()) add_findings(record_, findings_from_json(one));
        }
        record_.bytes_wire = static_cast<std::int64_t>(manifest_.payload_bytes());
        if (case_.reload != "none") {
            const std::vector<std::string> open = world_.allgather(std::to_string(open_layers_));
            record_.notes["reload"] = case_.reload + ", at most " +
                                      open[static_cast<std::size_t>(case_.trainer_ranks)] +
                                      " layers begun at one time";
        }
        record_.notes["framing"] = case_.framing;
        record_.notes["bytes_wire_leaves_out"] =
            wire::framing_row(setup_.payload.framing).uncounted;
        record_.notes["wire"] = case_.wire;
        record_.notes["stream_quantized_already"] =
            std::to_string(receiver::count_prequantized_marks(manifest_)) +
            " names that end in _scale_inv";
    }

    [[nodiscard]] bool kernel() const { return case_.wire == "kernel"; }

    /// What this trainer will send, as the receivers' list or layout asks for.
    void plan_refit(const wire::WantedList& wanted, const std::string& layout) {
        if (kernel()) {
            kernel_plan_ = trainer::make_kernel_plan(
                setup_.tensors, wanted, wire::kernel_layout_from_json(layout), setup_.payload,
                setup_.sharding, setup_.trainer_faults, setup_.kernel_faults);
            manifest_ = kernel_plan_.manifest;
            return;
        }
        plan_ = trainer::make_plan(setup_.tensors, wanted, setup_.payload, setup_.sharding,
                                   setup_.trainer_faults);
        manifest_ = plan_.manifest;
    }

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
        conclude(false);
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
                    aim_transport_faults(setup_, manifest_, case_.tp);
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
        together(world_, [&] { transport_->open(stream_plan(case_, manifest_, on_device_)); });
        return true;
    }

    /// Does the machine have what the case needs? Where the refit may stay on the device, its
    /// memory is looked at when that is decided: one with too little stages instead.
    void check_machine(double share, bool may_stay) {
        const CaseNeeds needs = needs_of(
            case_, setup_,
            trainer_ && !kernel() ? plan_ : trainer::RefitPlan{manifest_, {}, {}, {}, {}, {}},
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
        const trainer::RefitPlan* plan = kernel() ? &kernel_plan_.checkpoint : &plan_;
        return {case_,           setup_,    trainer_ ? plan : nullptr,     manifest_,
                transport_name_, resident_, trainer_ ? world_.rank() : -1, world_.local_size()};
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
        part_ = std::make_unique<RankPart>(
            RankPartPlan{case_, setup_, plan_, kernel_plan_, manifest_, *backend_, world_.rank(),
                         resident_, on_device_, [this] { run_.status.progressed(); }});
        record_.notes["weights"] = part_->source().description();
        if (part_->calibration() != nullptr) {
            record_.notes["kv_cache_scales"] = std::to_string(setup_.cache_scales.size()) +
                                               " F32 scales (" + case_.kv_cache_scales + "), " +
                                               part_->calibration()->description();
        }
    }

    /// The largest figure of any rank.
    void note_device_traffic() {
        const RankPart::Traffic mine = part_->device_traffic();
        std::uint64_t most[3] = {0, 0, 0};
        for (const std::string& one :
             world_.allgather(std::to_string(mine.weights) + " " + std::to_string(mine.control) +
                              " " + std::to_string(mine.audited))) {
            std::istringstream fields(one);
            for (std::uint64_t& figure : most) {
                std::uint64_t value = 0;
                fields >> value;
                figure = std::max(figure, value);
            }
        }
        record_.notes["device_staged_bytes"] = std::to_string(most[0]);
        record_.notes["device_control_bytes"] = std::to_string(most[1]);
        record_.notes["device_audited_bytes"] = std::to_string(most[2]);
    }

    /// All refits with their iterations. False when a refit failed: then the audit has nothing to
    /// look at.
    bool run_refits() {
        RefitContext context{
            world_,         run_.status,        *transport_,    manifest_, case_.trainer_ranks,
            case_.pipeline, part_->publisher(), part_->loader()};
        context.source_by_bucket = !resident_;
        if (trainer_ && stages()) context.staging_backend = backend_;
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

    bool one_refit(RefitContext& context, bool measured, bool last) {
        ++version_;
        RefitResult mine = run_refit(context, version_);
        if (!trainer_ && mine.committed && !setup_.instance.destinations.empty())
            addresses_.insert(part_->loader()->address());
        if (!last) mine.times.buckets.clear();
        std::vector<RefitResult> all;
        for (const std::string& one : world_.allgather(refit_result_to_json(mine))) {
            all.push_back(refit_result_from_json(one));
        }
        bool fine = true;
        // Where a trainer gave up, or a rank could not do its part, what the receivers miss is no
        // finding of its own.
        const auto trainers = static_cast<std::size_t>(case_.trainer_ranks);
        bool given_up = false;
        bool trainer_failed = false;
        for (std::size_t r = 0; r < all.size(); ++r) {
            trainer_failed = trainer_failed || (r < trainers && !all[r].error.empty());
            given_up = given_up || !all[r].error.empty() ||
                       (r < trainers && core::has_error(all[r].findings));
        }
        for (std::size_t r = 0; r < all.size(); ++r) {
            fine = fine && all[r].committed;
            if (given_up)
                std::erase_if(all[r].findings,
                              [](const core::Finding& f) { return f.check == "completeness"; });
            // Nor is the old piece that stands where a trainer could not even say that it gave up.
            if (trainer_failed && r >= trainers) {
                std::erase_if(all[r].findings, [](const core::Finding& f) {
                    return f.check == "version" || f.measured == "a damaged piece header";
                });
            }
            receiver::add_unnoticed_by_engine(all[r].findings, setup_.payload.framing);
            add_findings(record_, in_checkpoint_names(all[r].findings, case_, setup_));
            if (!all[r].error.empty() && error_.empty()) {
                error_ = "rank " + std::to_string(r) + ": " + all[r].error;
                error_rank_ = static_cast<int>(r);
                error_stage_ = all[r].error_stage;
            }
        }
        if (measured && error_.empty()) keep_samples(all);
        if (last) keep_buckets(all);
        return fine && error_.empty() && !core::has_error(record_.findings);
    }

    /// Whether the arithmetic runs in memory of its own.
    [[nodiscard]] bool stages() const { return record_.backend == "cuda"; }

    void keep_samples(const std::vector<RefitResult>& all) {
        auto row_of = [&](const std::string& stage) {
            std::vector<double> row;
            for (const RefitResult& one : all) {
                const auto found = one.times.stage_s.find(stage);
                row.push_back(found == one.times.stage_s.end() ? kNaN : found->second);
            }
            return row;
        };
        for (const char* stage : record::kStages) record_.samples[stage].push_back(row_of(stage));
        if (!resident_) record_.samples["source"].push_back(row_of("source"));
        if (stages()) record_.samples["staging"].push_back(row_of("staging"));
        std::vector<double> wall;
        double cpu = 0.0;
        for (const RefitResult& one : all) {
            wall.push_back(one.times.wall_s);
            cpu += one.times.cpu_s;
        }
        record_.samples["wall"].push_back(std::move(wall));
        cpu_sums_.push_back(cpu);
        ++record_.iterations;
    }

    void keep_buckets(const std::vector<RefitResult>& all) {
        record_.bucket_rows.clear();
        for (std::size_t r = 0; r < all.size(); ++r) {
            for (const BucketTimes& bucket : all[r].times.buckets) {
                record_.bucket_rows.push_back(
                    {bucket.index, static_cast<int>(r), bucket.bytes, bucket.stage});
            }
        }
    }

    [[nodiscard]] bool checks(const std::string& name) const {
        return std::find(case_.checks.begin(), case_.checks.end(), name) != case_.checks.end();
    }

    bool audit() {
        return audit_.run({part_->loader(), part_->held(), &part_->source(), part_->calibration(),
                           checks_source()},
                          version_);
    }

    void collect_memory() {
        if (on_device_) note_device_traffic();
        const ProcessMemory memory = process_memory();
        const std::uint64_t own_shared =
            transport_ != nullptr && trainer_ && transport_name_ == "mpi_window"
                ? transport_->buffer_bytes()
                : 0;
        const std::string mine =
            std::to_string(memory.peak_bytes) + " " + std::to_string(memory.shared_bytes) + " " +
            std::to_string(own_shared) + " " + std::to_string(addresses_.size());
        std::uint64_t largest = 0;
        std::uint64_t sum = 0;
        std::uint64_t most_addresses = 0;
        for (const std::string& one : world_.allgather(mine)) {
            std::istringstream fields(one);
            std::uint64_t peak = 0;
            std::uint64_t shared = 0;
            std::uint64_t owned = 0;
            std::uint64_t addresses = 0;
            fields >> peak >> shared >> owned >> addresses;
            largest = std::max(largest, peak);
            most_addresses = std::max(most_addresses, addresses);
            // Shared pages stand in the figure of every process that maps them; their owner's share
            // counts once.
            sum += peak - std::min(peak, shared) + owned;
        }
        // Engines bake addresses into CUDA graphs: one in place, two where copies take turns.
        record_.notes["destination_addresses"] = std::to_string(most_addresses);
        record_.peak_rss_max_bytes = static_cast<std::int64_t>(largest);
        record_.peak_rss_sum_bytes = static_cast<std::int64_t>(world_.is_mpi() ? sum : largest);
    }

    void close() {
        run_.status.set_on_enter({});
        if (transport_ != nullptr) transport_->close();
    }

    void conclude(bool refitted) {
        record_.cpu_s_sum = median(cpu_sums_);
        if (cpu_sums_.empty()) record_.cpu_s_sum = 0.0;
        const Floor floor = floor_of(case_, setup_.loading(), manifest_, transport_name_,
                                     run_.memory_copy_bytes_per_s);
        record_.floor_wall_s = floor.wall_s;
        record_.floor_formula = floor.formula;
        if (!error_.empty()) {
            record_.notes["error_rank"] = std::to_string(error_rank_);
            record_.notes["error_stage"] = error_stage_;
            record_.notes["error_message"] = error_;
        }
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
        record_.outcome = judge_outcome(case_.expect, record_.findings, !error_.empty());
        (void)refitted;
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
    int receiver_index_ = 0;
    record::CaseRecord record_;
    CaseSetup setup_;
    const kernels::Backend* backend_ = nullptr;
    kernels::cuda::CudaSeconds cuda_before_;
    trainer::RefitPlan plan_;          ///< of a trainer, but for wire: kernel
    trainer::KernelPlan kernel_plan_;  ///< of the trainer with wire: kernel
    wire::RefitManifest manifest_;
    CaseAudit audit_{world_, run_.status, case_, setup_, manifest_, record_};
    std::unique_ptr<transport::Transport> transport_;
    bool resident_ = true;
    bool on_device_ = false;  ///< pieces, weights and parameters are memory of the device
    std::unique_ptr<RankPart> part_;
    std::vector<double> cpu_sums_;
    std::set<const void*> addresses_;  ///< where visible weights of this receiver ever began
    std::string error_;
    int error_rank_ = -1;
    std::string error_stage_;
    std::int64_t iteration_ = 0;
    std::int64_t open_layers_ = 0;  ///< of a receiver with layerwise reload
    std::uint64_t version_ = 0;
};

}  // namespace

record::CaseRecord run_case(RunContext& context, const Case& c) {
    return CaseRunner(context, c).run();
}

}  // namespace refit::harness
