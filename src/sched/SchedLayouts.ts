import type { Btf } from "../btf/Btf.ts"
import { memoizeByBtf } from "../btf/MemoizeByBtf.ts"
import { flag, int, structFields, text, uint } from "./StructFields.ts"

/** @see kernel/sched/sched.h `struct rq`, `struct cfs_rq`, `struct rt_rq`, `struct dl_rq`; v6.1 to v7.3 */
export const RQ = {
  nr_running: uint(),
  nr_switches: uint(),
  nr_uninterruptible: int(),
  nr_iowait: int(),
  ttwu_pending: uint(),
  clock: uint(),
  clock_task: uint(),
  clock_pelt: uint(),
  cpu_capacity: uint(),
  cpu: int(),
  online: int(),
  next_balance: uint(),
  avg_idle: uint(),
  calc_load_active: int()
} as const

/** The fields that samples have. */
const RQ_BASE = {
  nr_running: RQ.nr_running,
  nr_switches: RQ.nr_switches,
  clock: RQ.clock,
  cpu: RQ.cpu,
  online: RQ.online
} as const

/**
 * `nr_running` and `h_nr_running` became `nr_queued` and `h_nr_queued` in v6.14; `min_vruntime` became `zero_vruntime` in
 * v6.18 and in stable kernels of v6.12.
 */
export const CFS_RQ = {
  nr_running: uint("cfs.nr_running"),
  h_nr_running: uint("cfs.h_nr_running"),
  nr_queued: uint("cfs.nr_queued"),
  h_nr_queued: uint("cfs.h_nr_queued"),
  h_nr_runnable: uint("cfs.h_nr_runnable"),
  h_nr_idle: uint("cfs.h_nr_idle"),
  min_vruntime: uint("cfs.min_vruntime"),
  zero_vruntime: uint("cfs.zero_vruntime")
} as const
export const RT_RQ = { rt_nr_running: uint("rt.rt_nr_running"), rr_nr_running: uint("rt.rr_nr_running") } as const
export const DL_RQ = {
  dl_nr_running: uint("dl.dl_nr_running"),
  running_bw: uint("dl.running_bw"),
  this_bw: uint("dl.this_bw")
} as const
/** @see kernel/sched/sched.h `struct scx_rq`, v6.12 to v7.3; `pnt_seq` became `kick_sync` in v6.19 */
export const SCX_RQ = {
  nr_running: uint("scx.nr_running"),
  flags: uint("scx.flags"),
  cpu_released: flag("scx.cpu_released"),
  cpuperf_target: uint("scx.cpuperf_target"),
  nr_immed: uint("scx.nr_immed"),
  clock: uint("scx.clock"),
  ops_qseq: uint("scx.ops_qseq"),
  pnt_seq: uint("scx.pnt_seq"),
  kick_sync: uint("scx.kick_sync")
} as const
/** The counters that `/proc/schedstat` prints per CPU; CONFIG_SCHEDSTATS, the first three CONFIG_SCHED_INFO. */
export const RQ_STATS = {
  pcount: uint("rq_sched_info.pcount"),
  run_delay: uint("rq_sched_info.run_delay"),
  rq_cpu_time: uint(),
  yld_count: uint(),
  sched_count: uint(),
  sched_goidle: uint(),
  ttwu_count: uint(),
  ttwu_local: uint()
} as const

