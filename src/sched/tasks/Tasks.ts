import * as Either from "effect/Either"
import * as Record from "effect/Record"
import type { Mutable } from "effect/Types"
import { memoizeByBtf } from "../../btf/MemoizeByBtf.ts"
import { hex, kvaFrom, kvaOffset, kvaPage } from "../../core/Address.ts"
import { type Reason, unreadable, within } from "../../core/Reason.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { wordsOffset, wordsPage, wordsPointer } from "../../memory/KernelSpace.ts"
import { listNodes, NODE_LIMIT } from "../../memory/structs/ListHead.ts"
import { idrLayout, walkIdr } from "../../memory/structs/Xarray.ts"
import { type ENTITY, type SCHED_INFO, schedLayouts, type SE, type TASK } from "../SchedLayouts.ts"
import type { StructMaker, Values } from "../StructFields.ts"
import { Arm64StackTop } from "./Arm64StackTop.ts"
import { CgroupPaths } from "./CgroupPaths.ts"
import { cpuList } from "./CpuList.ts"
import { PointerCache } from "./PointerCache.ts"
import type { StackTop } from "./StackTop.ts"
import { classNames, niceOf, PF_KTHREAD, policyName, stateLetter } from "./TaskState.ts"
import { X86StackTop } from "./X86StackTop.ts"

/**
 * sched_ext's part of a task. `dsq` is the queue's address, `0x0` of a task in none; `sched` its scheduler's.
 *
 * @since 0.1.0
 * @category models
 */
export interface TaskEntity extends Values<typeof ENTITY> {
  readonly dsq?: string
  readonly sched?: string
}

/**
 * A thread. Fields with the kernel's names are the kernel's numbers: times in nanoseconds, `runnable_at` in jiffies. What
 * this kernel's `task_struct` lacks is left out.
 *
 * @since 0.1.0
 * @category models
 */
export interface Task extends Omit<Values<typeof TASK>, "policy" | "comm" | "pid" | "tgid"> {
  readonly address: string
  readonly pid: number
  readonly tgid: number
  readonly comm: string
  /** As `ps` shows it: R, S, D, T, t, X, Z, P, I. */
  readonly state: string
  /** `fair`, `ext`, `rt`, `dl`, `stop`, `idle`, or the symbol of another. */
  readonly class: string
  /** `NORMAL`, `FIFO`, `RR`, `BATCH`, `IDLE`, `DEADLINE`, `EXT`, or its number. */
  readonly policy: string
  readonly nice: number
  readonly kthread: boolean
  readonly ppid?: number
  readonly pgid?: number
  readonly sid?: number
  /** The CPUs that it may run on, as `0-3,5`. */
  readonly cpus_ptr?: string
  /** Its path in the default hierarchy; what `/proc/PID/cgroup` has behind `0::`. */
  readonly cgroup?: string
  /** Of a task that does not run: the function that it sleeps in, by its kernel stack. */
  readonly wchan?: string
  readonly uclamp_min?: number
  readonly uclamp_max?: number
  readonly se?: Values<typeof SE>
  readonly sched_info?: Values<typeof SCHED_INFO>
  readonly scx?: TaskEntity
}

/**
 * A task, as a queue or a CPU refers to it.
 *
 * @since 0.1.0
 * @category models
 */
export interface TaskRef {
  readonly address: string
  readonly pid: number
  readonly comm: string
  readonly class: string
}

/**
 * The parts of a task that tell whether it waits for a CPU, and for how long.
 *
 * @since 0.1.0
 * @category models
 */
export interface RunnableTask extends Pick<Task, "pid" | "comm" | "class" | "on_cpu" | "scx"> {}

/** A task's place among a kernel's lists, as addresses of its `list_head`s, and the pointers to others. */
interface Offsets {
  readonly tasks: bigint
  readonly threadNode: bigint
  readonly threadHead: bigint
  readonly signal: number
}

/** The pointers of `task_struct` that are followed or told, as paths. */
const POINTERS = {
  cgroups: "cgroups",
  cpus_ptr: "cpus_ptr",
  dsq: "scx.dsq",
  fp: "thread.cpu_context.fp",
  real_parent: "real_parent",
  sched: "scx.sched",
  sched_class: "sched_class",
  signal: "signal",
  sp: "thread.sp",
  stack: "stack"
} as const

