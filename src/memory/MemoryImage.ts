import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import { Buffer } from "node:buffer"
import { fstatSync } from "node:fs"
import { parseElf, SegmentType } from "../core/Elf.ts"
import { FormatError, parsing, type SyscallError } from "../core/Errors.ts"
import { Native } from "../core/Native.ts"
import { NotAKernel } from "./Errors.ts"
import { GuestMemory, type MemoryRegion } from "./GuestMemory.ts"
import { anchorFromNote, isAnchor, type KernelAnchor, type NoAnchor } from "./LocateKernel.ts"
import { findDirectMap } from "./PageTable.ts"

/** fcntl.h; without O_NONBLOCK opening a FIFO waits for its writer. */
const O_NONBLOCK = 0o4000
const WINDOW = 2 ** 30
const MAX_HEADERS = 2 ** 26
const GIB4 = 2 ** 32
const ET_CORE = 4
/** What QEMU writes for a CPU in long mode, and for one that is not. */
const MACHINES: ReadonlyArray<number> = [62, 3]

/**
 * How to find the kernel in memory whose layout is in question; `anchorFromNote` unless a vmlinux knows better. `early`:
 * look only where it most likely is.
 */
export type FindAnchor = (memory: GuestMemory, early: boolean) => KernelAnchor | NoAnchor

/**
 * A file that holds a guest's physical memory, mapped read-only until the scope closes: a raw image (QEMU's
 * `memory-backend-file`, `pmemsave`), or an ELF core (`dump-guest-memory`, kdump's `/proc/vmcore`). A file cut short is
 * read as far as it goes. It must not shrink while it is mapped: that is SIGBUS.
 */
export const openImage = (
  path: string,
  options: { readonly findAnchor?: FindAnchor } = {}
): Effect.Effect<GuestMemory, SyscallError | NotAKernel | FormatError, Native | Scope.Scope> =>
  Effect.gen(function*() {
    const native = yield* Native
    const fd = yield* native.open(path, O_NONBLOCK)
    const stat = fstatSync(fd)
    if (!stat.isFile()) return yield* notAnImage(path, "not a regular file", "looked at its type")
    if (stat.size < 4096) return yield* notAnImage(path, `only ${stat.size} bytes`, "memory is at least a page of 4096")
    const windows: Array<Uint8Array> = []
    for (let at = 0; at < stat.size; at += WINDOW) {
      windows.push(new Uint8Array(yield* native.mmap(fd, at, Math.min(WINDOW, stat.size - at), "read")))
    }
    const magic = Buffer.from(windows[0].subarray(0, 12)).toString("latin1")
    const foreign = FOREIGN.find(([start]) => magic.startsWith(start))
    if (foreign !== undefined) {
      return yield* notAnImage(path, `a ${foreign[1]}`, "looked at its first bytes", foreign[2])
    }
    if (magic.startsWith("\x7fELF")) return yield* coreMemory(path, windows, stat.size)
    return yield* rawMemory(path, windows, stat.size, options.findAnchor ?? anchorFromNote)
  }).pipe(Effect.withSpan("MemoryImage.openImage", { attributes: { path } }))

const HINT = "give a raw memory file or an ELF core of a VM (QEMU: memory-backend-file, dump-guest-memory)"

const FOREIGN: ReadonlyArray<readonly [start: string, what: string, hint: string]> = [
  ["KDUMP   ", "compressed kdump", "convert it to ELF: makedumpfile -E, or dump-guest-memory without -z"],
  ["makedumpfile", "flattened makedumpfile stream", "make it whole with makedumpfile -R"],
  ["EMiL", "LiME dump", "dump with format=raw or format=padded"],
  ["QFI\xfb", "QEMU disk image or VM snapshot", HINT],
  ["QEVM", "QEMU migration stream", HINT],
  ["\x1f\x8b", "gzip file", "decompress it first"],
  ["\x28\xb5\x2f\xfd", "zstd file", "decompress it first"],
  ["\xfd7zXZ", "xz file", "decompress it first"]
]

const notAnImage = (subject: string, why: string, looked: string, hint = HINT): NotAKernel =>
  new NotAKernel({ subject, why, looked, hint })

/** The file's bytes `from` up to `to` as regions from physical address `start` on, cut where the windows meet. */
const regionsOf = (
  windows: ReadonlyArray<Uint8Array>,
  start: number,
  from: number,
  to: number
): Array<MemoryRegion> => {
  const regions: Array<MemoryRegion> = []
  for (let at = from; at < to;) {
    const index = Math.floor(at / WINDOW)
    const end = Math.min(to, (index + 1) * WINDOW)
    regions.push({
      start: start + at - from,
      bytes: windows[index].subarray(at - index * WINDOW, end - index * WINDOW)
    })
    at = end
  }
  return regions
}

/**
 * The segments of a core. They may overlap (kdump's has the kernel's text twice, QEMU's `-p` one segment a mapping): of
 * each address the first segment's bytes are taken.
 */
