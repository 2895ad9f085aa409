import { memoryAccess, packagesOf, type Topology } from "../../spec/Topology.ts"
import { acpiTable, u16, u32, u64 } from "./AcpiTable.ts"

const ACCESS_LATENCY = 0
const ACCESS_BANDWIDTH = 3
const PROCESSOR_VALID = 1
/** Latencies are in picoseconds from revision 2 on. */
const PICOSECONDS = 1000
const associativities = { none: 0, direct: 1, complex: 2 } as const
const writePolicies = { none: 0, "write-back": 1, "write-through": 2 } as const

/**
 * Heterogeneous Memory Attribute Table: for each node's memory, the nearest CPUs, how long the way from all CPUs takes
 * and how much it carries, and the cache before it.
 * @see ACPI Specification 6.5, 5.2.28; include/acpi/actbl1.h `struct acpi_table_hmat`, v6.12
 */
export const hmat = (topology: Topology): Uint8Array => {
  const { bandwidthMibs, latencyNs, unit } = memoryAccess(topology)
  return acpiTable(
    "HMAT",
    2,
    Uint8Array.from([
      ...u32(0),
      ...topology.nodes.flatMap(({ nearest }, node) => [
        ...head(0, 40),
        ...u16(PROCESSOR_VALID),
        ...u16(0),
        ...u32(nearest),
        ...u32(node),
        ...u32(0),
        ...u64(0),
        ...u64(0)
      ]),
      ...locality(topology, ACCESS_LATENCY, PICOSECONDS, latencyNs),
      ...locality(topology, ACCESS_BANDWIDTH, unit, bandwidthMibs.map((row) => row.map((each) => each / unit))),
      ...topology.nodes.flatMap(({ cache }, node) =>
        cache === undefined ? [] : [
          ...head(2, 32),
          ...u32(node),
          ...u32(0),
          ...u64(cache.bytes),
          // one level in all, and this is it
          ...u16(1 | (1 << 4) | (associativities[cache.associativity] << 8) | (writePolicies[cache.writePolicy] << 12)),
          ...u16(cache.lineBytes),
          ...u16(0),
          ...u16(0)
        ]
      )
    ])
  )
}

const locality = (
  topology: Topology,
  kind: number,
  unit: number,
  entries: ReadonlyArray<ReadonlyArray<number>>
): ReadonlyArray<number> => {
  const initiators = Array.from({ length: packagesOf(topology) }, (_, node) => node)
  const targets = topology.nodes.map((_, node) => node)
  const body = [
    0, // of memory, not of a cache before it
    kind,
    ...u16(0),
    ...u32(initiators.length),
    ...u32(targets.length),
    ...u32(0),
    ...u64(unit),
    ...[...initiators, ...targets].flatMap(u32),
    ...entries.flat().flatMap(u16)
  ]
  return [...head(1, 8 + body.length), ...body]
}

const head = (type: number, length: number): ReadonlyArray<number> => [...u16(type), ...u16(0), ...u32(length)]