/**
 * Where the pointers are, as indices of words, and what makes a task and its parts: with all fields that they may get, since
 * one that is added later takes as long as all of them.
 */
const shapes = memoizeByBtf((btf) => {
  const { entity, schedInfo, se, task } = schedLayouts(btf)
  const indexOf = (path: string): number | undefined => {
    const at = task?.at(path)
    return at === undefined || at % 4 !== 0 ? undefined : at / 4
  }
  const pointers = Record.map(POINTERS, indexOf)
  const makeTask = task?.maker<Task>({
    address: "",
    pid: 0,
    tgid: 0,
    comm: "",
    state: "",
    class: "",
    policy: "",
    nice: 0,
    kthread: false,
    ppid: 0,
    pgid: 0,
    sid: 0,
    cpus_ptr: "",
    cgroup: "",
    wchan: "",
    ...(indexOf("uclamp_req") === undefined ? {} : { uclamp_min: 0, uclamp_max: 0 }),
    // not yet objects: a literal with others in it is slow to make
    ...(se === undefined ? {} : { se: undefined }),
    ...(schedInfo === undefined ? {} : { sched_info: undefined }),
    ...(entity === undefined ? {} : { scx: undefined })
  })
  return {
    clamps: indexOf("uclamp_req"),
    makeEntity: entity?.maker<TaskEntity>({ dsq: "", ...(pointers.sched === undefined ? {} : { sched: "" }) }),
    makeInfo: schedInfo?.maker(),
    makeSe: se?.maker(),
    makeTask,
    pointers
  }
})

interface ProcessIds {
  readonly pgid: number | undefined
  readonly sid: number | undefined
}

/** `PIDTYPE_PGID`, `PIDTYPE_SID`; include/linux/pid_types.h, v6.1 to v7.3. */
const PIDTYPE_PGID = 2
const PIDTYPE_SID = 3
/** `uclamp_se.value` is its low 11 bits, include/linux/sched.h. */
const UCLAMP_VALUE = 0x7ff

/**
 * Reads tasks of a kernel, each in one look. What many tasks share (cgroups, affinities) is read once.
 *
 * @since 0.1.0
 * @category models
 */
export class TaskReader {
  readonly #kernel: GuestKernelService
  /** The same memory by another cursor: what is looked at beside a task leaves the task readable. */
  readonly #beside: GuestKernelService
  readonly #layouts
  readonly #task
  readonly #shapes: ReturnType<typeof shapes>
  readonly #makeTask: StructMaker<Mutable<Task>>
  readonly #classOf: (pointer: bigint) => string
  readonly #classes: PointerCache<string>
  readonly #cgroups: PointerCache<string | undefined>
  readonly #ids: PointerCache<ProcessIds>
  readonly #parents: PointerCache<number | undefined>
  readonly #stack: StackTop
  readonly #cpus = new Map<string, string>()
  /** The mask asked for last, which most are equal to, and its list. */
  #cpusMask = new Uint8Array()
  #cpusLast = ""
  readonly #sharedPids = new Map<bigint, number | undefined>()
  readonly #maskBytes: number
  readonly #cpuLimit: number

  /** Undefined where the kernel's BTF has no task_struct with a name and a pid. */
  static of(kernel: GuestKernelService): TaskReader | undefined {
    const { task } = schedLayouts(kernel.btf)
    const { makeTask } = shapes(kernel.btf)
    return task === undefined || makeTask === undefined ? undefined : new TaskReader(kernel, task, makeTask)
  }

