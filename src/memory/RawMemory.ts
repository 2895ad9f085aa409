import * as Either from "effect/Either"
import type { FormatError } from "../core/FormatError.ts"
import { findDirectMap } from "./arch/PageTable.ts"
import { NotAKernel } from "./Errors.ts"
import type { GuestMemory } from "./GuestMemory.ts"
import { isLocated, type KernelLocation, type KernelNotLocated, locateByVmcoreinfo } from "./LocateKernel.ts"

const GIB4 = 2 ** 32

/**
 * How to find the kernel in memory whose layout is in question; `locateByVmcoreinfo` unless a vmlinux knows better. `early`:
 * look only where it most likely is.
 *
 * @since 0.1.0
 * @category models
 */
export type LocateKernel = (memory: GuestMemory, early: boolean) => KernelLocation | KernelNotLocated

/** Physical addresses `start` up to `end`; their bytes are those from `offset` on, of a file or another run of bytes. */
export interface FileSegment {
  readonly start: number
  readonly end: number
  readonly offset: number
}

/** A machine's memory as one run of bytes, without the gaps that physical memory has. */
export interface FlatMemory {
  /** Its name in errors. */
  readonly subject: string
  /** In bytes. */
  readonly size: number
  /** Memory that has these pieces at these addresses; they do not overlap. */
  readonly memory: (pieces: ReadonlyArray<FileSegment>) => Either.Either<GuestMemory, FormatError>
}

export const HINT =
  "give a raw memory file, an ELF or kdump core, or a LiME dump (QEMU: memory-backend-file, dump-guest-memory; LiME: format=lime or "
  + "padded, not raw)"

export const notAnImage = (subject: string, why: string, looked: string, hint = HINT): NotAKernel =>
  new NotAKernel({ subject, why, looked, hint })

/**
 * A raw file has no gap where physical memory has one: what does not fit below the gap for devices under 4 GiB goes on at
 * 4 GiB. Where it splits is up to the machine (QEMU pc: 3 GiB, or 3.5 in old ones; q35: 2 GiB; Firecracker 3.25), so the
 * kernel is asked: its direct map covers all of the memory it was given and nothing else.
 */
export const rawMemory = (
  flat: FlatMemory,
  given?: LocateKernel
): Either.Either<GuestMemory, NotAKernel | FormatError> =>
  Either.gen(function*() {
    const { size, subject } = flat
    const locate = given ?? locateByVmcoreinfo
    const split = (at: number) => {
      const low = { start: 0, end: Math.min(at, size), offset: 0 }
      return flat.memory(at >= size ? [low] : [low, { start: GIB4, end: GIB4 + size - at, offset: at }])
    }
    if (size <= SMALLEST_SPLIT) {
      const memory = yield* split(size)
      if (given !== undefined || isLocated(locate(memory, true))) return memory
      return (yield* arm64Memory(flat, true)) ?? (yield* arm64Memory(flat, false)) ?? memory
    }
    let candidates = 0
    let why = "there is none"
    let release: string | undefined
    for (const early of [true, false]) { // a false layout costs a search of all memory only where no early one is true
      const tried = new Set<number>()
      for (const first of [...SPLITS, GIB4]) {
        let at = Math.min(first, size)
        for (let round = 0; round < 3 && !tried.has(at); round++) { // a first answer may be of tables read amiss
          tried.add(at)
          const memory = yield* split(at)
          const location = locate(memory, early)
          if (!isLocated(location)) {
            candidates = Math.max(candidates, location.candidates)
            why = location.why
            break
          }
          release = location.release
          const right = splitOf(location, size)
          if (right === at) return memory
          if (right === undefined) break
          at = right
        }
        if (!early && candidates === 0 && release === undefined) break // there are as many in every layout
      }
      const arm64 = given === undefined ? yield* arm64Memory(flat, early) : undefined
      if (arm64 !== undefined) return arm64
    }
    return yield* Either.left(
      release === undefined ? notAKernel(subject, size, candidates, why) : notAnImage(
        subject,
        `kernel ${release}, but the page tables of its direct map are not in the file`,
        "looked there for where memory goes on above 4 GiB",
        "the image seems cut short; give all of it, or an ELF core"
      )
    )
  })

/** Where memory begins on arm64 machines, without a gap: QEMU's virt and Cloud Hypervisor; Firecracker, crosvm and kvmtool. */
const ARM64_STARTS = [0x4000_0000, 0x8000_0000]

/** The file as memory of an arm64 machine; undefined where no arm64 kernel in it agrees. */
const arm64Memory = (flat: FlatMemory, early: boolean): Either.Either<GuestMemory | undefined, FormatError> =>
  Either.gen(function*() {
    for (const start of ARM64_STARTS) {
      const memory = yield* flat.memory([{ start, end: start + flat.size, offset: 0 }])
      const location = locateByVmcoreinfo(memory, early)
      if (isLocated(location)) return memory
      if (!early && location.candidates === 0) break // there are as many wherever it begins
    }
    return undefined
  })

/** Where low memory ends on machines we know: QEMU's pc and microvm, q35, Firecracker and kvmtool, old pc, small q35. */
const SPLITS = [0xc000_0000, 0x8000_0000, 0xd000_0000, 0xe000_0000, 0xb000_0000]
const SMALLEST_SPLIT = 0x8000_0000
/** Firmware keeps less than this at the end of low memory. */
const RESERVED = 2 ** 28

/** The split that agrees with the direct map which `location` sees; the file's size when there is none to make. */
const splitOf = ({ table }: KernelLocation, size: number): number | undefined => {
  const base = findDirectMap(table)
  if (base === undefined) return undefined
  const steps = 2 ** 20
  const page4g = GIB4 / 4096
  const low = table.lastIdentity(base, base + page4g, base, steps)
  const high = table.lastIdentity(base + page4g, base + page4g + Math.ceil(size / 4096), base, steps)
  if (low < 0) return undefined
  const lowEnd = (low + 1 - base) * 4096
  if (high < 0) return lowEnd + RESERVED >= size ? size : undefined
  const exact = size - ((high + 1 - base) * 4096 - GIB4)
  if (exact >= lowEnd && exact <= GIB4) return exact
  return Math.ceil(lowEnd / RESERVED) * RESERVED // the file is cut short; machines split at multiples of 256 MiB
}

/** The error of both openers for memory without a kernel. */
export const notAKernel = (subject: string, bytes: number, candidates: number, why: string): NotAKernel =>
  new NotAKernel({
    subject,
    why: "no running x86-64 or arm64 Linux kernel in it",
    looked: `looked for a VMCOREINFO page in ${Math.ceil(bytes / 2 ** 20)} MiB, found ${candidates}` +
      (candidates === 0 ? "" : `, the last one wrong: ${why}`),
    hint: `${HINT}, taken after the kernel started; for a kernel without CONFIG_VMCORE_INFO give its vmlinux too`
  })
