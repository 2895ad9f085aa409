import { Buffer } from "node:buffer"
import { kvaFrom, kvaPage } from "../../core/Address.ts"
import { SegmentType } from "../../core/image/Elf.ts"
import { makeElfNote } from "../../core/image/ElfNote.ts"
import { ARCHS } from "../arch/Arch.ts"
import { findDirectMap } from "../arch/PageTable.ts"
import type { GuestMemory } from "../GuestMemory.ts"
import { isLocated, type KernelLocation, locateByVmcoreinfo } from "../LocateKernel.ts"
import { type SparsePiece, sparsePieces } from "../SparsePieces.ts"

/**
 * The registers of a stopped CPU that a core has; `VcpuRegisters` is one, and so is `Arm64Registers`.
 *
 * @since 0.1.0
 * @category models
 */
export type VmcoreCpu = X86VmcoreCpu | Arm64VmcoreCpu

/**
 * Those of arm64: `x` are x0 to x30.
 *
 * @since 0.1.0
 * @category models
 */
export interface Arm64VmcoreCpu {
  readonly x: ReadonlyArray<bigint>
  readonly sp: bigint
  readonly pc: bigint
  readonly pstate: bigint
}

/**
 * Those of x86-64.
 *
 * @since 0.1.0
 * @category models
 */
export interface X86VmcoreCpu {
  readonly general: Readonly<
    Record<
      | "rax"
      | "rbx"
      | "rcx"
      | "rdx"
      | "rsi"
      | "rdi"
      | "rsp"
      | "rbp"
      | "r8"
      | "r9"
      | "r10"
      | "r11"
      | "r12"
      | "r13"
      | "r14"
      | "r15"
      | "rip"
      | "rflags",
      bigint
    >
  >
  readonly segments: Readonly<
    Record<"cs" | "ds" | "es" | "fs" | "gs" | "ss", { readonly selector: number; readonly base: bigint }>
  >
}

/**
 * A core, ready to be written. `pieces` borrow the memory it was made from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Vmcore {
  /** The kernel whose VMCOREINFO is in it; undefined where none was found. */
  readonly release: string | undefined
  /** Bytes of the file, holes and all. */
  readonly size: number
  readonly pieces: Iterable<SparsePiece>
}

const HEADER = 64
const SEGMENT = 56
const SECTION = 64
const PAGE = 4096
const ET_CORE = 4
/** `KERNEL_IMAGE_SIZE` in pages, arch/x86/include/asm/page_64_types.h, v6.12: modules are mapped behind it. */
const MOST_IMAGE = 2 ** 18
/** More segments than `e_phnum` can say: section header 0 says how many. */
const PN_XNUM = 0xffff
const READ_WRITE_EXECUTE = 7
const NT_PRSTATUS = 1
/** `struct elf_prstatus` with the process id at 32 and the registers at 112; behind them a word and padding. */
const PRSTATUS_PID = 32
const PRSTATUS_REGISTERS = 112

interface Range {
  readonly start: number
  readonly length: number
}

/**
 * Make an ELF core of a stopped guest's memory, as kdump's `/proc/vmcore` is one: a `PT_LOAD` for each stretch of physical
 * memory, at its address in the kernel's direct map where that is found, and one for the kernel's image; a note
 * `VMCOREINFO` with the text that the kernel keeps about itself, found in the memory; and a note `NT_PRSTATUS` for each
 * CPU, in order, with its registers.
 * @see include/uapi/linux/elf.h, include/linux/elfcore.h `struct elf_prstatus`, arch/x86/include/asm/user_64.h
 * `struct user_regs_struct`, arch/arm64/include/uapi/asm/ptrace.h `struct user_pt_regs`, kernel/crash_core.c `crash_prepare_elf64_headers`, v6.12
 * @since 0.1.0
 * @category constructors
 */
export const makeVmcore = (memory: GuestMemory, cpus: ReadonlyArray<VmcoreCpu> = []): Vmcore => {
  const location = locateByVmcoreinfo(memory)
  const known = isLocated(location) ? location : undefined
  const direct = known && findDirectMap(known.table)
  const ranges = rangesOf(memory)
  const image = known && imageOf(known)
  const holder = image &&
    ranges.find(({ length, start }) => start <= image.physical && image.physical + image.length <= start + length)
  const notes = Buffer.concat([
    ...cpus.map((cpu, index) => makeElfNote("CORE", NT_PRSTATUS, prstatus(cpu, index + 1))),
    ...(known?.info === undefined ? [] : [makeElfNote("VMCOREINFO", 0, Buffer.from(known.info.text, "latin1"))])
  ])
  const count = (notes.length === 0 ? 0 : 1) + (holder === undefined ? 0 : 1) + ranges.length
  const tables = tablesLength(count)
  let end = tables + notes.length
  const placed = ranges.map((range) => {
    const at = Math.ceil(end / PAGE) * PAGE + range.start % PAGE
    end = at + range.length
    return { at, range }
  })
  const loads = placed.map(({ at, range: { length, start } }) =>
    segment(SegmentType.Load, at, direct === undefined ? 0n : kvaFrom(direct, start), start, length)
  )
  if (image !== undefined && holder !== undefined) {
    const { at } = placed[ranges.indexOf(holder)]
    loads.unshift(
      segment(SegmentType.Load, at + image.physical - holder.start, image.virtual, image.physical, image.length)
    )
  }
  if (notes.length > 0) loads.unshift(segment(SegmentType.Note, tables, 0n, 0, notes.length))
  const arch = ARCHS.find(({ name }) => name === known?.table.arch) ?? ARCHS[0]
  const head = Buffer.concat([elfHeader(count, arch.machines[0]), ...loads])
  const pieces = function*(): Generator<SparsePiece> {
    const start = Buffer.alloc(tables + notes.length)
    start.set(head)
    start.set(notes, tables)
    if (count >= PN_XNUM) start.writeUInt32LE(count, tables - SECTION + 44) // sh_info of section 0
    yield start
    let done = start.length
    for (const { at, range } of placed) {
      if (at > done) yield { zeros: at - done }
      for (const region of memory.stretches(range.start, range.start + range.length)) yield* sparsePieces(region)
      done = at + range.length
    }
  }
  return { release: known?.release, size: end, pieces: { [Symbol.iterator]: pieces } }
}

