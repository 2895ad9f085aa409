import { enumeration } from "../../Enumeration.ts"
import { layout } from "../../Layout.ts"
import { checkArrays, offsetGroup } from "../../OffsetGroup.ts"
import { rqLayout } from "./RunQueue.ts"

/**
 * The domains that load is balanced in: `rq.sd` points at the lowest of a CPU, `domain.parent` upwards to null. `name`
 * is a pointer to chars, `max_newidle_lb_cost` a u64, the rest 32 bits (the ktstr crate's `SchedDomainOffsets`).
 *
 * The three `newidle_*` counters came with v6.19 ("sched/fair: Proportional newidle balance") and went back into stable
 * kernels, v6.1, v6.12 and v6.18 among them.
 * @see kernel/sched/sched.h `struct rq`; include/linux/sched/topology.h `struct sched_domain`; v6.1 to v7.3,
 * CONFIG_SMP
 */
export const schedDomainOffsets = offsetGroup("sched-domain", "the tree of scheduling domains", function*(btf) {
  return {
    rq: yield* rqLayout(btf, ["sd"]),
    domain: yield* layout(btf, "sched_domain", [
      "parent",
      "level",
      "name",
      "flags",
      "span_weight",
      "balance_interval",
      "nr_balance_failed",
      "max_newidle_lb_cost"
    ], [["newidle_call", "newidle_success", "newidle_ratio"]])
  }
})

/** One counter a kind of idleness. */
const BY_IDLENESS = [
  "lb_count",
  "lb_failed",
  "lb_balanced",
  "lb_gained",
  "lb_hot_gained",
  "lb_nobusyg",
  "lb_nobusyq"
] as const
const BY_CAUSE = ["lb_imbalance_load", "lb_imbalance_util", "lb_imbalance_task", "lb_imbalance_misfit"] as const

/**
 * The counters of a scheduling domain, u32 each; the `lb_*` are arrays that `idleTypes` indexes (the ktstr crate's
 * `SchedDomainStatsOffsets`). CPU_IDLE and CPU_NOT_IDLE changed places in v6.10 ("sched/balancing: Change 'enum
 * cpu_idle_type' to have more natural definitions"), where the latter got its underscores: an index must be asked for.
 *
 * v6.14 split `lb_imbalance` by its cause into four ("sched: Report the different kinds of imbalances in
 * /proc/schedstat"): either it is there, or they are.
 * @see include/linux/sched/topology.h `struct sched_domain`, v6.1 to v7.3; CONFIG_SCHEDSTATS
 */
export const schedDomainStatsOffsets = offsetGroup(
  "sched-domain-stats",
  "counters of scheduling domains (CONFIG_SCHEDSTATS)",
  function*(btf) {
    const domain = yield* layout(btf, "sched_domain", [
      ...BY_IDLENESS,
      "alb_count",
      "alb_failed",
      "alb_pushed",
      "sbe_count",
      "sbe_balanced",
      "sbe_pushed",
      "sbf_count",
      "sbf_balanced",
      "sbf_pushed",
      "ttwu_wake_remote",
      "ttwu_move_affine",
      "ttwu_move_balance"
    ], [BY_CAUSE, "lb_imbalance"])
    if (domain.at.lb_imbalance === undefined) yield* layout(btf, "sched_domain", [...BY_IDLENESS, ...BY_CAUSE])
    const idleTypes = yield* enumeration(
      btf,
      "cpu_idle_type",
      ["__CPU_NOT_IDLE", "CPU_IDLE", "CPU_NEWLY_IDLE", "CPU_MAX_IDLE_TYPES"],
      { __CPU_NOT_IDLE: "CPU_NOT_IDLE" }
    )
    const counts = idleTypes.valueOf.CPU_MAX_IDLE_TYPES
    yield* checkArrays(domain, [...BY_IDLENESS, ...BY_CAUSE, "lb_imbalance"], counts, 4)
    return { domain, idleTypes }
  }
)
