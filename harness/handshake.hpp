// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the ranks of a case agree on before any byte moves.
#pragma once

#include "harness/case_setup.hpp"
#include "harness/rank_status.hpp"
#include "harness/scenario.hpp"
#include "harness/world.hpp"
#include "record/run_record.hpp"
#include "trainer/kernel_plan.hpp"
#include "trainer/refit_plan.hpp"
#include "wire/manifest.hpp"

namespace refit::harness {

struct Agreement {
    wire::RefitManifest manifest;     ///< the same on every rank
    trainer::RefitPlan plan;          ///< of a trainer, but for wire: kernel
    trainer::KernelPlan kernel_plan;  ///< of the trainer with wire: kernel
};

/// Receivers publish what they want; trainers answer with the manifest of what they will send;
/// receivers hold it to their contract. Collective. Findings, the payload's size and what is to be
/// known of the stream go into `record`.
[[nodiscard]] Agreement shake_hands(World& world, RankStatus& status, const Case& c,
                                    const CaseSetup& setup, record::CaseRecord& record);

}  // namespace refit::harness
