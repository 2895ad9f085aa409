import * as Either from "effect/Either"
import type { Btf } from "../../btf/Btf.ts"
import { hex, kvaOffset, kvaPage } from "../../core/Address.ts"
import { absent, type Reason, unreadable, within } from "../../core/Reason.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { listNodes } from "../../memory/structs/ListHead.ts"
import { StructReader } from "../../memory/structs/StructReader.ts"
import { enumValues, flagNames } from "../EnumValues.ts"
import { schedLayouts } from "../SchedLayouts.ts"
import { millisOf, millisSince, type SchedTime } from "../SchedTime.ts"
import { type Int, integerAt } from "../StructFields.ts"
import { type ExitInfo, readExitInfo } from "./ScxExitInfo.ts"
import { callbacksAt, type OpsMaps, type OpsProgram, readOpsMaps } from "./ScxOps.ts"

type Kernel = GuestKernelService

/**
 * A scheduler's counters: each the sum over all CPUs, and by CPU those that are not 0.
 *
 * @since 0.1.0
 * @category models
 */
export interface ScxEvents {
  readonly total: { readonly [event: string]: Int }
  readonly cpus: ReadonlyArray<{ readonly cpu: number; readonly events: { readonly [event: string]: Int } }>
}

/**
 * A loaded scheduler: the root, or with CONFIG_EXT_SUB_SCHED one of those below it. Without the programs of its callbacks.
 *
 * @since 0.1.0
 * @category models
 */
export interface SchedulerBase {
  readonly address: string
  readonly root: boolean
  /** The scheduler above it, by address. */
  readonly parent?: string
  readonly level?: Int
  readonly id?: Int
  readonly cgroup?: string
  readonly name: string
  readonly flags: ReadonlyArray<string>
  /** The callbacks that it has. */
  readonly callbacks: ReadonlyArray<string>
  readonly timeout_ms?: Int
  readonly dispatch_max_batch?: Int
  readonly exit_dump_len?: Int
  readonly hotplug_seq?: Int
  readonly sub_cgroup_id?: Int
  readonly slice_dfl?: Int
  readonly bypass_depth?: Int
  /** When the bypass that is on began, by the kernel's ktime in nanoseconds. */
  readonly bypass_timestamp?: Int
  readonly aborting?: boolean
  readonly is_cid_type?: boolean
  /** How long a task may be runnable before the kernel ends the scheduler. */
  readonly watchdogMillis?: number
  /** `NONE` while it runs; `DONE` from when the kernel handles the exit: its kind is in `exitInfo` then. */
  readonly exit_kind: string
  readonly exitInfo?: ExitInfo
  readonly events: ScxEvents | Reason
}

/**
 * A loaded scheduler, whole.
 *
 * @since 0.1.0
 * @category models
 */
export interface Scheduler extends SchedulerBase {
  /** By callback the BPF program that implements it. */
  readonly programs: { readonly [callback: string]: OpsProgram }
}

/**
 * The kind of a scheduler's exit; `NONE` while it runs. The kernel moves `exit_kind` on to `DONE` when it begins to handle
 * the exit.
 * @see kernel/sched/ext.c `scx_ops_disable_workfn` (v6.12), `scx_root_disable` (v7.1)
 */
export const exitKindOf = ({ exit_kind, exitInfo }: Pick<SchedulerBase, "exit_kind" | "exitInfo">): string =>
  exit_kind === "DONE" ? exitInfo?.kind ?? exit_kind : exit_kind

/**
 * Why a scheduler ended that is not loaded any more. `scheduler` is its name, which is not known before v6.16.
 *
 * @since 0.1.0
 * @category models
 */
export interface LastExit extends ExitInfo {
  readonly scheduler?: string
}

/**
 * sched_ext as a whole, without what only its BPF maps tell.
 *
 * @since 0.1.0
 * @category models
 */
export interface ScxBase {
  /** `enabled`, `disabled`, `enabling`, `disabling`, as /sys/kernel/sched_ext/state has it. */
  readonly state: string
  readonly enabled?: boolean
  readonly switching_all?: boolean
  readonly switched_all?: boolean
  readonly nr_rejected?: Int
  readonly hotplug_seq?: Int
  readonly enable_seq?: Int
  readonly bypass_depth?: Int
  readonly aborting?: boolean
  /** Milliseconds since the watchdog last looked; null where nothing tells. */
  readonly watchdogCheckedMillis: number | null
  readonly schedulers: ReadonlyArray<SchedulerBase>
  readonly problems: ReadonlyArray<Reason>
}

