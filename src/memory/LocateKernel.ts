import { hex, kvaPage } from "../core/Address.ts"
import { cString } from "../core/CString.ts"
import { ARCHS } from "./arch/Arch.ts"
import type { PageTable } from "./arch/PageTable.ts"
import type { GuestMemory } from "./GuestMemory.ts"
import { findVmcoreinfo, type Vmcoreinfo } from "./Vmcoreinfo.ts"

/** `struct new_utsname`: `release` is the third field of 65 bytes; include/uapi/linux/utsname.h, v6.12. */
const RELEASE_AT = 130
const FIELD = 65
/** Where `uts_namespace.name` is on kernels before v5.11, whose VMCOREINFO does not say: behind a kref, or first. */
const NAME_AT = [4, 0, 8, 16]

/**
 * A kernel found in memory: what is needed to read its virtual addresses.
 *
 * @since 0.1.0
 * @category models
 */
export interface KernelLocation {
  readonly table: PageTable
  readonly release: string
  /** Run-time minus link-time address of the image (KASLR), in bytes. */
  readonly shift: bigint
  readonly info: Vmcoreinfo | undefined
}

/**
 * No kernel was found: the number of candidates that were checked, and what was wrong with the last.
 *
 * @since 0.1.0
 * @category models
 */
export interface KernelNotLocated {
  readonly candidates: number
  readonly why: string
}

/**
 * Tells a located kernel from the reason why there is none.
 *
 * @since 0.1.0
 * @category guards
 */
export const isLocated = (found: KernelLocation | KernelNotLocated): found is KernelLocation => "table" in found

/**
 * The first kernel whose VMCOREINFO is true of this memory: the page tables that it names must map the image to where
 * it says the image is, themselves included, and `init_uts_ns` must hold the release that it claims.
 * @param early look only where it mostly is
 * @since 0.1.0
 * @category parsing
 */
export const locateByVmcoreinfo = (memory: GuestMemory, early = false): KernelLocation | KernelNotLocated => {
  let candidates = 0
  let why = "there is none"
  let table: PageTable | undefined
  const info = findVmcoreinfo(memory, (info) => {
    candidates++
    const checked = checkCandidate(memory, info)
    if (typeof checked === "string") why = checked
    else table = checked
    return table !== undefined
  }, early)
  if (info === undefined || table === undefined) return { candidates, why }
  return { table, release: info.release, shift: info.shift, info }
}

/** The tables' root, or what is wrong with the note. */
const checkCandidate = (memory: GuestMemory, info: Vmcoreinfo): PageTable | string => {
  const root = info.symbol("swapper_pg_dir")
  const uts = info.symbol("init_uts_ns")
  const stext = info.symbol("_stext")
  const name = info.offset("uts_namespace.name")
  const arch = ARCHS.find(({ imageOffset }) => imageOffset(info) !== undefined)
  const offset = arch?.imageOffset(info)
  if (
    root === undefined || uts === undefined || stext === undefined || arch === undefined || offset === undefined
  ) return "it lacks an entry that every x86-64 or arm64 kernel writes"
  const physical = (address: bigint): number => Number(address - offset)
  const rootAt = physical(root)
  if (!(rootAt >= 0 && rootAt % 4096 === 0 && memory.has(rootAt, 4096))) {
    return `it puts the page tables at physical ${hex(rootAt)}, which the image does not have`
  }
  const table = arch.tableAt(memory, rootAt, info)
  if (typeof table === "string") return table
  for (const address of [root, uts, stext]) {
    const pa = table.walk(kvaPage(address))
    if (pa !== Math.floor(physical(address) / 4096) * 4096) {
      return `its page tables do not map ${hex(address)} as it says`
    }
  }
  const named = (name: number): boolean => {
    const bytes = memory.bytes(physical(uts) + name + RELEASE_AT, FIELD)
    return bytes !== undefined && cString(bytes) === info.release
  }
  return (name === undefined ? NAME_AT : [name]).some(named)
    ? table
    : `the kernel there does not call itself ${info.release}`
}
