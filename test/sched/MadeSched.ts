import * as Effect from "effect/Effect"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { compileC } from "../btf/compileC.ts"
import { LOADED, MadeKernel } from "../memory/MadeKernel.ts"

/** Cut down to what is read, in an order of its own: the kernel's names, not its places. Shapes are those of v7.0. */
const SOURCE = `
typedef unsigned char u8; typedef unsigned int u32; typedef unsigned long u64; typedef int s32; typedef long s64;
struct list_head { struct list_head *next, *prev; };
struct rb_node { u64 __rb_parent_color; struct rb_node *rb_right, *rb_left; };
struct rb_root { struct rb_node *rb_node; };
struct xarray { u32 pad, xa_flags; void *xa_head; };
struct xa_node { u8 shift, offset; void *parent; void *slots[64]; };
struct idr { struct xarray idr_rt; u32 idr_base, idr_next; };
struct cpumask { u64 bits[1]; };
struct rhash_head { struct rhash_head *next; };
struct bucket_table { u32 size, nest; u64 pad; struct bucket_table *future_tbl; struct rhash_head *buckets[4]; };
struct rhashtable { struct bucket_table *tbl; u32 key_len; s32 nelems; };
struct kernfs_node { u64 pad; struct kernfs_node *__parent; const char *name; u64 id; };
struct cgroup { u64 pad; struct kernfs_node *kn; };
struct css_set { u64 pad; struct cgroup *dfl_cgrp; };
struct upid { s32 nr; void *ns; };
struct hlist_head { struct hlist_node *first; };
struct hlist_node { struct hlist_node *next, **pprev; };
struct pid { u32 level; struct hlist_head tasks[4]; struct upid numbers[1]; };
struct pid_namespace { u64 pad; struct idr idr; };
struct signal_struct { s32 nr_threads; struct list_head thread_head; struct pid *pids[4]; };
struct load_weight { u64 weight; };
struct sched_entity { struct load_weight load; u8 on_rq; u64 exec_start, sum_exec_runtime, vruntime, deadline; s64 vlag; u64 slice, nr_migrations; };
struct sched_info { u64 pcount, run_delay, last_arrival, last_queued; };
struct scx_dsq_list_node { struct list_head node; u32 flags, priv; };
struct scx_dispatch_q { u32 lock; struct list_head list; struct rb_root priq; u32 nr, seq; u64 id; struct rhash_head hash_node; };
struct sched_ext_entity { struct scx_dispatch_q *dsq; struct scx_dsq_list_node dsq_list; struct rb_node dsq_priq;
  u32 dsq_seq, dsq_flags, flags, weight; s32 sticky_cpu, holding_cpu; u64 ops_state; struct list_head runnable_node;
  u64 runnable_at, ddsp_dsq_id, ddsp_enq_flags, slice, dsq_vtime; struct list_head tasks_node; };
struct thread_info { u64 flags; u32 cpu; };
struct thread_struct { u64 sp; };
struct task_struct { struct thread_info thread_info; u32 __state, flags; u8 on_cpu, on_rq; s32 prio, static_prio, normal_prio; u32 rt_priority;
  struct sched_entity se; const void *sched_class; u32 policy; s32 nr_cpus_allowed; struct cpumask *cpus_ptr; struct cpumask cpus_mask;
  unsigned short migration_disabled; struct sched_info sched_info; struct list_head tasks; s32 exit_state, pid, tgid;
  struct task_struct *real_parent, *group_leader; struct list_head thread_node; struct hlist_node pid_links[4]; struct pid *thread_pid; u64 utime, stime, nvcsw, nivcsw, start_time;
  char comm[16]; struct signal_struct *signal; struct css_set *cgroups; struct thread_struct thread; struct sched_ext_entity scx; };
struct cfs_rq { u32 nr_queued, h_nr_queued; u64 zero_vruntime; };
struct rt_rq { u32 rt_nr_running; };
struct dl_rq { u32 dl_nr_running; };
struct scx_rq { struct scx_dispatch_q local_dsq; struct list_head runnable_list; u32 nr_running, flags; struct scx_dispatch_q bypass_dsq; };
struct rq { u32 nr_running; struct task_struct *curr, *idle, *stop; u64 nr_switches; u32 __lock; struct cfs_rq cfs; struct rt_rq rt;
  struct dl_rq dl; struct scx_rq scx; u64 clock, clock_task; s32 cpu, online; void *sd; };
struct sched_ext_ops { s32 (*select_cpu)(struct task_struct *, s32, u64); void (*enqueue)(struct task_struct *, u64); void (*dispatch)(s32);
  u64 flags; u32 timeout_ms; char name[128]; void *priv; };
struct bpf_map { u32 map_type, btf_vmlinux_value_type_id; };
struct bpf_struct_ops_value { u64 state; char data[1]; };
struct bpf_struct_ops_sched_ext_ops { u64 common[2]; struct sched_ext_ops data; };
struct bpf_struct_ops_map { struct bpf_map map; void *uvalue; struct bpf_struct_ops_value kvalue; };
struct bpf_ksym { u64 start; char name[512]; };
struct bpf_prog_aux { u32 id; char name[16]; struct bpf_ksym ksym; };
struct bpf_prog { u64 pad; struct bpf_prog_aux *aux; };
enum scx_enable_state { SCX_ENABLING, SCX_ENABLED, SCX_DISABLING, SCX_DISABLED };
enum scx_exit_kind { SCX_EXIT_NONE, SCX_EXIT_DONE, SCX_EXIT_UNREG = 64, SCX_EXIT_ERROR = 1024, SCX_EXIT_ERROR_BPF, SCX_EXIT_ERROR_STALL };
enum scx_ops_flags { SCX_OPS_KEEP_BUILTIN_IDLE = 1, SCX_OPS_ENQ_LAST = 2 };
enum scx_dsq_id_flags { SCX_DSQ_FLAG_BUILTIN = 1ULL << 63, SCX_DSQ_GLOBAL = SCX_DSQ_FLAG_BUILTIN | 1, SCX_DSQ_LOCAL = SCX_DSQ_FLAG_BUILTIN | 2, SCX_DSQ_BYPASS = SCX_DSQ_FLAG_BUILTIN | 3 };
enum scx_rq_flags { SCX_RQ_ONLINE = 1, SCX_RQ_CAN_STOP_TICK = 2 };
struct scx_event_stats { s64 SCX_EV_SELECT_CPU_FALLBACK, SCX_EV_DISPATCH_KEEP_LAST; };
struct scx_sched_pcpu { struct scx_event_stats event_stats; };
struct scx_exit_info { s32 kind; s64 exit_code; const char *reason; u64 *bt; u32 bt_len; char *msg; char *dump; };
struct scx_sched { struct sched_ext_ops ops; struct rhashtable dsq_hash; struct scx_dispatch_q **global_dsqs; struct scx_sched_pcpu *pcpu; s32 exit_kind; struct scx_exit_info *exit_info;
  s32 bypass_depth; u64 bypass_timestamp; };
struct clocksource { u32 pad, mult, shift; };
struct hrtimer_cpu_base { u32 hres_active : 1; s64 expires_next; };
struct all { struct hrtimer_cpu_base timers; struct task_struct task; struct rq rq; struct scx_sched sched; struct clocksource clock; struct idr idr; struct xa_node node;
  struct bucket_table buckets; struct signal_struct signal; struct pid pid; struct css_set css; struct cgroup cgroup; struct kernfs_node kn; struct scx_exit_info info; struct scx_sched_pcpu pcpu;
  struct pid_namespace pid_ns; struct bpf_struct_ops_map ops_map; struct bpf_struct_ops_sched_ext_ops ops_value; struct bpf_prog prog; struct bpf_prog_aux aux;
  enum scx_enable_state a; enum scx_ops_flags c; enum scx_dsq_id_flags d; enum scx_rq_flags e; enum scx_exit_kind f; } all;
`