/** Where the kernel's image is mapped, from `_stext` on: drgn reads the page tables through it. */
const imageOf = (
  { info, table }: KernelLocation
): { readonly virtual: bigint; readonly physical: number; readonly length: number } | undefined => {
  const virtual = info?.symbol("_stext")
  if (virtual === undefined) return undefined
  const first = kvaPage(virtual)
  const physical = table.walk(first)
  if (physical < 0) return undefined
  const last = table.lastIdentity(first, first + MOST_IMAGE, first - physical / PAGE, MOST_IMAGE)
  return { virtual: kvaFrom(first, 0), physical, length: (last + 1 - first) * PAGE }
}

/** Segments: stretches that touch are one. */
const rangesOf = (memory: GuestMemory): ReadonlyArray<Range> => {
  const ranges: Array<{ start: number; length: number }> = []
  for (const { bytes, start } of memory.stretches()) {
    const last = ranges.at(-1)
    if (last !== undefined && last.start + last.length === start) last.length += bytes.length
    else ranges.push({ start, length: bytes.length })
  }
  return ranges
}

/** Bytes of the ELF header, the program headers, and the section header that a large number of them needs. */
const tablesLength = (segments: number): number => HEADER + segments * SEGMENT + (segments >= PN_XNUM ? SECTION : 0)

const elfHeader = (segments: number, machine: number): Buffer => {
  const extended = segments >= PN_XNUM
  const header = Buffer.alloc(HEADER)
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  header.writeUInt16LE(ET_CORE, 16)
  header.writeUInt16LE(machine, 18)
  header.writeUInt32LE(1, 20)
  header.writeBigUInt64LE(BigInt(HEADER), 32)
  if (extended) header.writeBigUInt64LE(BigInt(HEADER + segments * SEGMENT), 40)
  header.writeUInt16LE(HEADER, 52)
  header.writeUInt16LE(SEGMENT, 54)
  header.writeUInt16LE(extended ? PN_XNUM : segments, 56)
  header.writeUInt16LE(extended ? SECTION : 0, 58)
  header.writeUInt16LE(extended ? 1 : 0, 60)
  return header
}

const segment = (
  type: number,
  offset: number,
  virtual: bigint,
  physical: number,
  size: number
): Buffer => {
  const header = Buffer.alloc(SEGMENT)
  header.writeUInt32LE(type, 0)
  header.writeUInt32LE(type === SegmentType.Load ? READ_WRITE_EXECUTE : 0, 4)
  header.writeBigUInt64LE(BigInt(offset), 8)
  header.writeBigUInt64LE(virtual, 16)
  header.writeBigUInt64LE(BigInt(physical), 24)
  header.writeBigUInt64LE(BigInt(size), 32)
  header.writeBigUInt64LE(BigInt(size), 40)
  return header
}

/** @param id QEMU's number of a CPU in its cores, which begins with 1 */
const prstatus = (cpu: VmcoreCpu, id: number): Buffer => {
  const registers = "x" in cpu ? [...cpu.x, cpu.sp, cpu.pc, cpu.pstate] : userRegisters(cpu)
  const out = Buffer.alloc(PRSTATUS_REGISTERS + registers.length * 8 + 8)
  out.writeUInt32LE(id, PRSTATUS_PID)
  registers.forEach((value, index) => out.writeBigUInt64LE(BigInt(value), PRSTATUS_REGISTERS + index * 8))
  return out
}

/** In the order of struct user_regs_struct. */
const userRegisters = ({ general, segments }: X86VmcoreCpu): ReadonlyArray<bigint | number> => [
  general.r15,
  general.r14,
  general.r13,
  general.r12,
  general.rbp,
  general.rbx,
  general.r11,
  general.r10,
  general.r9,
  general.r8,
  general.rax,
  general.rcx,
  general.rdx,
  general.rsi,
  general.rdi,
  general.rax, // orig_ax: there is no system call to go back to
  general.rip,
  segments.cs.selector,
  general.rflags,
  general.rsp,
  segments.ss.selector,
  segments.fs.base,
  segments.gs.base,
  segments.ds.selector,
  segments.es.selector,
  segments.fs.selector,
  segments.gs.selector
]
