import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { Btf } from "../../../src/btf/Btf.ts"
import type { OffsetGroup } from "../../../src/btf/OffsetGroup.ts"
import { bpfHashOffsets, bpfStructOpsOffsets } from "../../../src/btf/offsets/bpf/BpfMap.ts"
import { ringBufferOffsets } from "../../../src/btf/offsets/bpf/RingBuffer.ts"
import { offsetGroups } from "../../../src/btf/offsets/offsetGroups.ts"
import { cpuTimeOffsets } from "../../../src/btf/offsets/sched/CpuTime.ts"
import { numaOffsets } from "../../../src/btf/offsets/sched/Numa.ts"
import { runQueueOffsets, scxRunQueueOffsets } from "../../../src/btf/offsets/sched/RunQueue.ts"
import { schedDomainOffsets, schedDomainStatsOffsets } from "../../../src/btf/offsets/sched/SchedDomain.ts"
import { scxEventOffsets } from "../../../src/btf/offsets/sched/ScxEvents.ts"
import {
  scxWalkEntityOffsets,
  scxWalkPcpuOffsets,
  scxWalkPnodeOffsets,
  scxWalkSchedOffsets,
  scxWalkScxRqOffsets
} from "../../../src/btf/offsets/sched/ScxWalk.ts"
import { scxWatchdogOffsets } from "../../../src/btf/offsets/sched/ScxWatchdog.ts"
import { taskOffsets } from "../../../src/btf/offsets/sched/Task.ts"
import { compileC } from "../compileC.ts"

const HEAD = `
  typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long u64;
  typedef int s32; typedef long s64; typedef struct { int counter; } atomic_t; typedef _Bool bool;
  struct list_head { struct list_head *next, *prev; };
  struct rhash_head { struct rhash_head *next; };
  struct scx_dispatch_q { u32 lock; struct list_head list; u32 nr; u32 seq; u64 id; struct rhash_head hash_node; };
`