interface Member {
  readonly name: string
  readonly type_id: number
  readonly bits_offset: number
}
interface Type {
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly size?: number
  readonly type_id?: number
  readonly members?: ReadonlyArray<Member>
}

const compiled = compileC(SOURCE)
const types = new Map((compiled.dump as ReadonlyArray<Type>).map((type) => [type.id, type]))

const structNamed = (name: string): Type => {
  for (const type of types.values()) if (type.kind === "STRUCT" && type.name === name) return type
  throw new Error(`no struct ${name}`)
}

/** Bytes of a struct, as bpftool prints them. */
export const sizeOf = (struct: string): number => structNamed(struct).size ?? 0

/** Where a member is in a struct, by the path of names, as bpftool prints it: bytes. */
export const offsetOf = (struct: string, path: string): number => {
  let type: Type | undefined = structNamed(struct)
  let at = 0
  for (const name of path.split(".")) {
    const member: Member | undefined = type?.members?.find((member) => member.name === name)
    if (member === undefined) throw new Error(`struct ${struct} has no ${path}`)
    at += member.bits_offset / 8
    type = types.get(member.type_id)
  }
  return at
}

/** A kernel of two CPUs with sched_ext, in which objects of the structs above are made. */
export class MadeSched {
  readonly made = new MadeKernel({
    btf: compiled.btf,
    encoding: "relative to the base",
    objects: {
      runqueues: sizeOf("rq"),
      hrtimer_bases: sizeOf("hrtimer_cpu_base"), // within the page of a CPU's area
      init_task: sizeOf("task_struct"),
      init_pid_ns: sizeOf("pid_namespace"),
      jiffies_64: 8,
      tick_next_period: 8,
      clocksource_jiffies: sizeOf("clocksource"),
      fair_sched_class: 8,
      ext_sched_class: 8,
      idle_sched_class: 8,
      scx_root: 8,
      scx_enable_state_var: 4,
      scx_watchdog_timeout: 8,
      scx_watchdog_timestamp: 8,
      scx_enable_seq: 8,
      nr_node_ids: 4
    }
  })
  #page = 0
  #used = 4096