/**
 * sched_ext as a whole.
 *
 * @since 0.1.0
 * @category models
 */
export interface ScxState extends ScxBase {
  readonly schedulers: ReadonlyArray<Scheduler>
  /** The last exit where no scheduler is loaded any more, but its record is still there: its loader holds it. */
  readonly lastExit?: LastExit
}

/** Small integers behind symbols, by width. */
const word = ({ space, symbols }: Kernel, names: ReadonlyArray<string>, bytes: 1 | 4 | 8): Int | undefined => {
  for (const name of names) {
    const address = symbols.address(name)
    if (address === undefined || !space.window(kvaPage(address), kvaOffset(address), bytes)) continue
    return integerAt(space.view, space.at, bytes, true)
  }
  return undefined
}

const truth = (value: Int | undefined): boolean | undefined => value === undefined ? undefined : Number(value) > 0

/** Without the fields that are undefined. */
const present = <A extends object>(fields: A): { [K in keyof A]?: Exclude<A[K], undefined> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never

/**
 * sched_ext's state. Where the schedulers are: in variables of their own (`scx_ops`, v6.12 to v6.15), behind `scx_root`
 * (v6.16), or in the list `scx_sched_all` (v7.1).
 * @see kernel/sched/ext.c, since v7.2 kernel/sched/ext/; v6.12 to v7.3
 * @since 0.1.0
 * @category reading
 */
export const readScx = (
  kernel: Kernel,
  time: SchedTime & { readonly ticks: bigint }
): ScxState | Reason => {
  const state = readLoaded(kernel, time)
  if ("kind" in state) return state
  const maps = readOpsMaps(kernel)
  const schedulers = state.schedulers.map(([scheduler, callbacks]) => ({
    ...scheduler,
    programs: programsOf(callbacks, maps)
  }))
  const lastExit = lastExitOf(kernel, time, schedulers, maps)
  return { ...state, ...(lastExit === undefined ? {} : { lastExit }), schedulers }
}

/**
 * The same without a walk over all BPF maps and programs, for readings that come again and again: schedulers' callbacks are
 * named, not their programs, and those that ended are not looked for.
 *
 * @since 0.1.0
 * @category reading
 */
export const readScxBase = (
  kernel: Kernel,
  time: SchedTime & { readonly ticks: bigint }
): ScxBase | Reason => {
  const state = readLoaded(kernel, time)
  return "kind" in state ? state : { ...state, schedulers: state.schedulers.map(([scheduler]) => scheduler) }
}

type Callbacks = ReturnType<typeof callbacksAt>
type Loaded = readonly [SchedulerBase, Callbacks]

const readLoaded = (
  kernel: Kernel,
  time: SchedTime & { readonly ticks: bigint }
): Omit<ScxBase, "schedulers"> & { readonly schedulers: ReadonlyArray<Loaded> } | Reason => {
  const { btf, symbols } = kernel
  if (symbols.address("ext_sched_class") === undefined) {
    return absent("this kernel was built without CONFIG_SCHED_CLASS_EXT")
  }
  const problems: Array<Reason> = []
  const number = word(kernel, ["scx_enable_state_var", "scx_ops_enable_state_var"], 4)
  const timestamp = word(kernel, ["scx_watchdog_timestamp"], 8)
  const schedulers = schedLayouts(btf).sched === undefined
    ? schedulerOfVariables(kernel, time)
    : schedulersOfRoot(kernel, time, problems)
  return {
    state: stateName(btf, number),
    ...present({
      enabled: truth(word(kernel, ["__scx_enabled", "__scx_ops_enabled"], 4)),
      switching_all: truth(word(kernel, ["scx_switching_all"], 1)),
      switched_all: truth(word(kernel, ["__scx_switched_all"], 4)),
      nr_rejected: word(kernel, ["scx_nr_rejected"], 8),
      hotplug_seq: word(kernel, ["scx_hotplug_seq"], 8),
      enable_seq: word(kernel, ["scx_enable_seq"], 8),
      bypass_depth: word(kernel, ["scx_bypass_depth", "scx_ops_bypass_depth"], 4),
      aborting: truth(word(kernel, ["scx_aborting"], 1))
    }),
    watchdogCheckedMillis: timestamp === undefined ? null : millisSince(time, timestamp),
    schedulers,
    problems
  }
}

const stateName = (btf: Btf, number: Int | undefined): string => {
  if (number === undefined) return "unknown"
  for (const name of ["scx_enable_state", "scx_ops_enable_state"]) {
    const found = enumValues(btf, name).get(BigInt(number))
    if (found !== undefined) return found.replace(/^SCX_(OPS_)?/, "").toLowerCase()
  }
  return String(number)
}

/** v6.12 to v6.15: why the scheduler ends, behind a variable. */
const exitOfVariable = (kernel: Kernel): ExitInfo | undefined => {
  const info = kernel.symbols.address("scx_exit_info")
  const pointer = info === undefined ? undefined : kernel.space.u64(info)
  return pointer === undefined || pointer === 0n ? undefined : readExitInfo(kernel, pointer)
}

/** v6.12 to v6.15: one scheduler at most, in variables. */
const schedulerOfVariables = (kernel: Kernel, time: SchedTime): ReadonlyArray<Loaded> => {
  const { btf, space, symbols } = kernel
  const address = symbols.address("scx_ops")
  const { ops } = schedLayouts(btf)
  if (address === undefined || ops === undefined || !space.window(kvaPage(address), kvaOffset(address), ops.size)) {
    return []
  }
  const { name, ...fields } = ops.read(space.view, space.at)
  if (name === undefined || name === "") return [] // zeroed when it is gone
  const kind = word(kernel, ["scx_exit_kind"], 4)
  const exit = exitOfVariable(kernel)
  const callbacks = callbacksAt(kernel, address, "sched_ext_ops")
  const scheduler: SchedulerBase = {
    address: hex(address),
    root: true,
    name,
    ...fields,
    flags: opsFlags(btf, fields.flags),
    callbacks: callbacks.map(({ name }) => name),
    ...watchdogOf(kernel, time, undefined),
    exit_kind: exitKind(btf, kind),
    ...(exit === undefined ? {} : { exitInfo: exit }),
    events: readEvents(kernel, undefined)
  }
  return [[scheduler, callbacks]]
}

const opsFlags = (btf: Btf, flags: Int | undefined): ReadonlyArray<string> =>
  flagNames(enumValues(btf, "scx_ops_flags"), "SCX_OPS_", BigInt(flags ?? 0))

const exitKind = (btf: Btf, kind: Int | undefined): string =>
  kind === undefined
    ? "unknown"
    : enumValues(btf, "scx_exit_kind").get(BigInt(kind))?.replace(/^SCX_EXIT_/, "") ?? String(kind)

/** `watchdog_timeout` is in the scheduler since v7.1, a variable before. */
const watchdogOf = (kernel: Kernel, { hz }: SchedTime, own: Int | undefined) => {
  const jiffies = own ?? word(kernel, ["scx_watchdog_timeout"], 8)
  return jiffies === undefined || hz === null ? {} : { watchdogMillis: millisOf(Number(jiffies), hz) }
}

/** The schedulers' addresses: `scx_sched_all` (v7.1) and `scx_root`, the root first. */
export const schedulerAddresses = (
  { btf, space, symbols }: Kernel,
  problems: Array<Reason>
): ReadonlyArray<bigint> => {
  const rootAt = symbols.address("scx_root")
  const root = rootAt === undefined ? undefined : space.u64(rootAt)
  const all = symbols.address("scx_sched_all")
  const linkAt = schedLayouts(btf).sched?.at("all")
  const found = new Set<bigint>(root === undefined || root === 0n ? [] : [root])
  if (all !== undefined && linkAt !== undefined) {
    const { nodes, problem } = listNodes(space, all)
    if (problem !== undefined) problems.push(within("the list of schedulers", problem))
    for (const node of nodes) found.add(node - BigInt(linkAt))
  }
  return [...found]
}

const schedulersOfRoot = (
  kernel: Kernel,
  time: SchedTime,
  problems: Array<Reason>
): ReadonlyArray<Loaded> =>
  schedulerAddresses(kernel, problems).flatMap((address, index) => {
    const found = readScheduler(kernel, time, address, index === 0)
    if (!("kind" in found)) return [found]
    problems.push(found)
    return []
  })

/** Where no scheduler is loaded: why the last one ended. */
const lastExitOf = (
  kernel: Kernel,
  time: SchedTime,
  loaded: ReadonlyArray<SchedulerBase>,
  maps: OpsMaps
): LastExit | undefined => {
  if (schedLayouts(kernel.btf).sched === undefined) {
    return loaded.length === 0 ? exitOfVariable(kernel) : undefined
  }
  const addresses = new Set(loaded.map(({ address }) => address))
  return maps.schedulers.filter((address) => !addresses.has(hex(address))).flatMap((address) => {
    const found = readScheduler(kernel, time, address, false)
    if ("kind" in found) return []
    const [{ exitInfo, name }] = found
    return exitInfo === undefined ? [] : [{ scheduler: name, ...exitInfo }]
  }).at(-1)
}

const programsOf = (callbacks: Callbacks, maps: OpsMaps): Scheduler["programs"] =>
  Object.fromEntries(
    callbacks.flatMap(({ code, name }) => {
      const program = maps.programs.get(code)
      return program === undefined ? [] : [[name, program]]
    })
  )

const readScheduler = (
  kernel: Kernel,
  time: SchedTime,
  address: bigint,
  root: boolean
): Loaded | Reason => {
  const { btf, space } = kernel
  const { sched } = schedLayouts(btf)
  if (sched === undefined || !space.window(kvaPage(address), kvaOffset(address), sched.size)) {
    return unreadable(`the scheduler at ${hex(address)}: ${space.faultText}`)
  }
  const { at, view } = space // until the next look at anything else
  const { exit_kind, flags, name, watchdog_timeout, ...fields } = sched.read(view, at)
  const pointerOf = (path: string): bigint => {
    const offset = sched.at(path)
    return offset === undefined ? 0n : view.getBigUint64(at + offset, true)
  }
  const info = pointerOf("exit_info")
  const pathAt = pointerOf("cgrp_path")
  const ancestorsAt = sched.at("ancestors")
  const level = Number(fields.level ?? 0)
  const parent = ancestorsAt === undefined || level <= 0 || level > 16
    ? undefined
    : space.u64(address + BigInt(ancestorsAt + (level - 1) * 8))
  const path = pathAt === 0n ? undefined : Either.getOrUndefined(new StructReader(space).text(pathAt, 4096))
  const exitInfo = info === 0n ? undefined : readExitInfo(kernel, info)
  const callbacks = callbacksAt(
    kernel,
    address + BigInt(sched.at("ops") ?? 0),
    fields.is_cid_type === true ? "sched_ext_ops_cid" : "sched_ext_ops"
  )
  const scheduler: SchedulerBase = {
    address: hex(address),
    root,
    ...(parent === undefined || parent === 0n ? {} : { parent: hex(parent) }),
    ...(path === undefined ? {} : { cgroup: path }),
    name: name ?? "",
    ...fields,
    flags: opsFlags(btf, flags),
    callbacks: callbacks.map(({ name }) => name),
    ...watchdogOf(kernel, time, watchdog_timeout),
    exit_kind: exitKind(btf, exit_kind),
    ...(exitInfo === undefined ? {} : { exitInfo }),
    events: readEvents(kernel, address)
  }
  return [scheduler, callbacks]
}

/**
 * The counters: members of `struct scx_event_stats`, one s64 each, one struct a CPU: in `scx_sched.pcpu` (v6.17.7),
 * behind `scx_sched.event_stats_cpu` (v6.16), or the variable `event_stats_cpu` (v6.14).
 */
const readEvents = (kernel: Kernel, scheduler: bigint | undefined): ScxEvents | Reason => {
  const { btf, perCpu, perCpuOffsets, space, symbols } = kernel
  const { pcpu, sched } = schedLayouts(btf)
  const type = btf.idsByName("scx_event_stats").map((id) => btf.type(id)).find((type) => type?.kind === "STRUCT")
  if (type?.kind !== "STRUCT") return absent("this kernel counts no events (before v6.14)")
  const inPcpu = sched?.at("pcpu")
  const own = inPcpu ?? sched?.at("event_stats_cpu")
  const base = scheduler === undefined || own === undefined
    ? symbols.address("event_stats_cpu")
    : space.u64(scheduler + BigInt(own))
  if (base === undefined) return absent("the counters are at no place that is known")
  const pointer = inPcpu === undefined ? base : base + BigInt(pcpu?.at("event_stats") ?? 0)
  const total = new Map<string, number>(type.members.map(({ name }) => [name, 0]))
  const cpus: Array<ScxEvents["cpus"][number]> = []
  for (const [cpu, offset] of perCpuOffsets.entries()) {
    if (offset === undefined) continue
    const address = perCpu(pointer, cpu)
    if (address === undefined || !space.window(kvaPage(address), kvaOffset(address), type.size)) {
      return unreadable(
        `the counters of CPU ${cpu}: ${address === undefined ? "not a kernel address" : space.faultText}`
      )
    }
    const events: Record<string, Int> = {}
    for (const { bitOffset, name } of type.members) {
      const value = integerAt(space.view, space.at + bitOffset / 8, 8, true)
      if (value === 0) continue
      events[name] = value
      total.set(name, (total.get(name) ?? 0) + Number(value))
    }
    cpus.push({ cpu, events })
  }
  return { total: Object.fromEntries(total), cpus }
}
