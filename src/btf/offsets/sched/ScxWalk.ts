import { layout, layoutOf } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"
import { rqLayout } from "./RunQueue.ts"

// The parts of the ktstr crate's `ScxWalkerOffsets`, which follow sched_ext's lists and tables. Each is a group of its
// own: a kernel without one of them blinds only those who read that.

/** @see kernel/sched/sched.h `struct rq`, v6.12 to v7.3; `curr` is in a union with `donor` */
export const scxWalkRqOffsets = offsetGroup("scx-walk-rq", "sched_ext: the running task of a CPU", function*(btf) {
  return { rq: yield* rqLayout(btf, ["scx", "curr"]) }
})

/**
 * `kick_sync` was `pnt_seq` before v6.19; `clock` came with v6.14, `nr_immed` later. Stable kernels of v6.12
 * moved `ops_qseq` to the task, as v7.3 has it (`scxWalkEntityOffsets`).
 * @see kernel/sched/sched.h `struct scx_rq`, v6.12 to v7.3
 */
export const scxWalkScxRqOffsets = offsetGroup("scx-walk-scx-rq", "sched_ext: runnable tasks of a CPU", function*(btf) {
  const rq = yield* rqLayout(btf, ["scx"])
  const scxRq = yield* layoutOf(
    btf,
    rq.typeOf.scx,
    ["local_dsq", "runnable_list", "nr_running", "flags", "cpu_released"],
    ["ops_qseq", "kick_sync", "nr_immed", "clock"],
    { kick_sync: "pnt_seq" }
  )
  return { rq, scxRq }
})

/** @see include/linux/sched.h `struct task_struct`, v6.12 to v7.3 */
export const scxWalkTaskOffsets = offsetGroup("scx-walk-task", "sched_ext: a task", function*(btf) {
  return { task: yield* layout(btf, "task_struct", ["comm", "pid", "scx"]) }
})

/** @see include/linux/sched/ext.h `struct sched_ext_entity`, v6.12 to v7.3: the type of `task_struct.scx` */
export const scxWalkEntityOffsets = offsetGroup("scx-walk-entity", "sched_ext: its part of a task", function*(btf) {
  const task = yield* layout(btf, "task_struct", ["scx"])
  const entity = yield* layoutOf(btf, task.typeOf.scx, [
    "runnable_node",
    "runnable_at",
    "weight",
    "slice",
    "dsq_vtime",
    "dsq",
    "dsq_list",
    "flags",
    "dsq_flags",
    "sticky_cpu",
    "holding_cpu",
    "tasks_node"
  ], ["ops_qseq"])
  return { task, entity }
})

/** @see include/linux/sched/ext.h `struct scx_dsq_list_node`, v6.12 to v7.3: the type of `sched_ext_entity.dsq_list` */
export const scxWalkDsqNodeOffsets = offsetGroup(
  "scx-walk-dsq-node",
  "sched_ext: a task's place in a queue",
  function*(btf) {
    return { node: yield* layout(btf, "scx_dsq_list_node", ["node", "flags"]) }
  }
)

/** @see include/linux/sched/ext.h `struct scx_dispatch_q`, v6.12 to v7.3 */
export const scxWalkDispatchQOffsets = offsetGroup(
  "scx-walk-dispatch-q",
  "sched_ext: a dispatch queue",
  function*(btf) {
    return { dispatchQ: yield* layout(btf, "scx_dispatch_q", ["list", "nr", "seq", "id", "hash_node"]) }
  }
)

/**
 * `exit_kind` is an atomic_t. Global queues, one a node: `pnode`, an array of pointers to what `scxWalkPnodeOffsets`
 * tells, or before v7.1 `global_dsqs`, an array of pointers to the queues. Before v6.16 all of this is in variables.
 * @see kernel/sched/ext_internal.h (v6.16 and v6.17: ext.c) `struct scx_sched`, to v7.3
 */
export const scxWalkSchedOffsets = offsetGroup(
  "scx-walk-sched",
  "sched_ext: a scheduler and its queues",
  function*(btf) {
    const optional = ["pnode", "global_dsqs", "pcpu", "aborting", "bypass_depth"] as const
    return { sched: yield* layout(btf, "scx_sched", ["dsq_hash", "exit_kind"], optional) }
  }
)

/** @see kernel/sched/ext_internal.h `struct scx_sched_pnode`, v7.1 */
export const scxWalkPnodeOffsets = offsetGroup("scx-walk-pnode", "sched_ext: a node's global queue", function*(btf) {
  return { pnode: yield* layout(btf, "scx_sched_pnode", [], ["global_dsq"]) }
})

/** @see kernel/sched/ext_internal.h `struct scx_sched_pcpu`, v6.18 to v7.1, which has `bypass_dsq` */
export const scxWalkPcpuOffsets = offsetGroup("scx-walk-pcpu", "sched_ext: a CPU's bypass queue", function*(btf) {
  return { pcpu: yield* layout(btf, "scx_sched_pcpu", [], ["bypass_dsq"]) }
})

/**
 * A resizable hash table: `table.tbl` points at `buckets.size` chains from `buckets.at.buckets` on, of `head`s;
 * `nelems` is an atomic_t.
 * @see include/linux/rhashtable-types.h, include/linux/rhashtable.h; v6.1 to v7.3
 */
export const scxWalkRhashtableOffsets = offsetGroup(
  "scx-walk-rhashtable",
  "sched_ext: the table of queues",
  function*(btf) {
    return {
      table: yield* layout(btf, "rhashtable", ["tbl", "nelems"]),
      buckets: yield* layout(btf, "bucket_table", ["size", "buckets"]),
      head: yield* layout(btf, "rhash_head", ["next"])
    }
  }
)
