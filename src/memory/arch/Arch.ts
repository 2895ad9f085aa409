import type { GuestMemory } from "../GuestMemory.ts"
import type { Vmcoreinfo } from "../Vmcoreinfo.ts"
import { Arm64PageTable } from "./Arm64PageTable.ts"
import type { ArchName, PageTable } from "./PageTable.ts"
import { X86PageTable } from "./X86PageTable.ts"

/** `__START_KERNEL_map`, arch/x86/include/asm/page_64_types.h, v6.12: where the image's mapping begins. */
export const IMAGE_MAP = 0xffff_ffff_8000_0000n

/** The facts that tell architectures apart in memory images, and how a kernel of one says where its page tables are. */
export interface Arch {
  readonly name: ArchName
  /** `e_machine` of its cores. QEMU writes EM_386 for a CPU that is not in long mode. */
  readonly machines: ReadonlyArray<number>
  /** The image's virtual minus its physical address, by an entry that no other architecture's VMCOREINFO has. */
  readonly imageOffset: (info: Vmcoreinfo) => bigint | undefined
  /** The tables under a root, or what is wrong with what the note says of them. */
  readonly tableAt: (memory: GuestMemory, root: number, info: Vmcoreinfo) => PageTable | string
}

const x86: Arch = {
  name: "x86-64",
  machines: [62, 3],
  imageOffset: (info) => {
    const base = info.number("phys_base")
    return base === undefined ? undefined : IMAGE_MAP - base
  },
  tableAt: (memory, root, info) => new X86PageTable(memory, root, info.number("pgtable_l5_enabled") === 1n ? 5 : 4)
}

const PAGE_BITS = new Map<number | undefined, 12 | 14 | 16>([[4096, 12], [16384, 14], [65536, 16]])

/** @see arch/arm64/kernel/vmcore_info.c `arch_crash_save_vmcoreinfo`, v6.1 to v7.3 */
const arm64: Arch = {
  name: "arm64",
  machines: [183],
  imageOffset: (info) => info.number("kimage_voffset"),
  tableAt: (memory, root, info) => {
    const pageBits = PAGE_BITS.get(info.pageSize)
    if (pageBits === undefined) return `arm64 has no pages of ${info.pageSize ?? "unknown"} bytes`
    const vaBits = Number(info.number("VA_BITS") ?? 0n)
    const usedBits = 64 - Number(info.number("TCR_EL1_T1SZ") ?? BigInt(64 - vaBits))
    return vaBits <= 52 && usedBits <= vaBits && usedBits >= 36
      ? new Arm64PageTable(memory, root, { pageBits, vaBits, usedBits })
      : `arm64 has no kernel of ${vaBits} bits of addresses of which ${usedBits} are used`
  }
}

/** Those that are read. */
export const ARCHS: ReadonlyArray<Arch> = [x86, arm64]
