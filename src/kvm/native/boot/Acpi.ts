import type { RamRange } from "../../spec/MemoryLayout.ts"
import { apicIds, type Topology } from "../../spec/Topology.ts"
import { PM_PORT, RESET_PORT, S5_TYPE } from "../abi/AcpiPorts.ts"
import { acpiTable, checksum, u32 } from "./AcpiTable.ts"
import { hmat } from "./Hmat.ts"
import { slit, srat } from "./Srat.ts"

const RESET_VALUE = 0x06

/** Guest-physical address of the root pointer: kernels look for it in the BIOS area, on 16 bytes. */
export const RSDP = 0xe0000
/** The tables follow it and stay below 1 MiB. */
const TABLES = 0xe0040
const LIMIT = 0x100000

const LOCAL_APIC = 0xfee00000
const IO_APIC = 0xfec00000
/** The interrupt of ACPI's own events, of which there are none here. */
const SCI = 9

const text = new TextEncoder()

/**
 * ACPI tables of a machine with RAM at `ram`: RSDP, XSDT, FADT with power-off and reset, MADT, SRAT, SLIT, HMAT, and a
 * DSDT that holds the sleep state S5. A Debian kernel finds its CPUs and I/O APIC here alone. They are written at `RSDP`.
 * @see ACPI Specification 6.5: 5.2.5 RSDP, 5.2.8 XSDT, 5.2.9 FADT, 5.2.12 MADT, 7.4.2 \_S5
 */
export const acpiTables = (topology: Topology, ram: ReadonlyArray<RamRange>): Uint8Array => {
  const out = new Uint8Array(LIMIT - RSDP)
  const view = new DataView(out.buffer)
  let next = TABLES - RSDP
  const place = (table: Uint8Array): number => {
    const at = next
    if (at + table.length > out.length) {
      throw new RangeError(`${topology.cpus} CPUs need more ACPI tables than there is room for`)
    }
    out.set(table, at)
    next = Math.ceil((at + table.length) / 16) * 16
    return RSDP + at
  }
  const dsdtAt = place(acpiTable("DSDT", 2, dsdt))
  const tables = [
    acpiTable("FACP", 6, fadt(dsdtAt)),
    madt(topology),
    srat(topology, ram),
    slit(topology),
    hmat(topology)
  ].map(place)
  const xsdtAt = place(acpiTable("XSDT", 1, new Uint8Array(BigUint64Array.from(tables, BigInt).buffer)))

  out.set(text.encode("RSD PTR "), 0)
  out.set(text.encode("KTSTR "), 9)
  out[15] = 2 // revision
  view.setUint32(20, 36, true) // length
  view.setBigUint64(24, BigInt(xsdtAt), true)
  out[8] = checksum(out.subarray(0, 20))
  out[32] = checksum(out.subarray(0, 36))
  return out.subarray(0, next)
}

/** Multiple APIC Description Table. @see ACPI Specification 6.5, 5.2.12 */
export const madt = (topology: Topology): Uint8Array => {
  const bytes: Array<number> = [...u32(LOCAL_APIC), ...u32(1)] // PCAT_COMPAT: there are PICs too
  apicIds(topology).forEach((id, cpu) => bytes.push(0, 8, cpu, id, ...u32(1))) // local APIC, enabled
  bytes.push(1, 12, 0, 0, ...u32(IO_APIC), ...u32(0)) // I/O APIC 0, its inputs from 0 on: KVM routes ISA IRQ n to n
  bytes.push(2, 10, 0, SCI, ...u32(SCI), 0xd, 0) // the SCI is active high and level-triggered
  bytes.push(4, 6, 0xff, 0, 0, 1) // LINT1 of all CPUs is the NMI
  return acpiTable("APIC", 5, Uint8Array.from(bytes))
}

/** Offsets are from the table's start. */
const fadt = (dsdtAt: number): Uint8Array => {
  const bytes = new Uint8Array(276)
  const view = new DataView(bytes.buffer)
  view.setUint32(40, dsdtAt, true)
  view.setUint16(46, SCI, true)
  // no SMI command: the machine is in ACPI mode from the start
  view.setUint32(56, PM_PORT, true) // PM1a_EVT_BLK
  view.setUint32(64, PM_PORT + 4, true) // PM1a_CNT_BLK
  bytes[88] = 4 // PM1_EVT_LEN
  bytes[89] = 2 // PM1_CNT_LEN
  view.setUint16(96, 0xffff, true) // no C2
  view.setUint16(98, 0xffff, true) // no C3
  view.setUint16(109, (1 << 0) | (1 << 2) | (1 << 5), true) // legacy devices, no VGA, no CMOS clock; no 8042 either
  view.setUint32(112, (1 << 0) | (1 << 4) | (1 << 5) | (1 << 10), true) // WBINVD, no power nor sleep button, reset register
  bytes.set([1, 8, 0, 1], 116) // RESET_REG: system I/O, 8 bits, byte access …
  view.setBigUint64(120, BigInt(RESET_PORT), true)
  bytes[128] = RESET_VALUE
  view.setBigUint64(140, BigInt(dsdtAt), true) // X_DSDT
  bytes.set([1, 32, 0, 2], 148) // X_PM1a_EVT_BLK
  view.setBigUint64(152, BigInt(PM_PORT), true)
  bytes.set([1, 16, 0, 2], 172) // X_PM1a_CNT_BLK
  view.setBigUint64(176, BigInt(PM_PORT + 4), true)
  return bytes.subarray(36)
}

/** `Name (\_S5, Package () { S5_TYPE, S5_TYPE, 0, 0 })` */
const dsdt = Uint8Array.from([
  0x08,
  ...text.encode("\\_S5_"),
  0x12,
  0x08,
  0x04,
  0x0a,
  S5_TYPE,
  0x0a,
  S5_TYPE,
  0x00,
  0x00
])