/** @see include/linux/sched.h `struct task_struct`, v6.1 to v7.3: `on_cpu` and `on_rq` are bytes since v7.2 */
export const TASK = {
  pid: int(),
  tgid: int(),
  comm: text(),
  __state: uint(),
  exit_state: uint(),
  flags: uint(),
  cpu: uint("thread_info.cpu"),
  on_cpu: uint(),
  on_rq: uint(),
  policy: uint(),
  prio: int(),
  static_prio: int(),
  normal_prio: int(),
  rt_priority: uint(),
  nr_cpus_allowed: int(),
  migration_disabled: uint(),
  wake_cpu: int(),
  recent_used_cpu: int(),
  start_time: uint(),
  start_boottime: uint(),
  utime: uint(),
  stime: uint(),
  nvcsw: uint(),
  nivcsw: uint(),
  core_cookie: uint()
} as const
/** @see include/linux/sched.h `struct sched_entity`, v6.1 to v7.3: v6.6 brought `deadline`, `vlag` and `slice` */
export const SE = {
  vruntime: int("se.vruntime"),
  deadline: int("se.deadline"),
  vlag: int("se.vlag"),
  slice: uint("se.slice"),
  sum_exec_runtime: uint("se.sum_exec_runtime"),
  exec_start: uint("se.exec_start"),
  nr_migrations: uint("se.nr_migrations"),
  sched_delayed: flag("se.sched_delayed"),
  weight: uint("se.load.weight")
} as const
export const SCHED_INFO = {
  pcount: uint("sched_info.pcount"),
  run_delay: uint("sched_info.run_delay"),
  last_arrival: uint("sched_info.last_arrival"),
  last_queued: uint("sched_info.last_queued")
} as const
/** @see include/linux/sched/ext.h `struct sched_ext_entity`, v6.12 to v7.3 */
export const ENTITY = {
  dsq_seq: uint("scx.dsq_seq"),
  dsq_flags: uint("scx.dsq_flags"),
  flags: uint("scx.flags"),
  weight: uint("scx.weight"),
  sticky_cpu: int("scx.sticky_cpu"),
  holding_cpu: int("scx.holding_cpu"),
  selected_cpu: int("scx.selected_cpu"),
  runnable_at: uint("scx.runnable_at"),
  ops_state: uint("scx.ops_state"),
  ddsp_dsq_id: uint("scx.ddsp_dsq_id"),
  ddsp_enq_flags: uint("scx.ddsp_enq_flags"),
  slice: uint("scx.slice"),
  dsq_vtime: uint("scx.dsq_vtime"),
  tid: uint("scx.tid")
} as const

/** @see kernel/sched/ext_internal.h `struct scx_sched`; in ext.c in v6.16 and v6.17, in kernel/sched/ext/ since v7.2 */
const SCX_SCHED = {
  name: text("ops.name"),
  flags: uint("ops.flags"),
  timeout_ms: uint("ops.timeout_ms"),
  dispatch_max_batch: uint("ops.dispatch_max_batch"),
  exit_dump_len: uint("ops.exit_dump_len"),
  hotplug_seq: uint("ops.hotplug_seq"),
  sub_cgroup_id: uint("ops.sub_cgroup_id"),
  exit_kind: uint(),
  slice_dfl: uint(),
  bypass_depth: int(),
  bypass_timestamp: uint(),
  aborting: flag(),
  watchdog_timeout: uint(),
  level: int(),
  id: uint(),
  is_cid_type: flag()
} as const

/** @see include/linux/sched/ext.h `struct scx_exit_info`; `exit_cpu` since v7.2 */
const EXIT_INFO = {
  kind: uint(),
  exit_code: int(),
  exit_cpu: int(),
  bt_len: uint()
} as const

