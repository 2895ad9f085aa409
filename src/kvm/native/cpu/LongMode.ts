import type { GuestMemory } from "../../../memory/GuestMemory.ts"
import { Request, Struct } from "../abi/KvmAbi.ts"
import { succeeded } from "../abi/KvmError.ts"
import type { KvmNative } from "../abi/KvmNative.ts"
import { setGeneral } from "./Registers.ts"

/** Guest-physical addresses of what a vCPU starts with, all in the first 640 KiB. */
const place = { gdt: 0x500, stackTop: 0x8ff0, pageTables: 0x9000, afterPageTables: 0xf000 } as const

const PRESENT_WRITABLE = 3
const LARGE = 0x80
const TABLE = 4096
const LARGE_PAGE = 2 ** 21

// arch/x86/include/asm/segment.h `__BOOT_CS`, `__BOOT_DS`, v6.12; Documentation/arch/x86/boot.rst wants these selectors
const CODE = 0x10
const DATA = 0x18
/** Null, unused, flat 64-bit code, flat data. */
const gdt = [0n, 0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn]

/** CR0.PE, CR0.ET, CR0.NE, CR0.WP, CR0.PG */
const CR0 = 0x80010031n
const CR4_PAE = 0x20n
/** EFER.LME, EFER.LMA */
const EFER = 0x500n

/** Write tables that map the first 4 GiB to themselves with pages of 2 MiB, and the GDT. False where there is no RAM. */
export const writeLongMode = (memory: GuestMemory): boolean => {
  const tables = new DataView(new ArrayBuffer(6 * TABLE))
  const entry = (table: number, index: number, value: number) =>
    tables.setBigUint64(table * TABLE + index * 8, BigInt(value), true)
  entry(0, 0, (place.pageTables + TABLE) | PRESENT_WRITABLE)
  for (let gib = 0; gib < 4; gib++) {
    entry(1, gib, (place.pageTables + (2 + gib) * TABLE) | PRESENT_WRITABLE)
    for (let page = 0; page < 512; page++) {
      entry(2 + gib, page, (gib * 512 + page) * LARGE_PAGE + LARGE + PRESENT_WRITABLE)
    }
  }
  return memory.write(place.pageTables, new Uint8Array(tables.buffer)) &&
    memory.write(place.gdt, new Uint8Array(BigUint64Array.from(gdt).buffer))
}

/**
 * Put a vCPU into 64-bit mode over those tables, interrupts off, at `rip` with `rsi`; CPUID is set before, or a real KVM
 * refuses EFER.LME.
 * @throws KvmError
 */
export const enterLongMode = (native: KvmNative, vcpu: number, rip: number, rsi: number): void => {
  const sregs = new DataView(new ArrayBuffer(Struct.kvm_sregs.size))
  succeeded("KVM_GET_SREGS", native.ioctl(vcpu, Request.KVM_GET_SREGS, new Uint8Array(sregs.buffer)))
  const at = Struct.kvm_sregs.fields
  for (const start of [at.cs, at.ds, at.es, at.fs, at.gs, at.ss]) {
    const code = start === at.cs
    const segment = Struct.kvm_segment.fields
    sregs.setBigUint64(start + segment.base, 0n, true)
    sregs.setUint32(start + segment.limit, 0xffffffff, true)
    sregs.setUint16(start + segment.selector, code ? CODE : DATA, true)
    sregs.setUint8(start + segment.type, code ? 0xb : 3)
    sregs.setUint8(start + segment.present, 1)
    sregs.setUint8(start + segment.dpl, 0)
    sregs.setUint8(start + segment.db, code ? 0 : 1)
    sregs.setUint8(start + segment.s, 1)
    sregs.setUint8(start + segment.l, code ? 1 : 0)
    sregs.setUint8(start + segment.g, 1)
  }
  sregs.setBigUint64(at.gdt + Struct.kvm_dtable.fields.base, BigInt(place.gdt), true)
  sregs.setUint16(at.gdt + Struct.kvm_dtable.fields.limit, gdt.length * 8 - 1, true)
  sregs.setBigUint64(at.cr0, CR0, true)
  sregs.setBigUint64(at.cr3, BigInt(place.pageTables), true)
  sregs.setBigUint64(at.cr4, CR4_PAE, true)
  sregs.setBigUint64(at.efer, EFER, true)
  succeeded("KVM_SET_SREGS", native.ioctl(vcpu, Request.KVM_SET_SREGS, new Uint8Array(sregs.buffer)))
  setGeneral(native, vcpu, { rip: BigInt(rip), rsi: BigInt(rsi), rsp: BigInt(place.stackTop) })
}
