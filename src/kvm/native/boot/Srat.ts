import type { RamRange } from "../../spec/MemoryLayout.ts"
import { apicIds, type Topology } from "../../spec/Topology.ts"
import { acpiTable, u16, u32, u64 } from "./AcpiTable.ts"

const MIB = 2 ** 20
const ENABLED = 1

/** Guest-physical memory of one node. */
export interface NodeRange {
  readonly node: number
  readonly start: number
  readonly length: number
}

/** Where each node's memory is: one node's after the other's, `ram` in its order; in two pieces around a hole. */
export const nodeRanges = (topology: Topology, ram: ReadonlyArray<RamRange>): ReadonlyArray<NodeRange> => {
  let begin = 0
  return topology.nodes.flatMap(({ mib }, node) => {
    const end = begin + mib * MIB
    const pieces = ram.flatMap(({ length, offset, start }) => {
      const first = Math.max(begin, offset)
      const last = Math.min(end, offset + length)
      return first < last ? [{ node, start: start + first - offset, length: last - first }] : []
    })
    begin = end
    return pieces
  })
}

/**
 * System Resource Affinity Table: which node each CPU and each piece of memory belongs to.
 * @see ACPI Specification 6.5, 5.2.16; include/acpi/actbl3.h `struct acpi_table_srat`, v6.12
 */
export const srat = (topology: Topology, ram: ReadonlyArray<RamRange>): Uint8Array => {
  const ids = apicIds(topology)
  const bytes: Array<number> = [...u32(1), ...u64(0)]
  topology.nodes.forEach(({ cpus }, node) =>
    cpus.forEach((cpu) => {
      // processor local APIC affinity; the domain's other bits, like the clock's domain, are 0
      bytes.push(0, 16, node, ids[cpu], ...u32(ENABLED), ...u32(0), ...u32(0))
    })
  )
  for (const { length, node, start } of nodeRanges(topology, ram)) {
    bytes.push(1, 40, ...u32(node), ...u16(0), ...u64(start), ...u64(length), ...u32(0), ...u32(ENABLED), ...u64(0))
  }
  return acpiTable("SRAT", 3, Uint8Array.from(bytes))
}

/** System Locality Distance Information Table. @see ACPI Specification 6.5, 5.2.17 */
export const slit = ({ distances }: Topology): Uint8Array =>
  acpiTable("SLIT", 1, Uint8Array.from([...u64(distances.length), ...distances.flat()]))
