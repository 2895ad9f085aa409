import {
  controlNames,
  generalNames,
  type GeneralRegister,
  Msr,
  type MsrName,
  type Segment,
  segmentNames,
  type VcpuRegisters
} from "../../spec/VcpuRegisters.ts"
import { Request, Struct } from "../abi/KvmAbi.ts"
import { succeeded } from "../abi/KvmError.ts"
import type { KvmNative } from "../abi/KvmNative.ts"

/** Read all of them; the vCPU must be outside KVM_RUN, or this waits for it. @throws KvmError */
export const readRegisters = (native: KvmNative, vcpu: number): VcpuRegisters => {
  const regs = new DataView(new ArrayBuffer(Struct.kvm_regs.size))
  succeeded("KVM_GET_REGS", native.ioctl(vcpu, Request.KVM_GET_REGS, new Uint8Array(regs.buffer)))
  const sregs = new DataView(new ArrayBuffer(Struct.kvm_sregs.size))
  succeeded("KVM_GET_SREGS", native.ioctl(vcpu, Request.KVM_GET_SREGS, new Uint8Array(sregs.buffer)))
  const table = (at: number) => ({
    base: sregs.getBigUint64(at + Struct.kvm_dtable.fields.base, true),
    limit: sregs.getUint16(at + Struct.kvm_dtable.fields.limit, true)
  })
  const at = Struct.kvm_sregs.fields
  return {
    general: record(generalNames, (name) => regs.getBigUint64(Struct.kvm_regs.fields[name], true)),
    segments: record(segmentNames, (name) => readSegment(sregs, at[name])),
    gdt: table(at.gdt),
    idt: table(at.idt),
    control: record(controlNames, (name) => sregs.getBigUint64(at[name], true)),
    msrs: readMsrs(native, vcpu)
  }
}

/** Set some of the general registers; the others become 0, `rflags` its fixed bit. @throws KvmError */
export const setGeneral = (
  native: KvmNative,
  vcpu: number,
  values: Partial<Readonly<Record<GeneralRegister, bigint>>>
): void => {
  const regs = new DataView(new ArrayBuffer(Struct.kvm_regs.size))
  for (const name of generalNames) {
    regs.setBigUint64(Struct.kvm_regs.fields[name], values[name] ?? (name === "rflags" ? 2n : 0n), true)
  }
  succeeded("KVM_SET_REGS", native.ioctl(vcpu, Request.KVM_SET_REGS, new Uint8Array(regs.buffer)))
}

/** Set MSRs. @throws KvmError, also where the vCPU does not know one (EINVAL) */
export const setMsrs = (
  native: KvmNative,
  vcpu: number,
  values: Partial<Readonly<Record<MsrName, bigint>>>
): void => {
  for (const name of msrNames) {
    const value = values[name]
    if (value === undefined) continue
    const done = native.ioctl(vcpu, Request.KVM_SET_MSRS, oneMsr(Msr[name], value))
    // the result counts the MSRs that were set
    succeeded("KVM_SET_MSRS", done === 0 ? -22 : done)
  }
}

/** The FPU as FNINIT leaves it, all exceptions masked. @throws KvmError */
export const setFpu = (native: KvmNative, vcpu: number): void => {
  const fpu = new DataView(new ArrayBuffer(Struct.kvm_fpu.size))
  fpu.setUint16(Struct.kvm_fpu.fields.fcw, 0x37f, true)
  fpu.setUint32(Struct.kvm_fpu.fields.mxcsr, 0x1f80, true)
  succeeded("KVM_SET_FPU", native.ioctl(vcpu, Request.KVM_SET_FPU, new Uint8Array(fpu.buffer)))
}

const msrNames = Object.keys(Msr) as ReadonlyArray<MsrName>

const record = <K extends string, A>(names: ReadonlyArray<K>, value: (name: K) => A): Record<K, A> =>
  Object.fromEntries(names.map((name) => [name, value(name)])) as Record<K, A>

const readSegment = (view: DataView, start: number): Segment => {
  const at = Struct.kvm_segment.fields
  const byte = (offset: number) => view.getUint8(start + offset)
  return {
    base: view.getBigUint64(start + at.base, true),
    limit: view.getUint32(start + at.limit, true),
    selector: view.getUint16(start + at.selector, true),
    type: byte(at.type),
    present: byte(at.present),
    dpl: byte(at.dpl),
    db: byte(at.db),
    s: byte(at.s),
    l: byte(at.l),
    g: byte(at.g),
    avl: byte(at.avl)
  }
}

const oneMsr = (index: number, value: bigint): Uint8Array => {
  const msrs = new DataView(new ArrayBuffer(Struct.kvm_msrs.size + Struct.kvm_msr_entry.size))
  msrs.setUint32(Struct.kvm_msrs.fields.nmsrs, 1, true)
  msrs.setUint32(Struct.kvm_msrs.fields.entries + Struct.kvm_msr_entry.fields.index, index, true)
  msrs.setBigUint64(Struct.kvm_msrs.fields.entries + Struct.kvm_msr_entry.fields.data, value, true)
  return new Uint8Array(msrs.buffer)
}

/** One call each: KVM stops at the first that the vCPU does not have and says how many it read. */
const readMsrs = (native: KvmNative, vcpu: number): Partial<Record<MsrName, bigint>> => {
  const values: Partial<Record<MsrName, bigint>> = {}
  for (const name of msrNames) {
    const msrs = oneMsr(Msr[name], 0n)
    if (succeeded("KVM_GET_MSRS", native.ioctl(vcpu, Request.KVM_GET_MSRS, msrs)) !== 1) continue
    const at = Struct.kvm_msrs.fields.entries + Struct.kvm_msr_entry.fields.data
    values[name] = new DataView(msrs.buffer).getBigUint64(at, true)
  }
  return values
}