/** @see include/linux/sched/topology.h `struct sched_domain`, v6.1 to v7.3 */
export const DOMAIN = {
  level: int(),
  flags: uint(),
  span_weight: uint(),
  min_interval: uint(),
  max_interval: uint(),
  busy_factor: uint(),
  imbalance_pct: uint(),
  cache_nice_tries: uint(),
  imb_numa_nr: uint(),
  last_balance: uint(),
  balance_interval: uint(),
  nr_balance_failed: uint(),
  max_newidle_lb_cost: uint(),
  newidle_call: uint(),
  newidle_success: uint(),
  newidle_ratio: uint()
} as const
/** `lb_…` arrays of `struct sched_domain`, indexed by `enum cpu_idle_type`. */
export const DOMAIN_BY_IDLENESS = [
  "lb_count",
  "lb_balanced",
  "lb_failed",
  "lb_imbalance",
  "lb_imbalance_load",
  "lb_imbalance_util",
  "lb_imbalance_task",
  "lb_imbalance_misfit",
  "lb_gained",
  "lb_hot_gained",
  "lb_nobusyg",
  "lb_nobusyq"
] as const
/** CONFIG_SCHEDSTATS */
export const DOMAIN_STATS = {
  alb_count: uint(),
  alb_failed: uint(),
  alb_pushed: uint(),
  sbe_count: uint(),
  sbe_balanced: uint(),
  sbe_pushed: uint(),
  sbf_count: uint(),
  sbf_balanced: uint(),
  sbf_pushed: uint(),
  ttwu_wake_remote: uint(),
  ttwu_move_affine: uint(),
  ttwu_move_balance: uint()
} as const

/** Where a kernel keeps its scheduler's state. A part that is undefined is not in this kernel's BTF. */
export interface SchedLayouts extends ReturnType<typeof resolve> {}

/** Members that tell the scheduler's `struct rq` from those of drivers. */
const RQ_OWN = ["nr_running", "clock"]

/** `struct rq` of kernel/sched/sched.h, and the structs embedded in it. */
const runQueueLayouts = (btf: Btf) => {
  const rq = structFields(btf, "rq", RQ, RQ_OWN, [
    "__lock",
    "curr",
    "donor",
    "idle",
    "stop",
    "sd",
    "cfs",
    "rt",
    "dl",
    "scx",
    "scx.local_dsq",
    "scx.bypass_dsq",
    "scx.reject_dsq",
    "scx.rescue.dsq",
    "scx.runnable_list",
    "scx.ddsp_deferred_locals"
  ])
  return {
    rq,
    rqBase: structFields(btf, "rq", RQ_BASE, RQ_OWN),
    cfs: structFields(btf, "rq", CFS_RQ, RQ_OWN),
    rt: structFields(btf, "rq", RT_RQ, RQ_OWN),
    dl: structFields(btf, "rq", DL_RQ, RQ_OWN),
    scxRq: rq?.at("scx") === undefined ? undefined : structFields(btf, "rq", SCX_RQ, RQ_OWN),
    rqStats: structFields(btf, "rq", RQ_STATS, RQ_OWN)
  }
}

const TASK_OWN = ["pid", "comm"]

/** `struct task_struct`, the structs embedded in it, and those that it points at. */
const taskLayouts = (btf: Btf) => {
  const task = structFields(btf, "task_struct", TASK, TASK_OWN, [
    "sched_class",
    "cpus_ptr",
    "tasks",
    "thread_node",
    "thread_pid",
    "pid_links",
    "signal",
    "real_parent",
    "group_leader",
    "cgroups",
    "thread.sp",
    "thread.cpu_context.fp",
    "stack",
    "scx",
    "uclamp_req",
    "sched_info.last_arrival",
    "scx.dsq",
    "scx.dsq_list",
    "scx.runnable_node",
    "scx.tasks_node",
    "scx.sched"
  ])
  return {
    task,
    taskName: structFields(btf, "task_struct", { pid: int(), comm: text(), on_cpu: uint() } as const, TASK_OWN),
    se: structFields(btf, "task_struct", SE, TASK_OWN),
    schedInfo: structFields(btf, "task_struct", SCHED_INFO, TASK_OWN),
    entity: task?.at("scx") === undefined ? undefined : structFields(btf, "task_struct", ENTITY, TASK_OWN),
    signal: structFields(btf, "signal_struct", { nr_threads: int() } as const, ["thread_head", "pids"]),
    pid: structFields(btf, "pid", {}, ["numbers"], ["tasks"]),
    pidNamespace: structFields(btf, "pid_namespace", {}, ["idr"]),
    upid: structFields(btf, "upid", {}, ["nr"]),
    cssSet: structFields(btf, "css_set", {}, ["dfl_cgrp"]),
    cgroup: structFields(btf, "cgroup", {}, ["kn"]),
    kernfs: structFields(btf, "kernfs_node", { id: uint() } as const, ["name"], ["parent", "__parent"]),
    cpumask: structFields(btf, "cpumask", {}, ["bits"])
  }
}

