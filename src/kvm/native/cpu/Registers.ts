import { hex } from "../../../core/Address.ts"
import { Request, Struct } from "../abi/KvmAbi.ts"
import { succeeded } from "../abi/KvmError.ts"
import type { KvmNative } from "../abi/KvmNative.ts"

/** A segment register with its hidden part; `limit` in bytes as the CPU holds it, `type` the descriptor's 4 bits. */
export interface Segment {
  readonly base: bigint
  readonly limit: number
  readonly selector: number
  readonly type: number
  readonly present: number
  readonly dpl: number
  readonly db: number
  readonly s: number
  readonly l: number
  readonly g: number
  readonly avl: number
}

/** `rax` … `r15`, `rip`, `rflags`. */
export type GeneralRegister = keyof typeof Struct.kvm_regs.fields
const segmentNames = ["cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"] as const
export type SegmentRegister = typeof segmentNames[number]
const controlNames = ["cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base"] as const
export type ControlRegister = typeof controlNames[number]

/**
 * Model-specific registers that say where a kernel is and how it is entered.
 * @see arch/x86/include/asm/msr-index.h, arch/x86/include/uapi/asm/kvm_para.h, v6.12
 */
export const Msr = {
  IA32_TSC: 0x10,
  IA32_SYSENTER_CS: 0x174,
  IA32_SYSENTER_ESP: 0x175,
  IA32_SYSENTER_EIP: 0x176,
  IA32_MISC_ENABLE: 0x1a0,
  IA32_CR_PAT: 0x277,
  MTRRdefType: 0x2ff,
  IA32_TSC_DEADLINE: 0x6e0,
  KVM_WALL_CLOCK_NEW: 0x4b564d00,
  KVM_SYSTEM_TIME_NEW: 0x4b564d01,
  STAR: 0xc0000081,
  LSTAR: 0xc0000082,
  CSTAR: 0xc0000083,
  SYSCALL_MASK: 0xc0000084,
  FS_BASE: 0xc0000100,
  GS_BASE: 0xc0000101,
  KERNEL_GS_BASE: 0xc0000102,
  TSC_AUX: 0xc0000103
} as const
export type MsrName = keyof typeof Msr

/** A stopped vCPU's registers. An MSR that this vCPU does not have is left out. */
export interface VcpuRegisters {
  readonly general: Readonly<Record<GeneralRegister, bigint>>
  readonly segments: Readonly<Record<SegmentRegister, Segment>>
  readonly gdt: { readonly base: bigint; readonly limit: number }
  readonly idt: { readonly base: bigint; readonly limit: number }
  readonly control: Readonly<Record<ControlRegister, bigint>>
  readonly msrs: Readonly<Partial<Record<MsrName, bigint>>>
}

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

/** One line to tell where the vCPU was. */
export const formatRegisters = ({ control, general, segments }: VcpuRegisters): string =>
  `rip=${hex(general.rip)} rsp=${hex(general.rsp)} rflags=${hex(general.rflags)} cs=${hex(segments.cs.selector)} ` +
  `cr0=${hex(control.cr0)} cr2=${hex(control.cr2)} cr3=${hex(control.cr3)} cr4=${hex(control.cr4)} ` +
  `efer=${hex(control.efer)} rax=${hex(general.rax)} rbx=${hex(general.rbx)} rcx=${hex(general.rcx)} ` +
  `rdx=${hex(general.rdx)} rsi=${hex(general.rsi)} rdi=${hex(general.rdi)}`

const keysOf = <T extends Record<string, number>>(of: T): ReadonlyArray<keyof T> => Object.keys(of) as Array<keyof T>
const generalNames = keysOf(Struct.kvm_regs.fields)
const msrNames = keysOf(Msr)

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
