import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  type Stats,
  statSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { SyscallError } from "../../core/Errors.ts"
import { Native } from "../../core/Native.ts"
import { stage } from "../../core/Progress.ts"
import { backingFile, type MemoryRegion } from "../../memory/GuestMemory.ts"
import { type RamRange, regionsOf } from "../spec/MemoryLayout.ts"
import { type Qmp, QmpError } from "./Qmp.ts"

/** One mapping of a file. */
const WINDOW = 2 ** 30
/** include/uapi/asm-generic/errno.h: QEMU has closed that descriptor since, and opened another. */
const ESTALE = 116

/** A file with guest memory, and the ranges of that which are in it. */
export interface MemoryFile {
  readonly path: string
  readonly stat: Stats
  /** Their offsets are the file's. */
  readonly ranges: ReadonlyArray<RamRange>
}

/** Maps the file; gives the regions that ranges of it are. */
export const mapFile = ({ path, stat: { dev, ino, size } }: MemoryFile) =>
  Effect.gen(function*() {
    const native = yield* Native
    const fd = yield* native.open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const opened = fstatSync(fd)
    if (opened.ino !== ino || opened.dev !== dev) return yield* SyscallError.of("open", "QEMU's memory", ESTALE)
    const windows: Array<Uint8Array> = []
    for (let at = 0; at < size; at += WINDOW) {
      windows.push(yield* native.mmap(fd, at, Math.min(WINDOW, size - at), "read"))
    }
    return (ranges: ReadonlyArray<RamRange>) => regionsOf(ranges, windows, WINDOW, backingFile(native, fd))
  })

/** include/uapi/asm-generic/errno-base.h */
const ENOSPC = 28
/** QEMU writes more than that in a second, in bytes, or is not waited for. */
const LEAST_RATE = 10 * 2 ** 20

/**
 * Guest memory that QEMU itself writes to files of ours, for a process that we must not look into. All of it, zeros too:
 * that takes as much room as the guest has memory, until the scope closes, and QEMU answers nothing else meanwhile. The
 * files are in a new folder of TMPDIR, under names that no other user can know, and have none once they are written.
 * @see QEMU softmmu/cpus.c `qmp_pmemsave`, 7.2
 */
export const savedMemory = (
  qmp: Qmp,
  ranges: ReadonlyArray<RamRange>
): Effect.Effect<ReadonlyArray<MemoryRegion>, QmpError | SyscallError, Native | Scope.Scope> =>
  Effect.acquireUseRelease(
    Effect.try({ try: newFolder, catch: ofNode("mkdir", tmpdir()) }),
    (folder) =>
      Effect.gen(function*() {
        const bytes = ranges.reduce((sum, { length }) => sum + length, 0)
        const size = `${Math.ceil(bytes / 2 ** 20)} MiB`
        const { bavail, bsize } = yield* Effect.try({ try: () => statfsSync(folder), catch: ofNode("statfs", folder) })
        if (bavail * bsize < bytes) {
          return yield* SyscallError.of("write", `${size} of guest memory to ${folder}`, ENOSPC)
        }
        return yield* stage(`QEMU writes ${size} of memory to ${folder}`, "Qemu.save")(
          Effect.map(Effect.forEach(ranges, (range) => savedRange(qmp, folder, range)), (regions) => regions.flat())
        )
      }),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )

const savedRange = (qmp: Qmp, folder: string, { length, start }: RamRange) =>
  Effect.gen(function*() {
    const path = join(folder, randomUUID())
    yield* Effect.try({ try: () => newFile(path), catch: ofNode("open", path) })
    yield* Effect.timeoutFail(
      qmp.execute("pmemsave", Schema.Unknown, { val: start, size: length, filename: path }),
      {
        duration: `${10 + Math.ceil(length / LEAST_RATE)} seconds`,
        onTimeout: () => new QmpError({ command: "pmemsave", reason: "unreadable", detail: "it takes too long" })
      }
    )
    const stat = yield* Effect.try({ try: () => statSync(path), catch: ofNode("stat", path) })
    if (stat.size !== length) {
      return yield* new QmpError({
        command: "pmemsave",
        reason: "unreadable",
        detail: `${path} has ${stat.size} bytes, not ${length}: does QEMU have other files than we (a container's)?`
      })
    }
    const ranges = [{ start, length, offset: 0 }]
    return (yield* mapFile({ path, stat, ranges }))(ranges)
  })

/** Others, as which QEMU may run, can get to a file in it, but not list it. */
const newFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "ktstr-memory-"))
  chmodSync(folder, 0o711)
  return folder
}

/** Others can write it, but not read it. */
const newFile = (path: string): void => {
  closeSync(openSync(path, "wx", 0o600))
  chmodSync(path, 0o622)
}

const ofNode = (syscall: string, subject: string) => (error: unknown): SyscallError =>
  SyscallError.of(syscall, subject, -((error as NodeJS.ErrnoException).errno ?? 0))