  private constructor(
    kernel: GuestKernelService,
    task: NonNullable<ReturnType<typeof schedLayouts>["task"]>,
    makeTask: StructMaker<Mutable<Task>>
  ) {
    this.#kernel = kernel
    const beside = { ...kernel, space: kernel.space.fork() }
    this.#beside = beside
    this.#layouts = schedLayouts(kernel.btf)
    this.#task = task
    this.#shapes = shapes(kernel.btf)
    this.#makeTask = makeTask
    this.#classOf = classNames(kernel.symbols)
    const cgroups = new CgroupPaths(beside)
    this.#classes = new PointerCache(this.#classOf)
    this.#cgroups = new PointerCache((cssSet) => cgroups.ofCssSet(cssSet))
    this.#ids = new PointerCache((signal) => this.#idsOf(signal))
    this.#parents = new PointerCache((parent) => this.#tgidOf(parent))
    this.#stack = kernel.space.table.arch === "arm64" ? new Arm64StackTop(beside) : new X86StackTop(beside)
    this.#maskBytes = Math.ceil((this.#layouts.cpumask?.size ?? 8) / 8) * 8
    const ids = kernel.symbols.address("nr_cpu_ids")
    const limit = ids === undefined ? -1 : kernel.space.u32(ids)
    this.#cpuLimit = limit > 0 ? Math.min(limit, this.#maskBytes * 8) : this.#maskBytes * 8
  }

  get size(): number {
    return this.#task.size
  }

  /** Where a member is in `task_struct`, in bytes. */
  at(path: string): number | undefined {
    return this.#task.at(path)
  }

  /** Name of the `struct sched_class` at an address: `fair`, `ext`, … */
  classOf(pointer: bigint): string {
    return this.#classOf(pointer)
  }

