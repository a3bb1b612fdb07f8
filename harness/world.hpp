// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The ranks of a run and the few collectives that the harness needs outside the timed stream.
//
// Two kinds: MPI ranks, and threads of one process (the loopback world). Every wait is bounded by
// `on_wait`, which keeps the rank's beat and stops a rank whose run was already given up.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace refit::harness {

class World {
 public:
    virtual ~World() = default;
    [[nodiscard]] virtual int rank() const = 0;
    [[nodiscard]] virtual int size() const = 0;
    [[nodiscard]] virtual bool is_mpi() const = 0;
    /// Rank of this node's process within the node, and how many there are.
    [[nodiscard]] virtual int local_rank() const = 0;
    [[nodiscard]] virtual int local_size() const = 0;
    /// World ranks of this node, by local rank.
    [[nodiscard]] virtual const std::vector<int>& local_ranks() const = 0;
    [[nodiscard]] bool one_node() const { return local_size() == size(); }
    void set_on_wait(std::function<void()> on_wait) { on_wait_ = std::move(on_wait); }
    /// Called besides on_wait, for what must move on while this rank waits; {} ends it.
    void set_meanwhile(std::function<void()> meanwhile) { meanwhile_ = std::move(meanwhile); }

    /// Collective over the world.
    virtual void barrier() = 0;
    /// Collective: every rank's bytes, by rank.
    [[nodiscard]] virtual std::vector<std::string> allgather(const std::string& mine) = 0;
    /// Collective: every rank's bytes, by rank, on rank `root`; empty elsewhere.
    [[nodiscard]] virtual std::vector<std::string> gather(int root, const std::string& mine) = 0;
    /// Collective: true when every rank says true.
    [[nodiscard]] virtual bool all_true(bool mine) = 0;
    /// Collective over the ranks [0, trainers): element-wise maximum.
    virtual void max_over_trainers(int trainers, std::span<std::uint32_t> values) = 0;

 protected:
    void waited() const {
        if (on_wait_) on_wait_();
        if (meanwhile_) meanwhile_();
    }

 private:
    std::function<void()> on_wait_;
    std::function<void()> meanwhile_;
};

/// Rank 0's text on every rank.
[[nodiscard]] inline std::string broadcast_text(World& world, const std::string& text) {
    return world.allgather(world.rank() == 0 ? text : std::string()).front();
}

/// True when a launcher (mpirun, srun) started this process as one of several ranks.
[[nodiscard]] bool launched_by_mpi();

/// Initialises MPI (once a process); sets OMPI_MCA_mpi_yield_when_idle=1 first where a node has
/// more ranks than cores and the user has not said otherwise. Throws MpiError.
[[nodiscard]] std::unique_ptr<World> make_mpi_world();
/// MPI_Finalize, after every World is gone.
void finalize_mpi();
/// "Open MPI v4.1.4", or "none".
[[nodiscard]] std::string mpi_version();

/// `size` worlds that share one process; give one to each thread.
[[nodiscard]] std::vector<std::unique_ptr<World>> make_thread_worlds(int size);

}  // namespace refit::harness
