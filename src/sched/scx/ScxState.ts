import * as Either from "effect/Either"
import type { Btf } from "../../btf/Btf.ts"
import { hex, kvaOffset, kvaPage } from "../../core/Address.ts"
import { absent, type Reason, unreadable, within } from "../../core/Reason.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { listNodes } from "../../memory/structs/ListHead.ts"
import { StructReader } from "../../memory/structs/StructReader.ts"
import { enumValues, flagNames } from "../EnumValues.ts"
import { schedLayouts } from "../SchedLayouts.ts"
import { millisSince, type SchedTime } from "../SchedTime.ts"
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
 * A loaded scheduler: the root, or with CONFIG_EXT_SUB_SCHED one of those below it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Scheduler {
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
  /** By callback the BPF program that implements it. */
  readonly programs: { readonly [callback: string]: OpsProgram }
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
  /** `NONE` while it runs. */
  readonly exit_kind: string
  readonly exitInfo?: ExitInfo
  readonly events: ScxEvents | Reason
}

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
 * sched_ext as a whole.
 *
 * @since 0.1.0
 * @category models
 */
export interface ScxState {
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
  readonly schedulers: ReadonlyArray<Scheduler>
  /** The last exit where no scheduler is loaded any more, but its record is still there: its loader holds it. */
  readonly lastExit?: LastExit
  readonly problems: ReadonlyArray<Reason>
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
  const { btf, symbols } = kernel
  if (symbols.address("ext_sched_class") === undefined) {
    return absent("this kernel was built without CONFIG_SCHED_CLASS_EXT")
  }
  const problems: Array<Reason> = []
  const number = word(kernel, ["scx_enable_state_var", "scx_ops_enable_state_var"], 4)
  const timestamp = word(kernel, ["scx_watchdog_timestamp"], 8)
  const maps = readOpsMaps(kernel)
  const { lastExit, schedulers } = schedLayouts(btf).sched === undefined
    ? schedulerOfVariables(kernel, time, maps)
    : schedulersOfRoot(kernel, time, maps, problems)
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
      aborting: truth(word(kernel, ["scx_aborting"], 1)),
      lastExit
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

interface Found {
  readonly schedulers: ReadonlyArray<Scheduler>
  readonly lastExit: LastExit | undefined
}

/** v6.12 to v6.15: one scheduler at most, in variables. */
const schedulerOfVariables = (kernel: Kernel, time: SchedTime, maps: OpsMaps): Found => {
  const { btf, space, symbols } = kernel
  const address = symbols.address("scx_ops")
  const { ops } = schedLayouts(btf)
  const info = symbols.address("scx_exit_info")
  const pointer = info === undefined ? undefined : space.u64(info)
  const exit = pointer === undefined || pointer === 0n ? undefined : readExitInfo(kernel, pointer)
  if (address === undefined || ops === undefined || !space.window(kvaPage(address), kvaOffset(address), ops.size)) {
    return { schedulers: [], lastExit: exit }
  }
  const { name, ...fields } = ops.read(space.view, space.at)
  if (name === undefined || name === "") return { schedulers: [], lastExit: exit } // zeroed when it is gone
  const kind = word(kernel, ["scx_exit_kind"], 4)
  const scheduler: Scheduler = {
    address: hex(address),
    root: true,
    name,
    ...fields,
    flags: opsFlags(btf, fields.flags),
    ...callbacksOf(kernel, address, "sched_ext_ops", maps),
    ...watchdogOf(kernel, time, undefined),
    exit_kind: exitKind(btf, kind),
    ...(exit === undefined ? {} : { exitInfo: exit }),
    events: readEvents(kernel, undefined)
  }
  return { schedulers: [scheduler], lastExit: undefined }
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
  return jiffies === undefined || hz === null ? {} : { watchdogMillis: Number(jiffies) * 1000 / hz }
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
  maps: OpsMaps,
  problems: Array<Reason>
): Found => {
  const loaded = schedulerAddresses(kernel, problems)
  const schedulers = loaded.flatMap((address, index) => {
    const found = readScheduler(kernel, time, address, index === 0, maps)
    if (!("kind" in found)) return [found]
    problems.push(found)
    return []
  })
  const gone = maps.schedulers.filter((address) => !loaded.includes(address)).map((address) =>
    readScheduler(kernel, time, address, false, maps)
  )
  const last = gone.findLast((each) => !("kind" in each) && each.exitInfo !== undefined)
  return {
    schedulers,
    lastExit: last === undefined || "kind" in last || last.exitInfo === undefined
      ? undefined
      : { scheduler: last.name, ...last.exitInfo }
  }
}

const callbacksOf = (kernel: Kernel, address: bigint, struct: "sched_ext_ops" | "sched_ext_ops_cid", maps: OpsMaps) => {
  const found = callbacksAt(kernel, address, struct)
  return {
    callbacks: found.map(({ name }) => name),
    programs: Object.fromEntries(found.flatMap(({ code, name }) => {
      const program = maps.programs.get(code)
      return program === undefined ? [] : [[name, program]]
    }))
  }
}

const readScheduler = (
  kernel: Kernel,
  time: SchedTime,
  address: bigint,
  root: boolean,
  maps: OpsMaps
): Scheduler | Reason => {
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
  return {
    address: hex(address),
    root,
    ...(parent === undefined || parent === 0n ? {} : { parent: hex(parent) }),
    ...(path === undefined ? {} : { cgroup: path }),
    name: name ?? "",
    ...fields,
    flags: opsFlags(btf, flags),
    ...callbacksOf(
      kernel,
      address + BigInt(sched.at("ops") ?? 0),
      fields.is_cid_type === true ? "sched_ext_ops_cid" : "sched_ext_ops",
      maps
    ),
    ...watchdogOf(kernel, time, watchdog_timeout),
    exit_kind: exitKind(btf, exit_kind),
    ...(exitInfo === undefined || exitInfo.kind === "NONE" ? {} : { exitInfo }),
    events: readEvents(kernel, address)
  }
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