/** BTF that has every struct and enum of this C, and what clang's offsetof says of `places`, such as "rq.clock". */
const kernel = (source: string, places: ReadonlyArray<string> = []) => {
  const types = [...source.matchAll(/\b(?:struct|enum) \w+(?= \{)/g)]
  const { btf, section } = compileC([
    HEAD,
    source,
    // Without a variable, clang keeps what is only pointed at as a declaration.
    ...types.map(([type], index) => `${type} keep${index};`),
    "__attribute__((section(\".places\"))) const u64 places[] = { 0,",
    ...places.map((place) => `__builtin_offsetof(struct ${place.replace(".", ", ")}),`),
    "};"
  ].join("\n"))
  const numbers = section(".places")
  const view = new DataView(numbers.buffer, numbers.byteOffset)
  return {
    btf: Either.getOrThrow(Btf.parse(btf, { subject: "a.o" })),
    places: places.map((_, index) => Number(view.getBigUint64(8 + index * 8, true)))
  }
}

const given = <Parts>(group: { readonly resolve: (btf: Btf) => Either.Either<Parts, Error> }, btf: Btf): Parts =>
  Either.getOrThrowWith(group.resolve(btf), (error) => error)

const lackOf = (group: OffsetGroup<{}>, btf: Btf): readonly [string, string | undefined] =>
  Either.match(group.resolve(btf), {
    onLeft: ({ member, message, reason, struct }) => {
      assert.strictEqual(message, `a.o: no ${group.name} offsets: ${reason.text}`)
      assert.strictEqual(reason.kind, "unsupported")
      assert.notInclude(message, "\n")
      assert.include(reason.text, member ?? struct)
      return [struct, member]
    },
    onRight: () => assert.fail(`${group.name} is there`)
  })

it("every group has a name of its own, fit for a command line", () => {
  const names = offsetGroups.map((group) => group.name)
  assert.strictEqual(new Set(names).size, names.length)
  assert.deepStrictEqual(names.filter((name) => !/^[a-z][a-z-]*[a-z]$/.test(name)), [])
})

describe("run queues", () => {
  it("are the scheduler's, whatever else is called rq", () => {
    // A driver's, larger than the scheduler's: mlx5 has one.
    const DRIVER = `u64 driver(void) { struct rq { u32 nr_running; char large[9000]; };
      static volatile struct rq mine; return mine.large[1]; }`
    const { btf, places } = kernel(
      `struct rq { u32 lock, nr_running; u64 clock; }; ${DRIVER}`,
      ["rq.nr_running", "rq.clock"]
    )
    assert.strictEqual(btf.idsByName("rq").length, 2)
    const { rq } = given(runQueueOffsets, btf)
    assert.deepStrictEqual([rq.at.nr_running, rq.at.clock, rq.size], [...places, 16])
    assert.deepStrictEqual(lackOf(scxRunQueueOffsets, btf), ["rq", "scx"])
    assert.deepStrictEqual(lackOf(runQueueOffsets, kernel("struct rq { u32 nr_running; };").btf), ["rq", "clock"])
    assert.deepStrictEqual(lackOf(runQueueOffsets, kernel("").btf), ["rq", undefined])
  })

  it("lead to sched_ext's parts by the types of their members, whatever their names", () => {
    const { btf, places } = kernel(
      `struct queue_7 { u32 lock; u32 nr; };
       typedef const struct queue_7 queue_t;
       struct scx_rq_7 { u64 first; queue_t local_dsq; u32 nr_running, flags; };
       struct rq { u32 nr_running; u64 clock; struct scx_rq_7 scx; };
`,
      ["rq.scx", "scx_rq_7.local_dsq", "scx_rq_7.flags", "queue_7.nr"]
    )
    const { dispatchQ, rq, scxRq } = given(scxRunQueueOffsets, btf)
    assert.deepStrictEqual([rq.at.scx, scxRq.at.local_dsq, scxRq.at.flags, dispatchQ.at.nr], places)
    assert.deepStrictEqual([scxRq.struct, dispatchQ.struct], ["scx_rq_7", "queue_7"])
  })

  it("keep kick_sync where it was pnt_seq before v6.19, and prefer the newer", () => {
    const rq = (members: string) =>
      kernel(
        `struct scx_rq { struct scx_dispatch_q local_dsq; struct list_head runnable_list; u32 nr_running, flags;
         bool cpu_released; ${members} };
         struct rq { u32 nr_running; u64 clock; struct scx_rq scx; };`,
        members.includes("kick_sync") ? ["scx_rq.kick_sync"] : members.includes("pnt_seq") ? ["scx_rq.pnt_seq"] : []
      )
    const scxRq = ({ btf }: { readonly btf: Btf }) => given(scxWalkScxRqOffsets, btf).scxRq
    const v612 = rq("u64 ops_qseq; u64 pnt_seq;")
    assert.deepStrictEqual([scxRq(v612).at.kick_sync], v612.places)
    assert.deepStrictEqual([scxRq(v612).called.kick_sync, scxRq(v612).called.ops_qseq], ["pnt_seq", undefined])
    assert.isUndefined(scxRq(v612).at.clock)
    const v619 = rq("u64 ops_qseq; u64 clock; u64 pnt_seq; u64 kick_sync;")
    assert.deepStrictEqual([scxRq(v619).at.kick_sync], v619.places)
    assert.isUndefined(scxRq(v619).called.kick_sync)
    const stable = scxRq(rq(""))
    assert.deepStrictEqual([stable.at.kick_sync, stable.at.ops_qseq, stable.at.nr_immed], [
      undefined,
      undefined,
      undefined
    ])
  })
})

describe("sched_ext's event counters", () => {
  const FIRST = ["SELECT_CPU_FALLBACK", "DISPATCH_LOCAL_DSQ_OFFLINE", "DISPATCH_KEEP_LAST", "ENQ_SKIP_EXITING"]
  const V614 = [...FIRST, "ENQ_SKIP_MIGRATION_DISABLED", "ENQ_SLICE_DFL", "BYPASS_DURATION", "BYPASS_DISPATCH"]
  const V618 = [...V614.slice(0, 5), "REFILL_SLICE_DFL", ...V614.slice(6), "BYPASS_ACTIVATE"]
  const V71 = [...V618.slice(0, 5), "REENQ_IMMED", "REENQ_LOCAL_REPEAT", ...V618.slice(5), "INSERT_NOT_OWNED"]
  const stats = (names: ReadonlyArray<string>) =>
    `struct scx_event_stats { ${names.map((name) => `s64 SCX_EV_${name};`).join(" ")} };`
  const events = (names: ReadonlyArray<string>, rest: string, ...places: ReadonlyArray<string>) =>
    kernel(`${stats(names)} ${rest}`, places)

  it("v6.14: are a per-CPU variable's", () => {
    const { btf, places } = events(V614, "", "scx_event_stats.SCX_EV_ENQ_SLICE_DFL")
    const found = given(scxEventOffsets, btf)
    assert.isUndefined(found.sched)
    assert.isUndefined(found.pcpu)
    assert.deepStrictEqual([found.stats.at.SCX_EV_REFILL_SLICE_DFL], places)
    assert.strictEqual(found.stats.called.SCX_EV_REFILL_SLICE_DFL, "SCX_EV_ENQ_SLICE_DFL")
    assert.isUndefined(found.stats.at.SCX_EV_BYPASS_ACTIVATE)
    assert.strictEqual(found.stats.sizeOf.SCX_EV_SELECT_CPU_FALLBACK, 8)
    assert.deepStrictEqual(lackOf(scxWatchdogOffsets, btf), ["scx_sched", undefined])
  })

  it("v6.16: are behind a pointer of the scheduler", () => {
    const sched = "struct scx_sched { u64 ops[40]; struct scx_event_stats *event_stats_cpu; atomic_t exit_kind; };"
    const { btf, places } = events(V618, sched, "scx_sched.event_stats_cpu")
    const found = given(scxEventOffsets, btf)
    assert(found.sched !== undefined && found.pcpu === undefined)
    assert.deepStrictEqual([found.sched.at.event_stats_cpu], places)
    assert.deepStrictEqual(lackOf(scxWatchdogOffsets, btf), ["scx_sched", "watchdog_timeout"])
    assert.deepStrictEqual(lackOf(scxWalkPcpuOffsets, btf), ["scx_sched_pcpu", undefined])
  })

  it("v6.18: are inside what the scheduler has for each CPU", () => {
    const { btf, places } = events(
      V618,
      `struct scx_sched_pcpu { struct scx_event_stats event_stats; };
       struct rhashtable { void *tbl; };
       struct scx_sched { u64 ops[41]; struct rhashtable dsq_hash; struct scx_dispatch_q **global_dsqs;
         struct scx_sched_pcpu *pcpu; bool warned:1; atomic_t exit_kind; };`,
      "scx_sched.pcpu",
      "scx_sched_pcpu.event_stats",
      "scx_sched.global_dsqs",
      "scx_sched.exit_kind"
    )
    const found = given(scxEventOffsets, btf)
    assert(found.pcpu !== undefined)
    const { sched } = given(scxWalkSchedOffsets, btf)
    assert.deepStrictEqual(
      [found.sched.at.pcpu, found.pcpu.at.event_stats, sched.at.global_dsqs, sched.at.exit_kind],
      places
    )
    assert.deepStrictEqual([sched.at.pnode, sched.at.bypass_depth, sched.at.pcpu], [undefined, undefined, places[0]])
    assert.isUndefined(found.stats.at.SCX_EV_REENQ_IMMED)
    const { pcpu } = given(scxWalkPcpuOffsets, btf)
    assert.isUndefined(pcpu.at.bypass_dsq)
    assert.deepStrictEqual(lackOf(scxWalkPnodeOffsets, btf), ["scx_sched_pnode", undefined])
  })

  it("v7.1: lie deeper in it, beside a watchdog of the scheduler's own", () => {
    const { btf, places } = events(
      V71,
      `struct scx_sched;
       struct scx_sched_pcpu { struct scx_sched *sch; u64 flags; struct scx_event_stats event_stats;
         struct scx_dispatch_q bypass_dsq; };
       struct scx_sched_pnode { struct scx_dispatch_q global_dsq; };
       struct rhashtable { void *tbl; };
       struct scx_sched { u64 ops[41]; struct rhashtable dsq_hash; struct scx_sched_pnode **pnode;
         struct scx_sched_pcpu *pcpu; s32 bypass_depth; bool aborting; bool warned:1; u64 watchdog_timeout;
         atomic_t exit_kind; };`,
      "scx_sched_pcpu.event_stats",
      "scx_sched.watchdog_timeout",
      "scx_event_stats.SCX_EV_REENQ_IMMED",
      "scx_event_stats.SCX_EV_INSERT_NOT_OWNED",
      "scx_sched_pcpu.bypass_dsq",
      "scx_sched.pnode",
      "scx_sched.bypass_depth",
      "scx_sched.aborting"
    )
    const found = given(scxEventOffsets, btf)
    assert(found.pcpu !== undefined)
    const { sched } = given(scxWalkSchedOffsets, btf)
    const { pcpu } = given(scxWalkPcpuOffsets, btf)
    assert.deepStrictEqual([
      found.pcpu.at.event_stats,
      given(scxWatchdogOffsets, btf).sched.at.watchdog_timeout,
      found.stats.at.SCX_EV_REENQ_IMMED,
      found.stats.at.SCX_EV_INSERT_NOT_OWNED,
      pcpu.at.bypass_dsq,
      sched.at.pnode,
      sched.at.bypass_depth,
      sched.at.aborting
    ], places)
    assert.isUndefined(found.stats.called.SCX_EV_REFILL_SLICE_DFL)
    assert.strictEqual(given(scxWalkPnodeOffsets, btf).pnode.at.global_dsq, 0)
  })

  it("are found by the second way where the first breaks, and say which is broken where both do", () => {
    const sched = (member: string) =>
      `struct scx_sched { u64 ops; void *pcpu; ${member} };
      struct scx_sched_pcpu { u64 other; };`
    const both = events(V618, sched("struct scx_event_stats *event_stats_cpu;")).btf
    const found = given(scxEventOffsets, both)
    assert(found.sched !== undefined && found.pcpu === undefined)
    assert.strictEqual(found.sched.at.event_stats_cpu, 16)
    const neither = events(V618, `${sched("")}`).btf
    assert.deepStrictEqual(lackOf(scxEventOffsets, neither), ["scx_sched_pcpu", "event_stats"])
    const gone = `struct scx_sched { u64 ops; };`
    assert.deepStrictEqual(lackOf(scxEventOffsets, events(V618, gone).btf), ["scx_sched", "pcpu"])
  })

  it("are all there or none", () => {
    const without = events(V614.filter((name) => name !== "ENQ_SKIP_EXITING"), "").btf
    assert.deepStrictEqual(lackOf(scxEventOffsets, without), ["scx_event_stats", "SCX_EV_ENQ_SKIP_EXITING"])
  })
})

describe("scheduling domains", () => {
  const COUNTERS =
    "u32 alb_count, alb_failed, alb_pushed, sbe_count, sbe_balanced, sbe_pushed, sbf_count, sbf_balanced,"
    + " sbf_pushed, ttwu_wake_remote, ttwu_move_affine, ttwu_move_balance;"
  const NEW_ORDER = "enum cpu_idle_type { __CPU_NOT_IDLE, CPU_IDLE, CPU_NEWLY_IDLE, CPU_MAX_IDLE_TYPES };"
  const OLD_ORDER = "enum cpu_idle_type { CPU_IDLE, CPU_NOT_IDLE, CPU_NEWLY_IDLE, CPU_MAX_IDLE_TYPES };"
  const SPLIT = "u32 lb_imbalance_load[3], lb_imbalance_util[3], lb_imbalance_task[3], lb_imbalance_misfit[3];"
  const domain = (middle: string, order = NEW_ORDER, places: ReadonlyArray<string> = []) =>
    kernel(
      `${order} struct sched_domain { struct sched_domain *parent; char *name; int level, flags; u32 span_weight,
       balance_interval, nr_balance_failed; ${middle} u64 max_newidle_lb_cost; };
       struct rq { u32 nr_running; u64 clock; struct sched_domain *sd; };`,
      places
    )
  const stats = (imbalance: string, order = NEW_ORDER, count = "u32 lb_count[3];") =>
    domain(
      `${count} u32 lb_failed[3], lb_balanced[3]; ${imbalance} u32 lb_gained[3], lb_hot_gained[3], lb_nobusyg[3],
       lb_nobusyq[3]; ${COUNTERS}`,
      order
    ).btf

  it("have all three counters of new idleness, or none", () => {
    const all = domain("u32 newidle_call, newidle_success, newidle_ratio;", NEW_ORDER, [
      "sched_domain.newidle_call",
      "sched_domain.newidle_success",
      "sched_domain.newidle_ratio",
      "sched_domain.max_newidle_lb_cost",
      "rq.sd"
    ])
    const { domain: found, rq } = given(schedDomainOffsets, all.btf)
    const { at } = found
    assert.deepStrictEqual(
      [at.newidle_call, at.newidle_success, at.newidle_ratio, at.max_newidle_lb_cost, rq.at.sd],
      all.places
    )
    for (
      const some of ["", "u32 newidle_call;", "u32 newidle_success, newidle_ratio;", "u32 newidle_call, newidle_ratio;"]
    ) {
      const { at } = given(schedDomainOffsets, domain(some).btf).domain
      assert.deepStrictEqual([at.newidle_call, at.newidle_success, at.newidle_ratio], [undefined, undefined, undefined])
    }
    assert.deepStrictEqual(lackOf(schedDomainStatsOffsets, all.btf), ["sched_domain", "lb_count"])
  })

  it("count imbalance by its cause since v6.14, in one before", () => {
    const split = given(schedDomainStatsOffsets, stats(SPLIT)).domain
    assert.isUndefined(split.at.lb_imbalance)
    assert.deepStrictEqual(split.arrays.lb_imbalance_misfit, { count: 3, size: 4 })
    const single = given(schedDomainStatsOffsets, stats("u32 lb_imbalance[3];")).domain
    assert.isNumber(single.at.lb_imbalance)
    assert.isUndefined(single.at.lb_imbalance_load)
    const three = stats("u32 lb_imbalance_load[3], lb_imbalance_util[3], lb_imbalance_misfit[3];")
    assert.deepStrictEqual(lackOf(schedDomainStatsOffsets, three), ["sched_domain", "lb_imbalance_task"])
  })

  it("know which index is which kind of idleness: v6.10 changed it", () => {
    const old = given(schedDomainStatsOffsets, stats("u32 lb_imbalance[3];", OLD_ORDER)).idleTypes.valueOf
    assert.deepStrictEqual([old.CPU_IDLE, old.__CPU_NOT_IDLE, old.CPU_NEWLY_IDLE], [0, 1, 2])
    const now = given(schedDomainStatsOffsets, stats(SPLIT)).idleTypes.valueOf
    assert.deepStrictEqual([now.__CPU_NOT_IDLE, now.CPU_IDLE, now.CPU_NEWLY_IDLE], [0, 1, 2])
    const renamed = stats(
      SPLIT,
      "enum cpu_idle_type { __CPU_NOT_IDLE, CPU_RESTS, CPU_NEWLY_IDLE, CPU_MAX_IDLE_TYPES };"
    )
    assert.deepStrictEqual(lackOf(schedDomainStatsOffsets, renamed), ["cpu_idle_type", "CPU_IDLE"])
  })

  it("refuse counters that are no arrays, are too short or of another width", () => {
    for (
      const [count, reason] of [
        ["u32 lb_count;", "no array, not of 3 × 4 bytes"],
        ["u32 lb_count[2];", "an array of 2 × 4 bytes, not of 3 × 4 bytes"],
        ["u64 lb_count[3];", "an array of 3 × 8 bytes, not of 3 × 4 bytes"]
      ] as const
    ) {
      const btf = stats(SPLIT, NEW_ORDER, count)
      assert.deepStrictEqual(lackOf(schedDomainStatsOffsets, btf), ["sched_domain", "lb_count"])
      assert.include(
        Either.merge(Either.mapLeft(schedDomainStatsOffsets.resolve(btf), (error) => error.reason.text)),
        reason
      )
    }
  })
})

describe("arrays that an enum indexes", () => {
  it("hold each CPU's time in the order that the kernel says", () => {
    const time = (size: string) =>
      kernel(
        `enum cpu_usage_stat { CPUTIME_NICE, CPUTIME_USER, CPUTIME_SYSTEM, CPUTIME_SOFTIRQ, CPUTIME_IRQ, CPUTIME_IDLE,
         CPUTIME_IOWAIT, CPUTIME_STEAL, CPUTIME_FORCEIDLE, NR_STATS };
         struct kernel_cpustat { u64 cpustat[${size}]; };
         struct kernel_stat { u64 irqs_sum; u32 softirqs[10]; };`
      ).btf
    const { cpustat, kernelStat, tick, times } = given(cpuTimeOffsets, time("NR_STATS"))
    assert.deepStrictEqual(cpustat.arrays.cpustat, { count: 9, size: 8 })
    assert.deepStrictEqual(kernelStat.arrays.softirqs, { count: 10, size: 4 })
    assert.deepStrictEqual([times.valueOf.CPUTIME_NICE, times.valueOf.CPUTIME_USER], [0, 1])
    assert.isUndefined(tick)
    assert.deepStrictEqual(lackOf(cpuTimeOffsets, time("8")), ["kernel_cpustat", "cpustat"])
  })

  it("hold each node's counters; a zone of another size than the nodes' is refused", () => {
    const numa = (zones: string) =>
      kernel(
        `enum numa_stat_item { NUMA_HIT, NUMA_MISS, NUMA_FOREIGN, NUMA_INTERLEAVE_HIT, NUMA_LOCAL, NUMA_OTHER };
         typedef struct { s64 counter; } atomic_long_t;
         struct per_cpu_zonestat { char diff[10]; u64 vm_numa_event[6]; };
         struct zone { u64 first; struct per_cpu_zonestat *per_cpu_zonestats; atomic_long_t vm_numa_event[6]; };
         struct pglist_data { ${zones} int nr_zones, node_id; };`,
        ["per_cpu_zonestat.vm_numa_event", "zone.vm_numa_event", "pglist_data.node_id"]
      )
    const { btf, places } = numa("struct zone node_zones[4];")
    const { node, perCpu, zone } = given(numaOffsets, btf)
    assert.deepStrictEqual([perCpu.at.vm_numa_event, zone.at.vm_numa_event, node.at.node_id], places)
    assert.deepStrictEqual(node.arrays.node_zones, { count: 4, size: zone.size })
    assert.deepStrictEqual(lackOf(numaOffsets, numa("struct zone *node_zones[4];").btf), ["pglist_data", "node_zones"])
  })

  it("hold a task's identifiers, a pid a namespace", () => {
    const MEMBERS =
      "int prio, static_prio, normal_prio; u32 rt_priority; void *sched_class, *real_parent, *group_leader;"
      + " struct signal_struct *signal; void *stack; u64 nvcsw, nivcsw, utime, stime;"
    const task = (pids: number, members: string) =>
      kernel(
        `enum pid_type { PIDTYPE_PID, PIDTYPE_TGID, PIDTYPE_PGID, PIDTYPE_SID, PIDTYPE_MAX };
         struct upid { int nr; void *ns; };
         struct pid { u32 level; struct upid numbers[]; };
         struct signal_struct { int nr_threads; struct pid *pids[${pids}]; u64 nvcsw, nivcsw; };
         struct task_struct { int tgid; ${members} };`,
        ["pid.numbers", "signal_struct.pids", "task_struct.tgid"]
      )
    const { btf, places } = task(4, MEMBERS)
    const { pid, signal, task: found, upid } = given(taskOffsets, btf)
    assert.deepStrictEqual([pid.at.numbers, signal.at.pids, found.at.tgid], places)
    assert.deepStrictEqual([upid.size, found.at.core_cookie], [16, undefined])
    assert.strictEqual(given(taskOffsets, task(4, `u64 core_cookie; ${MEMBERS}`).btf).task.at.core_cookie, 8)
    assert.deepStrictEqual(lackOf(taskOffsets, task(3, MEMBERS).btf), ["signal_struct", "pids"])
    assert.deepStrictEqual(lackOf(taskOffsets, task(4, "int prio;").btf), ["task_struct", "static_prio"])
  })
})

describe("BPF structures", () => {
  it("take the key of a hash map's element where it is, inside the padding at the end", () => {
    const { btf } = kernel(
      `struct hlist_nulls_node { void *next, **pprev; }; struct hlist_nulls_head { struct hlist_nulls_node *first; };
       struct bpf_htab { u64 first; struct bucket *buckets; u32 n_buckets; };
       struct htab_elem { struct hlist_nulls_node hash_node; u32 hash; char key[]; };
       struct bucket { struct hlist_nulls_head head; u32 raw_lock; };
`
    )
    const { bucket, element } = given(bpfHashOffsets, btf)
    assert.deepStrictEqual([bucket.size, bucket.at["head.first"]], [16, 0])
    assert.deepStrictEqual([element.at.key, element.size], [20, 24])
  })

  it("find a registered struct behind the cache line of its header", () => {
    const { btf, places } = kernel(
      `struct bpf_struct_ops_value { u32 refcnt, state; char data[] __attribute__((aligned(64))); };
       struct bpf_struct_ops_map { u64 map[30]; struct bpf_struct_ops_value kvalue; };`,
      ["bpf_struct_ops_map.kvalue", "bpf_struct_ops_value.data"]
    )
    const { map, value } = given(bpfStructOpsOffsets, btf)
    assert.deepStrictEqual([map.at.kvalue, value.at.data], places)
    assert.deepStrictEqual(places, [256, 64])
  })

  it("read ring buffers that have no pending position", () => {
    const { btf } = kernel(
      `struct bpf_ringbuf { u64 mask; u64 consumer_pos __attribute__((aligned(4096)));
         u64 producer_pos __attribute__((aligned(4096))); };
       struct bpf_ringbuf_map { u64 map[30]; struct bpf_ringbuf *rb; };`
    )
    const { ring } = given(ringBufferOffsets, btf)
    assert.deepStrictEqual([ring.at.consumer_pos, ring.at.producer_pos, ring.at.pending_pos], [4096, 8192, undefined])
  })

  it("keep a task's place in a queue where sched_ext's entity has it", () => {
    const entity = (dsqList: string) =>
      kernel(
        `struct scx_dsq_list_node { struct list_head node; u32 flags, priv; };
         struct sched_ext_entity { struct scx_dispatch_q *dsq; ${dsqList} u32 dsq_flags, flags, weight; s32 sticky_cpu,
           holding_cpu; struct list_head runnable_node; u64 runnable_at, slice, dsq_vtime; struct list_head tasks_node; };
         struct task_struct { char comm[16]; struct sched_ext_entity scx; };`,
        ["task_struct.scx", "sched_ext_entity.runnable_node"]
      )
    const { btf, places } = entity("struct scx_dsq_list_node dsq_list;")
    const { entity: found, task } = given(scxWalkEntityOffsets, btf)
    assert.deepStrictEqual([task.at.scx, found.at.runnable_node], places)
    assert.deepStrictEqual(
      lackOf(scxWalkEntityOffsets, entity("struct list_head dsq_node;").btf),
      ["sched_ext_entity", "dsq_list"]
    )
  })
})