const coreMemory = (
  subject: string,
  windows: ReadonlyArray<Uint8Array>,
  size: number
): Either.Either<GuestMemory, NotAKernel | FormatError> =>
  Either.gen(function*() {
    const elf = yield* parsing(() => parseElf(headersOf(windows[0]), subject))
    if (elf.type !== ET_CORE) {
      return yield* Either.left(
        notAnImage(
          subject,
          "an ELF file, but no core",
          `its type is ${elf.type}`,
          "a kernel's vmlinux goes with --vmlinux; " + HINT
        )
      )
    }
    if (!MACHINES.includes(elf.machine)) {
      return yield* Either.left(notAnImage(subject, `a core of machine ${elf.machine}`, "only x86 (62 and 3) is read"))
    }
    const loads = elf.segments.flatMap((segment) => {
      const bytes = Math.min(segment.filesz, size - segment.offset)
      const start = Number(segment.paddr)
      return segment.type === SegmentType.Load && bytes > 0 && start < 2 ** 52
        ? [{ start, bytes, offset: segment.offset }]
        : []
    }).sort((a, b) => a.start - b.start)
    const regions: Array<MemoryRegion> = []
    let end = 0
    for (const { bytes, offset, start } of loads) {
      const skip = Math.max(0, end - start)
      if (skip >= bytes) continue
      regions.push(...regionsOf(windows, start + skip, offset + skip, offset + bytes))
      end = start + bytes
    }
    if (regions.length === 0) {
      return yield* Either.left(notAnImage(subject, "a core without memory", `it has ${elf.segments.length} segments`))
    }
    return yield* GuestMemory.make(regions, { subject })
  })

/** The part of a core that is headers, without its sections: those lie behind the memory, perhaps beyond the window. */
const headersOf = (file: Uint8Array): Uint8Array => {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  const count = view.getUint16(56, true)
  if (count === 0xffff) return file // PN_XNUM: the count is in section header 0, which follows the headers
  const end = Math.max(64, Number(view.getBigUint64(32, true)) + count * view.getUint16(54, true))
  if (end > file.length || end > MAX_HEADERS) return file // and let the parser say what is wrong
  const headers = file.slice(0, end)
  headers.fill(0, 40, 48) // e_shoff
  return headers
}

/**
 * A raw file has no gap where physical memory has one: what does not fit below the gap for devices under 4 GiB goes on at
 * 4 GiB. Where it splits is up to the machine (QEMU pc: 3 GiB, or 3.5 in old ones; q35: 2 GiB; Firecracker 3.25), so the
 * kernel is asked: its direct map covers all of the memory it was given and nothing else.
 */
const rawMemory = (
  subject: string,
  windows: ReadonlyArray<Uint8Array>,
  size: number,
  findAnchor: FindAnchor
): Either.Either<GuestMemory, NotAKernel | FormatError> =>
  Either.gen(function*() {
    const split = (at: number) =>
      at >= size
        ? GuestMemory.make(regionsOf(windows, 0, 0, size), { subject })
        : GuestMemory.make([...regionsOf(windows, 0, 0, at), ...regionsOf(windows, GIB4, at, size)], { subject })
    if (size <= SMALLEST_SPLIT) return yield* split(size)
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
          const anchor = findAnchor(memory, early)
          if (!isAnchor(anchor)) {
            candidates = Math.max(candidates, anchor.candidates)
            why = anchor.why
            break
          }
          release = anchor.release
          const right = splitOf(anchor, size)
          if (right === at) return memory
          if (right === undefined) break
          at = right
        }
        if (!early && candidates === 0 && release === undefined) break // there are as many in every layout
      }
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

/** Where low memory ends on machines we know: QEMU's pc and microvm, q35, Firecracker and kvmtool, old pc, small q35. */
const SPLITS = [0xc000_0000, 0x8000_0000, 0xd000_0000, 0xe000_0000, 0xb000_0000]
const SMALLEST_SPLIT = 0x8000_0000
/** Firmware keeps less than this at the end of low memory. */
const RESERVED = 2 ** 28

/** The split that agrees with the direct map which `anchor` sees; the file's size when there is none to make. */
const splitOf = ({ table }: KernelAnchor, size: number): number | undefined => {
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

/** What both ways in say of memory without a kernel. */
export const notAKernel = (subject: string, bytes: number, candidates: number, why: string): NotAKernel =>
  new NotAKernel({
    subject,
    why: "no running x86-64 Linux kernel in it",
    looked: `looked for a VMCOREINFO page in ${Math.ceil(bytes / 2 ** 20)} MiB, found ${candidates}` +
      (candidates === 0 ? "" : `, the last one wrong: ${why}`),
    hint: `${HINT}, taken after the kernel started; for a kernel without CONFIG_VMCORE_INFO give its vmlinux too`
  })
