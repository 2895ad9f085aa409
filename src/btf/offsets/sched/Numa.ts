import { enumeration } from "../../Enumeration.ts"
import { layout } from "../../Layout.ts"
import { checkArrays, offsetGroup } from "../../OffsetGroup.ts"

/**
 * A node's allocation counters: for each of the first `nr_zones` zones of `node.node_zones`, `zone.vm_numa_event` (an
 * array of atomic_long_t) plus what each CPU has not added to it yet, `perCpu.vm_numa_event` (of unsigned long) behind
 * the `__percpu` pointer `zone.per_cpu_zonestats`. `counters` indexes both. Nodes: the symbol `node_data`, an array of
 * pointers.
 * @see include/linux/mmzone.h `struct pglist_data`, `struct zone`, `struct per_cpu_zonestat`; v5.14 to v7.3,
 * CONFIG_NUMA
 */
export const numaOffsets = offsetGroup("numa", "each node's allocation counters (CONFIG_NUMA)", function*(btf) {
  const counters = yield* enumeration(btf, "numa_stat_item", [
    "NUMA_HIT",
    "NUMA_MISS",
    "NUMA_FOREIGN",
    "NUMA_INTERLEAVE_HIT",
    "NUMA_LOCAL",
    "NUMA_OTHER"
  ])
  const count = Math.max(...Object.values(counters.valueOf)) + 1
  const zone = yield* layout(btf, "zone", ["per_cpu_zonestats", "vm_numa_event"])
  yield* checkArrays(zone, ["vm_numa_event"], count, 8)
  const perCpu = yield* layout(btf, "per_cpu_zonestat", ["vm_numa_event"])
  yield* checkArrays(perCpu, ["vm_numa_event"], count, 8)
  const node = yield* layout(btf, "pglist_data", ["node_id", "nr_zones", "node_zones"])
  yield* checkArrays(node, ["node_zones"], 1, zone.size)
  return { node, zone, perCpu, counters }
})
