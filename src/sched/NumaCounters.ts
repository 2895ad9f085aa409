import { kvaOffset, kvaPage } from "../core/Address.ts"
import { absent, type Reason, unreadable } from "../core/Reason.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { enumValues } from "./EnumValues.ts"
import { schedLayouts } from "./SchedLayouts.ts"
import { integerAt } from "./StructFields.ts"

/** Nodes and zones that are believed: MAX_NUMNODES is 1024, MAX_NR_ZONES 6 at most. */
const MAX_NODES = 1024
const MAX_ZONES = 8

/**
 * A node's allocation counters, by `enum numa_stat_item` without its prefix, in lower case: `hit`, `interleave_hit`.
 *
 * @since 0.1.0
 * @category models
 */
export interface NumaCounters {
  readonly node: number
  readonly counters: { readonly [counter: string]: number }
}

/**
 * The counters of `/sys/devices/system/node/nodeN/numastat`: each zone's own, and those that each CPU has not added
 * to them yet.
 * @see include/linux/mmzone.h `struct zone`, `struct per_cpu_zonestat`; mm/vmstat.c `fold_vm_numa_events`; v6.1 to v7.3
 * @since 0.1.0
 * @category reading
 */
export const readNumaCounters = (kernel: GuestKernelService): ReadonlyArray<NumaCounters> | Reason => {
  const { btf, perCpu, perCpuOffsets, space, symbols } = kernel
  const { pglist, zone, zoneStat } = schedLayouts(btf)
  const table = symbols.address("node_data")
  const names = [...enumValues(btf, "numa_stat_item")].filter(([, name]) => name.startsWith("NUMA_"))
  const zonesAt = pglist?.at("node_zones")
  const eventsAt = zone?.at("vm_numa_event")
  const statsAt = zone?.at("per_cpu_zonestats")
  const statEventsAt = zoneStat?.at("vm_numa_event")
  if (
    table === undefined || pglist === undefined || zone === undefined || zonesAt === undefined || eventsAt === undefined
    || statsAt === undefined || statEventsAt === undefined
  ) {
    return absent("this kernel was built without CONFIG_NUMA")
  }
  const ids = symbols.address("nr_node_ids")
  const count = Math.min(Math.max(ids === undefined ? 1 : space.u32(ids), 1), MAX_NODES)
  const nodes: Array<NumaCounters> = []
  for (let node = 0; node < count; node++) {
    const data = space.u64(table + BigInt(node * 8))
    if (data === undefined) return unreadable(`node_data: ${space.faultText}`)
    if (data === 0n) continue
    if (!space.window(kvaPage(data), kvaOffset(data), pglist.size)) {
      return unreadable(`node ${node}: ${space.faultText}`)
    }
    const zones = Math.min(Number(pglist.read(space.view, space.at).nr_zones ?? 0), MAX_ZONES)
    const sums = new Map<string, number>(names.map(([, name]) => [counterName(name), 0]))
    for (let index = 0; index < zones; index++) {
      const address = data + BigInt(zonesAt + index * zone.size)
      if (!space.window(kvaPage(address), kvaOffset(address), zone.size)) {
        return unreadable(`node ${node}: ${space.faultText}`)
      }
      const { at, view } = space
      if (zone.read(view, at).present_pages === 0) continue
      const pointer = view.getBigUint64(at + statsAt, true)
      const add = (from: DataView, start: number) => {
        for (const [item, name] of names) {
          const value = Number(integerAt(from, start + Number(item) * 8, 8, false))
          sums.set(counterName(name), (sums.get(counterName(name)) ?? 0) + value)
        }
      }
      if (names.some(([item]) => (Number(item) + 1) * 8 > (zone.sizeOf("vm_numa_event") ?? 0))) continue
      add(view, at + eventsAt)
      for (const [cpu, offset] of perCpuOffsets.entries()) {
        const copy = offset === undefined ? undefined : perCpu(pointer + BigInt(statEventsAt), cpu)
        if (copy === undefined || !space.window(kvaPage(copy), kvaOffset(copy), names.length * 8)) continue
        add(space.view, space.at)
      }
    }
    nodes.push({ node, counters: Object.fromEntries(sums) })
  }
  return nodes
}

const counterName = (name: string): string => name.replace(/^NUMA_/, "").toLowerCase()
