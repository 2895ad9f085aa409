import * as Either from "effect/Either"
import { hex, kvaOffset, kvaPage } from "../core/Address.ts"
import { corrupted, type Reason, unreadable } from "../core/Reason.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { StructReader } from "../memory/structs/StructReader.ts"
import { enumValues } from "./EnumValues.ts"
import { type DOMAIN, DOMAIN_BY_IDLENESS, type DOMAIN_STATS, schedLayouts } from "./SchedLayouts.ts"
import type { Values } from "./StructFields.ts"
import { cpuList } from "./tasks/CpuList.ts"

/** Domains above one another on a CPU; the kernel has as many as its topology has levels. */
const DEPTH_LIMIT = 16
/** Words of flags; `SD_FLAG_CNT` was 14 in v6.1. */
const FLAG_LIMIT = 32

/**
 * A scheduling domain of a CPU, its numbers by the names of `struct sched_domain`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SchedDomain extends Omit<Values<typeof DOMAIN>, "flags"> {
  readonly address: string
  readonly name: string
  /** Without the prefix `SD_`. */
  readonly flags: ReadonlyArray<string>
  /** Its CPUs, as `0-3`. */
  readonly span: string
  /** Counters of load balancing, by kind of idleness (CONFIG_SCHEDSTATS). */
  readonly balance?: { readonly [idleness: string]: { readonly [counter: string]: number } }
  readonly stats?: Values<typeof DOMAIN_STATS>
}

/**
 * A CPU's domains, the smallest first.
 *
 * @since 0.1.0
 * @category models
 */
export interface CpuDomains {
  readonly cpu: number
  readonly domains: ReadonlyArray<SchedDomain>
  readonly problem?: Reason
}

/**
 * Each possible CPU's domains; a CPU alone in its partition has none.
 *
 * @since 0.1.0
 * @category reading
 */
export const readDomains = (kernel: GuestKernelService): ReadonlyArray<CpuDomains> => {
  const { perCpuOffsets, space, symbols } = kernel
  const { domain, rq } = schedLayouts(kernel.btf)
  const queues = symbols.address("runqueues")
  const sdAt = rq?.at("sd")
  if (queues === undefined || sdAt === undefined || domain === undefined) return []
  const flagNames = flagNamesOf(kernel)
  return perCpuOffsets.flatMap((offset, cpu) => {
    if (offset === undefined) return []
    const domains: Array<SchedDomain> = []
    const seen = new Set<bigint>()
    const ended = (problem: Reason): ReadonlyArray<CpuDomains> => [{ cpu, domains, problem }]
    let next = space.u64(BigInt.asUintN(64, queues + offset) + BigInt(sdAt))
    while (next !== undefined && next !== 0n) {
      if (seen.has(next)) return ended(corrupted(`the domain at ${hex(next)} is above itself`))
      if (seen.size === DEPTH_LIMIT) return ended(corrupted(`more than ${DEPTH_LIMIT} domains`))
      seen.add(next)
      const found = readDomain(kernel, next, flagNames)
      if (found === undefined) return ended(unreadable(`the domain at ${hex(next)}: ${space.faultText}`))
      domains.push(found)
      const parentAt: number | undefined = domain.at("parent")
      next = parentAt === undefined ? 0n : space.u64(next + BigInt(parentAt))
    }
    return next === undefined ? ended(unreadable(space.faultText)) : [{ cpu, domains }]
  })
}

const readDomain = (
  kernel: GuestKernelService,
  address: bigint,
  flagNames: ReadonlyArray<string>
): SchedDomain | undefined => {
  const { btf, space, symbols } = kernel
  const { domain, domainStats } = schedLayouts(btf)
  if (domain === undefined) return undefined
  // The mask of CPUs follows the struct; since v7.0 it is not a member any more.
  const spanAt = domain.at("span") ?? domain.size
  const ids = symbols.address("nr_cpu_ids")
  const cpus = Math.min(Math.max(ids === undefined ? 64 : space.u32(ids), 1), 8192)
  const maskBytes = Math.ceil(cpus / 64) * 8
  if (!space.window(kvaPage(address), kvaOffset(address), Math.max(domain.size, spanAt + maskBytes))) return undefined
  const { at, view } = space // until the next look at anything else
  const { flags, ...fields } = domain.read(view, at)
  const span = cpuList(view, at + spanAt, cpus)
  const nameAt = domain.at("name")
  const namePointer = nameAt === undefined ? 0n : view.getBigUint64(at + nameAt, true)
  const stats = domainStats?.read(view, at)
  const balance = balanceOf(kernel, view, at)
  const name = namePointer === 0n ? undefined : Either.getOrUndefined(new StructReader(space).text(namePointer, 32))
  const bits = Number(flags ?? 0)
  return {
    address: hex(address),
    name: name ?? "",
    ...fields,
    flags: Array.from({ length: FLAG_LIMIT }, (_, bit) => bit).filter((bit) => (bits >>> bit & 1) !== 0)
      .map((bit) => flagNames[bit] ?? `0x${(2 ** bit).toString(16)}`),
    span,
    ...(balance === undefined ? {} : { balance }),
    ...(stats === undefined || Object.keys(stats).length === 0 ? {} : { stats })
  }
}

const balanceOf = ({ btf }: GuestKernelService, view: DataView, at: number): SchedDomain["balance"] => {
  const { domain } = schedLayouts(btf)
  if (domain?.at("lb_count") === undefined) return undefined
  const kinds = [...enumValues(btf, "cpu_idle_type")].filter(([, name]) => name !== "CPU_MAX_IDLE_TYPES")
  return Object.fromEntries(kinds.map(([index, name]) => [
    name.replace(/^_*CPU_/, "").toLowerCase(),
    Object.fromEntries(DOMAIN_BY_IDLENESS.flatMap((counter) => {
      const start = domain.at(counter)
      const fits = (Number(index) + 1) * 4 <= (domain.sizeOf(counter) ?? 0)
      return start === undefined || !fits ? [] : [[counter, view.getUint32(at + start + Number(index) * 4, true)]]
    }))
  ]))
}

/** By bit: the kernel's own table `sd_flag_debug`, CONFIG_SCHED_DEBUG; kernel/sched/topology.c, v6.1 to v7.3. */
const flagNamesOf = ({ btf, space, symbols }: GuestKernelService): ReadonlyArray<string> => {
  const { flagDebug } = schedLayouts(btf)
  const table = symbols.address("sd_flag_debug")
  const nameAt = flagDebug?.at("name")
  if (table === undefined || flagDebug === undefined || nameAt === undefined) return []
  const reader = new StructReader(space)
  const names: Array<string> = []
  for (let bit = 0; bit < FLAG_LIMIT; bit++) {
    const pointer = space.u64(table + BigInt(bit * flagDebug.size + nameAt))
    const name = pointer === undefined || pointer === 0n ? undefined : Either.getOrUndefined(reader.text(pointer, 64))
    if (name === undefined || !/^SD_[A-Z_]+$/.test(name)) break
    names.push(name.slice(3))
  }
  return names
}
