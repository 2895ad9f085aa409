import { Constant, Request, Struct } from "./KvmAbi.ts"
import { succeeded } from "./KvmError.ts"
import type { KvmNative } from "./KvmNative.ts"

/** One answer of the CPUID instruction; `flags` is KVM's (1: `index` counts). */
export interface CpuidEntry {
  readonly function: number
  readonly index: number
  readonly flags: number
  readonly eax: number
  readonly ebx: number
  readonly ecx: number
  readonly edx: number
}

/** Room for more entries than KVM has (KVM_MAX_CPUID_ENTRIES is 256, arch/x86/include/asm/kvm_host.h, v6.12). */
const MAX_ENTRIES = 256

/** What KVM can give a guest on this host. @throws KvmError */
export const supportedCpuid = (native: KvmNative, kvm: number): ReadonlyArray<CpuidEntry> => {
  const bytes = new DataView(new ArrayBuffer(Struct.kvm_cpuid2.size + MAX_ENTRIES * Struct.kvm_cpuid_entry2.size))
  bytes.setUint32(Struct.kvm_cpuid2.fields.nent, MAX_ENTRIES, true)
  const result = native.ioctl(kvm, Request.KVM_GET_SUPPORTED_CPUID, new Uint8Array(bytes.buffer))
  succeeded("KVM_GET_SUPPORTED_CPUID", result)
  const at = Struct.kvm_cpuid_entry2.fields
  return Array.from({ length: bytes.getUint32(Struct.kvm_cpuid2.fields.nent, true) }, (_, index) => {
    const start = Struct.kvm_cpuid2.fields.entries + index * Struct.kvm_cpuid_entry2.size
    const word = (offset: number) => bytes.getUint32(start + offset, true)
    return {
      function: word(at.function),
      index: word(at.index),
      flags: word(at.flags),
      eax: word(at.eax),
      ebx: word(at.ebx),
      ecx: word(at.ecx),
      edx: word(at.edx)
    }
  })
}

/** Give a vCPU its CPUID, before anything else is set: KVM checks other state against it. @throws KvmError */
export const setCpuid = (native: KvmNative, vcpu: number, entries: ReadonlyArray<CpuidEntry>): void => {
  const bytes = new DataView(new ArrayBuffer(Struct.kvm_cpuid2.size + entries.length * Struct.kvm_cpuid_entry2.size))
  bytes.setUint32(Struct.kvm_cpuid2.fields.nent, entries.length, true)
  const at = Struct.kvm_cpuid_entry2.fields
  entries.forEach((entry, index) => {
    const start = Struct.kvm_cpuid2.fields.entries + index * Struct.kvm_cpuid_entry2.size
    for (const name of ["function", "index", "flags", "eax", "ebx", "ecx", "edx"] as const) {
      bytes.setUint32(start + at[name], entry[name], true)
    }
  })
  succeeded("KVM_SET_CPUID2", native.ioctl(vcpu, Request.KVM_SET_CPUID2, new Uint8Array(bytes.buffer)))
}

const HYPERVISOR = 1 << 31 // leaf 1 ECX: without it a guest does not look for KVM's clock, and hangs calibrating its TSC
const TSC_DEADLINE = 1 << 24 // leaf 1 ECX: KVM's local APIC has it, KVM_GET_SUPPORTED_CPUID does not say so
const HTT = 1 << 28 // leaf 1 EDX: leaf 1's count of logical CPUs means something
const INVARIANT_TSC = 1 << 8 // leaf 0x80000007 EDX
const LEVEL_SMT = 1
const LEVEL_CORE = 2
/** Leaves that say how CPUs are numbered: written anew, for KVM's are the host's. */
const topologyLeaves = new Set([0xb, 0x1f, 0x8000001e])

/**
 * CPUID of vCPU `id` of `cpus`: one package of single-threaded cores, APIC ids counted from 0, KVM's paravirtual leaves
 * kept. The invariant TSC is hidden: a guest that has it takes the TSC for its clock, which runs on while the VM is
 * frozen; without, it takes KVM's clock, which is set back on thawing.
 * @see Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E.4; Documentation/virt/kvm/x86/cpuid.rst, v6.12
 */
export const cpuidOf = (
  supported: ReadonlyArray<CpuidEntry>,
  id: number,
  cpus: number,
  tscDeadline: boolean
): ReadonlyArray<CpuidEntry> => {
  const bits = Math.ceil(Math.log2(cpus))
  const highest = supported.find((entry) => entry.function === 0)?.eax ?? 0
  const adapted = supported.filter((entry) => !topologyLeaves.has(entry.function)).map((entry) => {
    switch (entry.function) {
      case 1:
        return {
          ...entry,
          // APIC id, logical CPUs of the package, CLFLUSH line
          ebx: (entry.ebx & 0xffff) | ((1 << bits) << 16) | (id << 24),
          ecx: entry.ecx | HYPERVISOR | (tscDeadline ? TSC_DEADLINE : 0),
          edx: cpus > 1 ? entry.edx | HTT : entry.edx & ~HTT
        }
      case 4: // caches: bits 25:14 the CPUs that share one, bits 31:26 the cores of the package, each less one
        return entry.eax === 0 ? entry : {
          ...entry,
          eax: (entry.eax & 0x3fff) |
            (isLastLevel(entry.eax) ? ((1 << bits) - 1) << 14 : 0) |
            (((1 << bits) - 1) << 26)
        }
      case 0x8000001d: // AMD's caches: bits 25:14 alone
        return entry.eax === 0
          ? entry
          : { ...entry, eax: (entry.eax & 0x3fff) | (isLastLevel(entry.eax) ? (cpus - 1) << 14 : 0) }
      case 0x80000007:
        return { ...entry, edx: entry.edx & ~INVARIANT_TSC }
      case 0x80000008: // bits 7:0 CPUs less one, bits 15:12 the APIC id's bits for them
        return { ...entry, ecx: (entry.ecx & ~0xf0ff) | (cpus - 1) | (bits << 12) }
      default:
        return entry
    }
  })
  const level = (leaf: number, index: number, kind: number, shift: number, count: number): CpuidEntry => ({
    function: leaf,
    index,
    flags: Constant.KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
    eax: shift,
    ebx: count,
    ecx: (kind << 8) | index,
    edx: id
  })
  if (highest >= 0xb) {
    adapted.push(level(0xb, 0, LEVEL_SMT, 0, 1), level(0xb, 1, LEVEL_CORE, bits, cpus), level(0xb, 2, 0, 0, 0))
  }
  if (highest >= 0x1f) {
    adapted.push(level(0x1f, 0, LEVEL_SMT, 0, 1), level(0x1f, 1, LEVEL_CORE, bits, cpus), level(0x1f, 2, 0, 0, 0))
  }
  if (supported.some((entry) => entry.function === 0x8000001e)) {
    // APIC id, core id with one thread, node 0
    adapted.push({ function: 0x8000001e, index: 0, flags: 0, eax: id, ebx: id & 0xff, ecx: 0, edx: 0 })
  }
  return adapted
}

/** Bits 7:5: from the third level on caches are shared by the package. */
const isLastLevel = (eax: number): boolean => ((eax >>> 5) & 7) >= 3
