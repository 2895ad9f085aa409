import { hex } from "../../core/Address.ts"

/**
 * A segment register with its hidden part; `limit` in bytes as the CPU holds it, `type` the descriptor's 4 bits.
 *
 * @since 0.1.0
 * @category models
 */
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

/** The registers of `struct kvm_regs`, in its order. @see arch/x86/include/uapi/asm/kvm.h, v6.12 */
export const generalNames = [
  "rax",
  "rbx",
  "rcx",
  "rdx",
  "rsi",
  "rdi",
  "rsp",
  "rbp",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
  "rip",
  "rflags"
] as const
/**
 * Names of the general registers in `struct kvm_regs`.
 *
 * @since 0.1.0
 * @category models
 */
export type GeneralRegister = typeof generalNames[number]
export const segmentNames = ["cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"] as const
/**
 * Names of the segment registers in `struct kvm_sregs`.
 *
 * @since 0.1.0
 * @category models
 */
export type SegmentRegister = typeof segmentNames[number]
export const controlNames = ["cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base"] as const
/**
 * Names of the control registers in `struct kvm_sregs`.
 *
 * @since 0.1.0
 * @category models
 */
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
/**
 * Names of the model-specific registers that are read.
 *
 * @since 0.1.0
 * @category models
 */
export type MsrName = keyof typeof Msr

/**
 * A stopped vCPU's registers. An MSR that this vCPU does not have is left out.
 *
 * @since 0.1.0
 * @category models
 */
export interface VcpuRegisters {
  readonly general: Readonly<Record<GeneralRegister, bigint>>
  readonly segments: Readonly<Record<SegmentRegister, Segment>>
  readonly gdt: { readonly base: bigint; readonly limit: number }
  readonly idt: { readonly base: bigint; readonly limit: number }
  readonly control: Readonly<Record<ControlRegister, bigint>>
  readonly msrs: Readonly<Partial<Record<MsrName, bigint>>>
}

/**
 * The part of a stopped CPU's registers that every engine can read.
 *
 * @since 0.1.0
 * @category models
 */
export interface CpuRegisters {
  readonly general: VcpuRegisters["general"]
  readonly segments: Readonly<Record<SegmentRegister, Pick<Segment, "base" | "selector">>>
  readonly control: Readonly<Record<"cr0" | "cr2" | "cr3" | "cr4" | "efer", bigint>>
}

/**
 * The registers of a stopped arm64 CPU: `x` are x0 to x30, `sp` is that of its exception level.
 *
 * @since 0.1.0
 * @category models
 */
export interface Arm64Registers {
  readonly x: ReadonlyArray<bigint>
  readonly sp: bigint
  readonly pc: bigint
  readonly pstate: bigint
}

/** One line that says where the vCPU was. */
export const formatRegisters = ({ control, general, segments }: VcpuRegisters): string =>
  `rip=${hex(general.rip)} rsp=${hex(general.rsp)} rflags=${hex(general.rflags)} cs=${hex(segments.cs.selector)} ` +
  `cr0=${hex(control.cr0)} cr2=${hex(control.cr2)} cr3=${hex(control.cr3)} cr4=${hex(control.cr4)} ` +
  `efer=${hex(control.efer)} rax=${hex(general.rax)} rbx=${hex(general.rbx)} rcx=${hex(general.rcx)} ` +
  `rdx=${hex(general.rdx)} rsi=${hex(general.rsi)} rdi=${hex(general.rdi)}`
