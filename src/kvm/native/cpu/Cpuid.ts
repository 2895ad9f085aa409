import { apicIds, apicShifts, packagesOf, type Processor, type Topology } from "../../spec/Topology.ts"
import { Constant, Request, Struct } from "../abi/KvmAbi.ts"
import { succeeded } from "../abi/KvmError.ts"
import type { KvmNative } from "../abi/KvmNative.ts"

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

/** The CPUID entries that KVM supports for a guest on this host. @throws KvmError */
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
const TOPOEXT = 1 << 22 // leaf 0x80000001 ECX: AMD's leaves 0x8000001d and 0x8000001e are there
const LEVEL_SMT = 1
const LEVEL_CORE = 2
const SOME_INDEX = Constant.KVM_CPUID_FLAG_SIGNIFCANT_INDEX

/**
 * The caches of every guest: a core's own, and the last level. KVM hands on the host's, which say who shares them there,
 * and none at all where the host is a guest without. Types as in leaf 4: 1 data, 2 instructions, 3 both.
 */
const caches = [
  { type: 1, level: 1, ways: 8, sets: 64 },
  { type: 2, level: 1, ways: 8, sets: 64 },
  { type: 3, level: 2, ways: 16, sets: 1024 },
  { type: 3, level: 3, ways: 16, sets: 16384 }
] as const
const LINE = 64
const L2_KIB = 1024
const L3_KIB = 16384
const SIXTEEN_WAYS = 8 // in leaf 0x80000006

/** Leaves that say how CPUs are numbered and what they share: written anew. */
const intelLeaves = [4, 0xb, 0x1f]
const amdLeaves = [0xb, 0x80000006, 0x8000001d, 0x8000001e, 0x80000026]

/**
 * CPUID of CPU `cpu` of a machine, in its host's vendor's ways; KVM's paravirtual leaves are kept. A NUMA node is a
 * package, an LLC the CPUs behind one third-level cache. The invariant TSC is hidden: a guest that has it takes the TSC
 * for its clock, which runs on while the VM is frozen; without, it takes KVM's clock, which is set back on thawing.
 * @see Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E.4; Documentation/virt/kvm/x86/cpuid.rst, v6.12
 */
export const cpuidOf = (
  supported: ReadonlyArray<CpuidEntry>,
  topology: Topology,
  cpu: number,
  tscDeadline: boolean
): ReadonlyArray<CpuidEntry> => {
  const packages = packagesOf(topology)
  const shifts = apicShifts({ ...topology, nodes: packages })
  const id = apicIds(topology)[cpu]
  const inPackage = topology.cpus / packages
  const amd = ["AuthenticAMD", "HygonGenuine"].includes(processorOf(supported).vendor)
  const anew = new Set(amd ? amdLeaves : intelLeaves)
  const adapted = supported.filter((entry) => !anew.has(entry.function)).map((entry) => {
    switch (entry.function) {
      case 0:
        return { ...entry, eax: Math.max(entry.eax, 0xb) }
      case 1:
        return {
          ...entry,
          // APIC id, room for logical CPUs in the package, CLFLUSH line
          ebx: (entry.ebx & 0xffff) | (Math.min(1 << shifts.package, 255) << 16) | (id << 24),
          ecx: entry.ecx | HYPERVISOR | (tscDeadline ? TSC_DEADLINE : 0),
          edx: inPackage > 1 ? entry.edx | HTT : entry.edx & ~HTT
        }
      case 0x80000000:
        return amd ? { ...entry, eax: Math.max(entry.eax >>> 0, 0x8000001e) } : entry
      case 0x80000001:
        return amd ? { ...entry, ecx: entry.ecx | TOPOEXT } : entry
      case 0x80000007:
        return { ...entry, edx: entry.edx & ~INVARIANT_TSC }
      case 0x80000008: // bits 7:0 CPUs of the package less one, bits 15:12 the APIC id's bits for them
        return amd ? { ...entry, ecx: (entry.ecx & ~0xf0ff) | (inPackage - 1) | (shifts.package << 12) } : entry
      default:
        return entry
    }
  })
  const leaf = (number: number, index: number, eax: number, ebx: number, ecx: number, edx: number): CpuidEntry => ({
    function: number,
    index,
    flags: number === 0x80000006 || number === 0x8000001e ? 0 : SOME_INDEX,
    eax,
    ebx,
    ecx,
    edx
  })
  const cacheLeaves = (number: number, coresInPackage: number) => [
    ...caches.map(({ level, sets, type, ways }, index) => {
      const sharers = 1 << (level === 3 ? shifts.llc : shifts.core)
      // 8: it needs no software to start. Counts are less one; those of CPUs and cores are of ids, taken or not
      const eax = type | (level << 5) | (1 << 8) | ((sharers - 1) << 14) | (coresInPackage << 26)
      return leaf(number, index, eax, (LINE - 1) | ((ways - 1) << 22), sets - 1, 0)
    }),
    leaf(number, caches.length, 0, 0, 0, 0)
  ]
  const levels = [
    leaf(0xb, 0, shifts.core, topology.threads, LEVEL_SMT << 8, id),
    leaf(0xb, 1, shifts.package, inPackage, (LEVEL_CORE << 8) | 1, id),
    leaf(0xb, 2, 0, 0, 2, id)
  ]
  if (!amd) {
    return [...adapted, ...cacheLeaves(4, Math.min((1 << (shifts.package - shifts.core)) - 1, 63)), ...levels]
  }
  const core = Math.floor(cpu / topology.threads)
  const tlbs = supported.find((entry) => entry.function === 0x80000006)
  return [
    ...adapted,
    ...levels,
    leaf(
      0x80000006,
      0,
      tlbs?.eax ?? 0,
      tlbs?.ebx ?? 0,
      LINE | (1 << 8) | (SIXTEEN_WAYS << 12) | (L2_KIB << 16),
      LINE | (1 << 8) | (SIXTEEN_WAYS << 12) | ((L3_KIB / 512) << 18)
    ),
    ...cacheLeaves(0x8000001d, 0),
    // the core in its package and its threads less one; the node, which before family 0x17 is what shares the last level
    leaf(
      0x8000001e,
      0,
      id,
      (core % (inPackage / topology.threads)) | ((topology.threads - 1) << 8),
      Math.floor(core / topology.cores),
      0
    )
  ]
}

/** The processor that guests on this host see. */
export const processorOf = (supported: ReadonlyArray<CpuidEntry>): Processor => {
  const find = (leaf: number) => supported.find((entry) => entry.function === leaf)
  const name = find(0)
  const signature = find(1)?.eax ?? 0
  const family = (signature >>> 8) & 0xf
  return {
    vendor: name === undefined
      ? ""
      : Buffer.from(Uint32Array.of(name.ebx, name.edx, name.ecx).buffer).toString("latin1"),
    family: family === 0xf ? family + ((signature >>> 20) & 0xff) : family,
    model: ((signature >>> 4) & 0xf) | ((signature >>> 12) & 0xf0)
  }
}