  constructor() {
    // a per-CPU area each, of one page
    for (const cpu of [0, 1]) {
      const page = this.made.page()
      this.set(
        "u64",
        this.symbol("__per_cpu_offset") + BigInt(cpu * 8),
        BigInt.asUintN(64, this.made.direct(page) - this.symbol("runqueues"))
      )
    }
    this.set("u64", this.symbol("jiffies_64"), 10_000n)
    this.set("u64", this.symbol("tick_next_period"), 7_004_000_000n) // the last tick was 7 s after boot
    this.field("clocksource", this.symbol("clocksource_jiffies"), { mult: 4_000_000 << 8 >>> 0, shift: 8 })
    this.set("u32", this.symbol("nr_node_ids"), 1)
    this.set("u64", this.symbol("scx_watchdog_timeout"), 7500n)
    this.set("u32", this.symbol("scx_enable_state_var"), 3)
    for (const cpu of [0, 1]) {
      this.field("rq", this.rq(cpu), { cpu, online: 1, clock: 5_000_000_000n })
      for (const queue of ["scx.local_dsq", "scx.bypass_dsq"]) {
        this.dispatchQueue(this.rq(cpu) + BigInt(offsetOf("rq", queue)), 0n, [])
      }
    }
    this.list(this.symbol("init_task") + BigInt(offsetOf("task_struct", "tasks")), [])
  }

  symbol(name: string): bigint {
    return this.made.symbols.get(name)!
  }