  /** Make a task readable at `space.view`, `space.at`, and as words. */
  #open(address: bigint): boolean {
    return address !== 0n && this.#kernel.space.wordWindow(kvaPage(address), kvaOffset(address), this.#task.size)
  }

  /** Who a task is; undefined where it cannot be read. */
  ref(address: bigint): TaskRef | undefined {
    if (!this.#open(address)) return undefined
    const { at, view, word, words } = this.#kernel.space // valid until the next look at anything else
    const { comm, pid } = this.#layouts.taskName?.read(view, at) ?? {}
    return { address: hex(address), pid: Number(pid), comm: comm ?? "", class: this.#className(words, word) }
  }

  /** The parts of a task that tell how long it has waited, or why it cannot be read. */
  runnable(address: bigint): RunnableTask | Reason {
    if (!this.#open(address)) return unreadable(`task ${hex(address)}: ${this.#kernel.space.faultText}`)
    const { at, view, word, words } = this.#kernel.space
    const { comm, on_cpu, pid } = this.#layouts.taskName?.read(view, at) ?? {}
    const scx = this.#entity(words, word)
    return {
      pid: Number(pid),
      comm: comm ?? "",
      class: this.#className(words, word),
      ...(on_cpu === undefined ? {} : { on_cpu }),
      ...(scx === undefined ? {} : { scx })
    }
  }

  #className(words: Uint32Array, start: number): string {
    const { sched_class } = this.#shapes.pointers
    return sched_class === undefined ? this.#classOf(0n) : this.#classes.at(words, start + sched_class)
  }

  #entity(words: Uint32Array, start: number): TaskEntity | undefined {
    const { makeEntity, pointers: { dsq, sched } } = this.#shapes
    const scx = makeEntity?.(words, start)
    if (scx === undefined) return undefined
    scx.dsq = hex(pointerAt(words, start, dsq))
    if (sched !== undefined) scx.sched = hex(pointerAt(words, start, sched))
    return scx
  }

  /** All of a task, or why it cannot be read. */
  read(address: bigint): Task | Reason {
    if (!this.#open(address)) return unreadable(`task ${hex(address)}: ${this.#kernel.space.faultText}`)
    const { clamps, makeInfo, makeSe, pointers } = this.#shapes
    const { cgroups, cpus_ptr, real_parent, signal, stack } = pointers
    const { word: start, words } = this.#kernel.space // valid until the next look by this cursor
    // Set one by one: spreading costs more than all the rest where there are ten thousand.
    const out = this.#makeTask(words, start)
    const { pid, tgid, policy, static_prio, flags, on_cpu, __state, exit_state } = out
    out.address = hex(address)
    out.pid = Number(pid)
    out.tgid = Number(tgid)
    out.state = stateLetter(Number(__state), Number(exit_state))
    out.class = this.#className(words, start)
    out.policy = policyName(Number(policy))
    out.nice = niceOf(Number(static_prio))
    out.kthread = (Number(flags) & PF_KTHREAD) !== 0
    if (makeSe !== undefined) out.se = makeSe(words, start)
    if (makeInfo !== undefined) out.sched_info = makeInfo(words, start)
    const scx = this.#entity(words, start)
    if (scx !== undefined) out.scx = scx
    if (clamps !== undefined) {
      out.uclamp_min = words[start + clamps] & UCLAMP_VALUE
      out.uclamp_max = words[start + clamps + 1] & UCLAMP_VALUE
    }
    const ids = signal === undefined ? undefined : this.#ids.at(words, start + signal)
    const saved = pointers[this.#stack.saved]
    const sleeps = on_cpu === 0 && out.state !== "R" && saved !== undefined && stack !== undefined
    setOrDelete(out, "ppid", real_parent === undefined ? undefined : this.#parents.at(words, start + real_parent))
    setOrDelete(out, "pgid", ids?.pgid)
    setOrDelete(out, "sid", ids?.sid)
    setOrDelete(out, "cpus_ptr", cpus_ptr === undefined ? undefined : this.#allowedCpus(words, start + cpus_ptr))
    setOrDelete(out, "cgroup", cgroups === undefined ? undefined : this.#cgroups.at(words, start + cgroups))
    setOrDelete(out, "wchan", sleeps ? this.#stack.of(words, start + saved, start + stack) : undefined)
    return out
  }

  /** Most tasks have one of a few affinities. */
  #allowedCpus(task: Uint32Array, pointer: number): string | undefined {
    const { space } = this.#beside
    if (!space.window(wordsPage(task, pointer), wordsOffset(task, pointer), this.#maskBytes)) return undefined
    const { at, view } = space
    const last = this.#cpusMask
    let same = last.length > 0
    for (let i = 0; same && i < last.length; i++) same = view.getUint8(at + i) === last[i]
    if (same) return this.#cpusLast
    const mask = new Uint8Array(view.buffer, view.byteOffset + at, Math.ceil(this.#cpuLimit / 8)).slice()
    const key = Buffer.from(mask.buffer).toString("latin1")
    const list = this.#cpus.get(key) ?? cpuList(view, at, this.#cpuLimit)
    this.#cpus.set(key, list)
    this.#cpusMask = mask
    this.#cpusLast = list
    return list
  }

  /** The process group's and session's numbers, by `signal->pids[type]->numbers[0].nr`. */
  #idsOf(signal: bigint): ProcessIds {
    const pids = this.#layouts.signal?.at("pids")
    const number = (type: number): number | undefined => {
      if (pids === undefined || signal === 0n) return undefined
      const pid = this.#beside.space.u64(signal + BigInt(pids + type * 8))
      return pid === undefined || pid === 0n ? undefined : this.#numberOf(pid)
    }
    return { pgid: number(PIDTYPE_PGID), sid: number(PIDTYPE_SID) }
  }

  #numberOf(pid: bigint): number | undefined {
    if (this.#sharedPids.has(pid)) return this.#sharedPids.get(pid)
    const numbers = this.#layouts.pid?.at("numbers")
    const nr = this.#layouts.upid?.at("nr")
    const value = numbers === undefined || nr === undefined ? -1 : this.#beside.space.u32(pid + BigInt(numbers + nr))
    const known = value < 0 ? undefined : value
    this.#sharedPids.set(pid, known)
    return known
  }

  #tgidOf(address: bigint): number | undefined {
    const at = this.#task.at("tgid")
    if (at === undefined || address === 0n) return undefined
    const value = this.#beside.space.u32(address + BigInt(at))
    return value < 0 ? undefined : value
  }
}

const pointerAt = (words: Uint32Array, start: number, index: number | undefined): bigint =>
  index === undefined ? 0n : wordsPointer(words, start + index)

const setOrDelete = <K extends "ppid" | "pgid" | "sid" | "cpus_ptr" | "cgroup" | "wchan">(
  task: Mutable<Task>,
  field: K,
  value: Mutable<Task>[K] | undefined
): void => {
  if (value === undefined) delete task[field]
  else task[field] = value
}

/**
 * All threads but the idle tasks, by the thread groups' lists, and what of these could not be followed: then those that
 * only the numbers of tasks lead to are among them.
 */
const taskAddresses = (
  kernel: GuestKernelService
): { readonly addresses: ReadonlyArray<bigint>; readonly problems: ReadonlyArray<Reason> } => {
  const { signal, task } = schedLayouts(kernel.btf)
  const first = kernel.symbols.address("init_task")
  const offsets = offsetsOf(task, signal)
  if (first === undefined || offsets === undefined) {
    return { addresses: [], problems: [unreadable("tasks: no init_task, or no lists in task_struct")] }
  }
  const found = new Set<bigint>()
  const problems: Array<Reason> = []
  const leaders = listNodes(kernel.space, first + offsets.tasks)
  if (leaders.problem !== undefined) problems.push(within("the list of processes", leaders.problem))
  for (const node of leaders.nodes) {
    const leader = node - offsets.tasks
    const signal = kernel.space.u64(leader + BigInt(offsets.signal))
    if (signal === undefined || signal === 0n) {
      found.add(leader)
      continue
    }
    const threads = listNodes(kernel.space, signal + offsets.threadHead)
    if (threads.problem !== undefined) {
      problems.push(within(`the threads of task ${hex(leader)}`, threads.problem))
    }
    found.add(leader)
    for (const thread of threads.nodes) found.add(thread - offsets.threadNode)
  }
  if (problems.length > 0) { for (const task of numberedTasks(kernel)) found.add(task) }
  return { addresses: [...found], problems }
}

/**
 * The tasks that have a number in the first namespace of numbers. A task that does not point back at its number is left out.
 * @see include/linux/pid_namespace.h `struct pid_namespace`, include/linux/pid.h `struct pid`, kernel/pid.c; v6.1 to v7.3
 */
const numberedTasks = (kernel: GuestKernelService): ReadonlyArray<bigint> => {
  const { btf, space, symbols } = kernel
  const { pid, pidNamespace, task } = schedLayouts(btf)
  const namespace = symbols.address("init_pid_ns")
  const shape = idrLayout(btf)
  const [idrAt, tasksAt, linksAt, numberAt] = [
    pidNamespace?.at("idr"),
    pid?.at("tasks"),
    task?.at("pid_links"),
    task?.at("thread_pid")
  ]
  if (
    namespace === undefined || Either.isLeft(shape) || idrAt === undefined || tasksAt === undefined
    || linksAt === undefined || numberAt === undefined
  ) return []
  const found: Array<bigint> = []
  walkIdr(space, shape.right, namespace + BigInt(idrAt), (_, page, offset) => {
    const number = kvaFrom(page, offset)
    // PIDTYPE_PID is 0: the first list, and the first link of a task
    const node = space.u64(number + BigInt(tasksAt))
    if (node === undefined || node === 0n) return // the number of a group or session whose leader has ended
    const address = node - BigInt(linksAt)
    if (space.u64(address + BigInt(numberAt)) === number && found.length < NODE_LIMIT) found.push(address)
  })
  return found
}

const offsetsOf = (
  task: ReturnType<typeof schedLayouts>["task"],
  signal: ReturnType<typeof schedLayouts>["signal"]
): Offsets | undefined => {
  const [tasks, threadNode, signalAt, threadHead] = [
    task?.at("tasks"),
    task?.at("thread_node"),
    task?.at("signal"),
    signal?.at("thread_head")
  ]
  if (tasks === undefined || threadNode === undefined || signalAt === undefined || threadHead === undefined) {
    return undefined
  }
  return { tasks: BigInt(tasks), threadNode: BigInt(threadNode), threadHead: BigInt(threadHead), signal: signalAt }
}

/**
 * Every thread of a kernel.
 *
 * @since 0.1.0
 * @category reading
 */
export const readTasks = (
  kernel: GuestKernelService,
  reader: TaskReader
): { readonly tasks: ReadonlyArray<Task>; readonly problems: ReadonlyArray<Reason> } => {
  const { addresses, problems } = taskAddresses(kernel)
  const failed: Array<Reason> = []
  const tasks: Array<Task> = []
  for (const address of addresses) {
    const task = reader.read(address)
    if ("kind" in task) failed.push(task)
    else tasks.push(task)
  }
  return { tasks, problems: [...problems, ...failed.slice(0, 64)] }
}