/** For kernels without sched_ext: a name that is not in the BTF takes the longest to look for. */
const noFields: typeof structFields = () => undefined

/** sched_ext: its schedulers, dispatch queues and exits. */
const scxLayouts = (btf: Btf) =>
  scxLayoutsBy(btf, btf.idsByName("sched_ext_ops").length === 0 ? noFields : structFields)

const scxLayoutsBy = (btf: Btf, fields: typeof structFields) => ({
  dispatchQ: fields(btf, "scx_dispatch_q", { nr: uint(), seq: uint() } as const, ["list", "nr", "id"], [
    "lock",
    "list",
    "priq",
    "nr",
    "seq",
    "id",
    "hash_node",
    "first_task",
    "sched"
  ]),
  dsqNode: fields(btf, "scx_dsq_list_node", { flags: uint() } as const, ["node", "flags"]),
  sched: fields(btf, "scx_sched", SCX_SCHED, ["ops", "exit_info"], [
    "dsq_hash",
    "global_dsqs",
    "pnode",
    "pcpu",
    "event_stats_cpu",
    "all",
    "cgrp_path",
    "ancestors"
  ]),
  ops: fields(
    btf,
    "sched_ext_ops",
    {
      name: text(),
      flags: uint(),
      timeout_ms: uint(),
      dispatch_max_batch: uint(),
      exit_dump_len: uint(),
      hotplug_seq: uint()
    } as const,
    ["name"]
  ),
  pcpu: fields(btf, "scx_sched_pcpu", { flags: uint() } as const, ["event_stats"], ["sch", "bypass_dsq"]),
  pnode: fields(btf, "scx_sched_pnode", {}, ["global_dsq"]),
  exitInfo: fields(btf, "scx_exit_info", EXIT_INFO, ["kind"], ["reason", "bt", "msg", "dump"])
})

/** Scheduling domains, memory nodes, CPU times and pressure. */
const machineLayouts = (btf: Btf) => ({
  timers: structFields(btf, "hrtimer_cpu_base", { expires_next: int(), hres_active: flag() } as const, [
    "expires_next",
    "hres_active"
  ]),
  clocksource: structFields(btf, "clocksource", { mult: uint(), shift: uint() } as const, ["mult", "shift"]),
  domain: structFields(btf, "sched_domain", DOMAIN, ["parent", "flags"], [
    "name",
    "span",
    ...DOMAIN_BY_IDLENESS
  ]),
  domainStats: structFields(btf, "sched_domain", DOMAIN_STATS, ["parent", "flags"]),
  flagDebug: structFields(btf, "sd_flag_debug", {}, ["name"]),
  psi: structFields(btf, "psi_group", {}, ["total", "avg"]),
  pglist: structFields(btf, "pglist_data", { nr_zones: int() } as const, ["node_zones", "nr_zones"]),
  zone: structFields(btf, "zone", { present_pages: uint() } as const, ["vm_numa_event"], [
    "per_cpu_zonestats"
  ]),
  zoneStat: structFields(btf, "per_cpu_zonestat", {}, ["vm_numa_event"]),
  cpustat: structFields(btf, "kernel_cpustat", {}, ["cpustat"]),
  kstat: structFields(btf, "kernel_stat", { irqs_sum: uint() } as const, ["irqs_sum", "softirqs"])
})

const resolve = (btf: Btf) => ({
  ...runQueueLayouts(btf),
  ...taskLayouts(btf),
  ...scxLayouts(btf),
  ...machineLayouts(btf)
})

export const schedLayouts: (btf: Btf) => SchedLayouts = memoizeByBtf(resolve)