  /** A CPU's own of a per-CPU object. */
  perCpu(symbol: string, cpu: number): bigint {
    const offset = this.made.get64(this.made.physical("__per_cpu_offset") + cpu * 8)
    return BigInt.asUintN(64, this.symbol(symbol) + offset)
  }

  rq(cpu: number): bigint {
    return this.perCpu("runqueues", cpu)
  }

  /** Zeros in the direct map. */
  allocate(bytes: number): bigint {
    if (this.#used + bytes > 4096) {
      this.#page = this.made.page()
      this.#used = 0
    }
    const address = this.made.direct(this.#page + this.#used)
    this.#used += Math.ceil(bytes / 16) * 16
    return address
  }

  #at(address: bigint): number {
    const direct = Number(address - this.made.options.directBase)
    return direct >= LOADED && direct < 2 ** 32 ? direct - LOADED : Number(address - this.symbol("swapper_pg_dir"))
  }

  set(kind: "u8" | "u16" | "u32" | "u64", address: bigint, value: number | bigint): void {
    const at = this.#at(address)
    const { view } = this.made
    if (kind === "u8") view.setUint8(at, Number(value))
    else if (kind === "u16") view.setUint16(at, Number(value), true)
    else if (kind === "u32") view.setUint32(at, Number(value), true)
    else view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true)
  }

  text(address: bigint, text: string): void {
    this.made.bytes.set(Buffer.from(`${text}\0`), this.#at(address))
  }

  /** Set members of a struct by their paths, in the width that they have. */
  field(struct: string, address: bigint, values: { readonly [path: string]: number | bigint | string }): void {
    for (const [path, value] of Object.entries(values)) {
      const at = address + BigInt(offsetOf(struct, path))
      if (typeof value === "string") this.text(at, value)
      else this.set(`u${widthOf(struct, path) * 8}` as "u8", at, value)
    }
  }

  /** Link nodes into a list after its head. */
  list(head: bigint, nodes: ReadonlyArray<bigint>): void {
    const ring = [head, ...nodes]
    ring.forEach((node, i) => {
      this.set("u64", node, ring[(i + 1) % ring.length])
      this.set("u64", node + 8n, ring[(i + ring.length - 1) % ring.length])
    })
  }

  task(fields: { readonly [path: string]: number | bigint | string }): bigint {
    const address = this.allocate(sizeOf("task_struct"))
    const mask = address + BigInt(offsetOf("task_struct", "cpus_mask"))
    this.field("task_struct", address, {
      sched_class: this.symbol("fair_sched_class"),
      static_prio: 120,
      prio: 120,
      cpus_ptr: mask,
      "cpus_mask.bits": 3,
      ...fields
    })
    return address
  }

  /** A process: its leader and its other threads, with the parts that they share. */
  process(leader: bigint, threads: ReadonlyArray<bigint> = []): void {
    const signal = this.allocate(sizeOf("signal_struct"))
    const node = BigInt(offsetOf("task_struct", "thread_node"))
    this.list(
      signal + BigInt(offsetOf("signal_struct", "thread_head")),
      [leader, ...threads].map((task) => task + node)
    )
    for (const task of [leader, ...threads]) this.field("task_struct", task, { signal, group_leader: leader })
    const link = BigInt(offsetOf("task_struct", "tasks"))
    this.#leaders.push(leader + link)
    this.list(this.symbol("init_task") + link, this.#leaders)
  }
  readonly #leaders: Array<bigint> = []

  /** Make a queue at an address of tasks, or of other nodes, in this order. */
  dispatchQueue(address: bigint, id: bigint, tasks: ReadonlyArray<bigint>, others: ReadonlyArray<bigint> = []): void {
    const link = BigInt(offsetOf("task_struct", "scx.dsq_list.node"))
    this.field("scx_dispatch_q", address, { id, nr: tasks.length })
    this.list(address + BigInt(offsetOf("scx_dispatch_q", "list")), [...tasks.map((task) => task + link), ...others])
    for (const task of tasks) this.field("task_struct", task, { "scx.dsq": address })
  }

  /** Load a scheduler with these user queues, and one global queue. */
  scheduler(name: string, queues: ReadonlyArray<bigint>, global: bigint): bigint {
    const address = this.allocate(sizeOf("scx_sched"))
    const table = this.allocate(sizeOf("bucket_table"))
    const globals = this.allocate(8)
    this.set("u64", globals, global)
    this.field("scx_sched", address, {
      "ops.name": name,
      "ops.enqueue": 1n,
      "ops.flags": 2,
      "dsq_hash.tbl": table,
      "dsq_hash.nelems": queues.length,
      global_dsqs: globals,
      pcpu: 0
    })
    this.field("bucket_table", table, { size: 1 })
    const node = BigInt(offsetOf("scx_dispatch_q", "hash_node"))
    const bucket = table + BigInt(offsetOf("bucket_table", "buckets"))
    const chain = [bucket, ...queues.map((queue) => queue + node)]
    chain.forEach((at, i) => this.set("u64", at, i + 1 < chain.length ? chain[i + 1] : i === 0 ? 0n : bucket | 1n))
    // the counters: behind the queues' own per-CPU offset, so as a pointer from a CPU's area
    this.field("scx_sched", address, { pcpu: this.symbol("runqueues") + 2048n })
    this.set("u64", this.symbol("scx_root"), address)
    this.set("u32", this.symbol("scx_enable_state_var"), 1)
    return address
  }

  /** Make an idr's only entry. */
  idr(address: bigint, id: number, entry: bigint): void {
    this.field("idr", address, { idr_base: id, "idr_rt.xa_head": entry })
  }

  /** The struct_ops map of a scheduler whose `enqueue` is a program of that name and id. */
  opsMap(scheduler: bigint, program: { readonly id: number; readonly name: string }): void {
    const map = this.allocate(sizeOf("bpf_struct_ops_map") + sizeOf("bpf_struct_ops_sched_ext_ops"))
    const given = this.allocate(sizeOf("bpf_struct_ops_sched_ext_ops"))
    const value = structNamed("bpf_struct_ops_sched_ext_ops").id
    this.field("bpf_map", map, { map_type: 26, btf_vmlinux_value_type_id: value })
    this.field("bpf_struct_ops_map", map, { uvalue: given })
    const kernels = map + BigInt(offsetOf("bpf_struct_ops_map", "kvalue"))
    this.field("bpf_struct_ops_sched_ext_ops", kernels, { "data.enqueue": 1n, "data.priv": scheduler })
    this.field("bpf_struct_ops_sched_ext_ops", given, { "data.enqueue": BigInt(program.id) })
    this.idr(this.symbol("map_idr"), 3, map)
    const [prog, aux] = [this.allocate(sizeOf("bpf_prog")), this.allocate(sizeOf("bpf_prog_aux"))]
    this.field("bpf_prog", prog, { aux })
    this.field("bpf_prog_aux", aux, { id: program.id, name: program.name.slice(0, 15) })
    this.text(aux + BigInt(offsetOf("bpf_prog_aux", "ksym.name")), `bpf_prog_0123456789abcdef_${program.name}`)
    this.idr(this.symbol("prog_idr"), program.id, prog)
  }

  kernel(): typeof GuestKernel.Service {
    return Effect.runSync(GuestKernel.fromMemory(this.made.memory()))
  }
}

const widthOf = (struct: string, path: string): number => {
  let type: Type | undefined = structNamed(struct)
  for (const name of path.split(".")) {
    type = types.get(type?.members?.find((member) => member.name === name)?.type_id ?? 0)
  }
  while (type?.kind === "TYPEDEF" || type?.kind === "CONST") type = types.get(type.type_id ?? 0)
  if (type?.kind === "PTR" || type?.kind === "ARRAY") return 8
  return type?.size ?? 8
}
