import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { constants, readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { SyscallError } from "../../core/Errors.ts"
import { FormatError } from "../../core/FormatError.ts"
import { Native } from "../../core/Native.ts"
import { FilePages } from "../../memory/cores/FilePages.ts"
import { GuestMemory } from "../../memory/GuestMemory.ts"
import { isLocated, locateByVmcoreinfo } from "../../memory/LocateKernel.ts"
import { type FileSegment, rawMemory } from "../../memory/RawMemory.ts"
import { type RamRange, ramRanges } from "../spec/MemoryLayout.ts"
import { isQemu, programOf, unlessGone } from "./FindMonitor.ts"
import { mapFile, type MemoryFile, savedMemory } from "./MemoryFile.ts"
import type { Qmp, QmpError } from "./Qmp.ts"

/** Where QEMU has a part of the guest's memory in its own address space. */
interface HostRange extends RamRange {
  readonly host: number
}

/** A mapping of a process: `offset` is that of its first byte in its file. Others can have a shared one too. */
interface Mapping {
  readonly start: number
  readonly end: number
  readonly shared: boolean
  readonly code: boolean
  readonly offset: number
  readonly device: string
  readonly inode: number
}

const Memdev = Schema.Array(Schema.Struct({ id: Schema.optional(Schema.String), size: Schema.Number }))

/**
 * The memory of a guest whose QEMU someone else started, until the scope closes. Where all of it is mapped from files for all
 * to see (`share=on`), their mapping, read-only; else what /proc/PID/mem has, a page at a time and kept, so the guest must
 * stand still. Where no process is known, or we may not look into it, QEMU writes its memory to files for us.
 * @param proc the process's directory in /proc, by a descriptor of ours: it stays that process's when the number is another's
 * @see QEMU monitor/hmp-cmds-target.c `hmp_gpa2hva`, 7.2; fs/proc/task_mmu.c `show_map_vma`, v6.12
 */
export const qemuProcessMemory = (
  qmp: Qmp,
  backends: ReadonlyArray<ReadonlyArray<HostRange>>,
  proc: string | undefined
): Effect.Effect<GuestMemory, QmpError | FormatError | SyscallError, Native | Scope.Scope> =>
  Effect.gen(function*() {
    const saved = Effect.flatMap(savedMemory(qmp, backends.flat()), (regions) => GuestMemory.make(regions, { subject }))
    const memory = yield* (proc === undefined ? saved : Effect.catchIf(memoryOf(proc, backends), isForbidden, () =>
      saved))
    yield* Effect.addFinalizer(() => Effect.sync(() => memory.release()))
    return memory
  })

const subject = "QEMU's memory"

/** The errors of those who may not trace a process: kernel/ptrace.c `__ptrace_may_access`, v6.12. */
const isForbidden = (error: FormatError | SyscallError): boolean =>
  error._tag === "SyscallError" && (error.code === "EACCES" || error.code === "EPERM")

const memoryOf = (
  proc: string,
  backends: ReadonlyArray<ReadonlyArray<HostRange>>
): Effect.Effect<GuestMemory, FormatError | SyscallError, Native | Scope.Scope> =>
  Effect.gen(function*() {
    const files = yield* Effect.try({
      try: () => {
        const shared = mappingsOf(proc).filter((mapping) => mapping.shared)
        return backends.map((ranges) => sharedFile(proc, ranges, shared))
      },
      catch: unreadableMappings
    })
    return files.every((file) => file !== undefined)
      ? yield* GuestMemory.make(
        yield* Effect.map(
          Effect.forEach(files, (file) => Effect.map(mapFile(file), (regions) => regions(file.ranges))),
          (regions) => regions.flat()
        ),
        { subject }
      )
      : yield* GuestMemory.paged(
        processPages(yield* (yield* Native).open(`${proc}/mem`, constants.O_RDONLY), backends.flat()),
        { subject }
      )
  })

/**
 * The number of the one QEMU that has its guest's memory where the monitor's says that it has it; undefined where we may not
 * look into that, or several have.
 */
export const processWith = (backends: ReadonlyArray<ReadonlyArray<HostRange>>): number | undefined => {
  const found = readdirSync("/proc").filter((entry) =>
    /^\d+$/.test(entry) && unlessGone(() => {
        const proc = `/proc/${entry}`
        if (!isQemu(programOf(proc))) return false
        const mappings = joined(mappingsOf(proc))
        return backends.flat().every(({ host, length }) =>
          mappings.some(({ end, start }) => start <= host && host + length <= end)
        )
      }) === true
  )
  return found.length === 1 ? Number(found[0]) : undefined
}

/**
 * The memory of a guest without a monitor, by what it shows itself: it is the mapping of QEMU's in which a kernel
 * is found, at the addresses at which that kernel has it. The guest may run on: shared memory changes while it is read, of
 * other memory each page is as it was when it was first read. Undefined where there is none: `looked` says at how many bytes.
 */
export const foundProcessMemory = (
  proc: string
): Effect.Effect<
  { readonly memory: GuestMemory | undefined; readonly looked: ReadonlyArray<number> },
  FormatError | SyscallError,
  Native | Scope.Scope
> =>
  Effect.gen(function*() {
    const looked: Array<number> = []
    for (const candidate of yield* Effect.try({ try: () => candidatesOf(proc), catch: unreadableMappings })) {
      looked.push(candidate.range.length)
      const memory = yield* Effect.catchTag(candidateMemory(proc, candidate), "NotAKernel", () =>
        Effect.succeed(undefined))
      if (memory === undefined || !isLocated(locateByVmcoreinfo(memory))) {
        continue
      }
      yield* Effect.addFinalizer(() =>
        Effect.sync(() =>
          memory.release()
        )
      )
      return { memory, looked }
    }
    return { memory: undefined, looked }
  })

/** A mapping that may be the guest's memory, and the file that it is of, where others can map that too. */
interface Candidate {
  readonly range: HostRange
  readonly file: MemoryFile | undefined
}

/** No kernel runs in less, in bytes. */
const LEAST_MEMORY = 16 * 2 ** 20
const MOST_CANDIDATES = 4

/** The largest mappings. Those of code are QEMU's own: what it translates guests' instructions to. */
const candidatesOf = (proc: string): ReadonlyArray<Candidate> => {
  const mappings = joined(mappingsOf(proc)).filter(({ code, end, start }) => !code && end - start >= LEAST_MEMORY)
  const shared = mappings.filter((mapping) => mapping.shared)
  return mappings.toSorted((a, b) => b.end - b.start - (a.end - a.start)).slice(0, MOST_CANDIDATES).map(
    ({ end, start }) => {
      const range = { start: 0, length: end - start, offset: 0, host: start }
      return { range, file: sharedFile(proc, [range], shared) }
    }
  )
}

const candidateMemory = (proc: string, { file, range }: Candidate) =>
  Effect.gen(function*() {
    const size = range.length
    if (file === undefined) { // only this asks for the right to trace it
      const pages = yield* (yield* Native).open(`${proc}/mem`, constants.O_RDONLY)
      return yield* rawMemory({
        subject,
        size,
        memory: (pieces) => {
          const ranges = rangesOf(pieces).map((piece) => ({ ...piece, host: range.host + piece.offset }))
          return GuestMemory.paged(processPages(pages, ranges), { subject })
        }
      })
    }
    const regions = yield* mapFile(file)
    const first = file.ranges[0].offset
    return yield* rawMemory({
      subject,
      size,
      memory: (pieces) => GuestMemory.make(regions(rangesOf(pieces, first)), { subject })
    })
  })

/** The pieces of a mapping whose first byte is at `first`. */
const rangesOf = (pieces: ReadonlyArray<FileSegment>, first = 0): ReadonlyArray<RamRange> =>
  pieces.map(({ end, offset, start }) => ({ start, length: end - start, offset: first + offset }))

const unreadableMappings = (error: unknown): SyscallError =>
  SyscallError.of("read", "QEMU's mappings in /proc", -((error as NodeJS.ErrnoException).errno ?? 0))

/** The kernel cuts a mapping where its parts are treated in different ways (huge pages, NUMA): such parts as one. */
const joined = (mappings: ReadonlyArray<Mapping>): ReadonlyArray<Mapping> => {
  const whole: Array<Mapping> = []
  for (const next of mappings) {
    const last = whole.at(-1)
    const goesOn = last !== undefined && last.end === next.start && last.inode === next.inode
      && last.device === next.device && last.shared === next.shared && last.code === next.code
      && (next.inode === 0 || last.offset + last.end - last.start === next.offset)
    if (goesOn) whole[whole.length - 1] = { ...last, end: next.end }
    else whole.push(next)
  }
  return whole
}

/** For each memory backend the guest's addresses that it answers, and where QEMU has them. */
export const hostRanges = (qmp: Qmp): Effect.Effect<ReadonlyArray<ReadonlyArray<HostRange>>, QmpError | FormatError> =>
  Effect.gen(function*() {
    const monitor = (line: string) => qmp.execute("human-monitor-command", Schema.String, { "command-line": line })
    const mtree = yield* monitor("info mtree -f")
    const words = new Set(mtree.split(/\s+/))
    // machines of QEMU 4.0 and older name it by its path; a backend that is nowhere is not the guest's memory
    const backends = (yield* qmp.execute("query-memdev", Memdev)).flatMap(({ id = "", size }) =>
      [id, `/objects/${id}`].filter((name) => words.has(name)).map((name) => ({ name, size }))
    )
    if (backends.length === 0) return yield* unexpected("query-memdev", "a memory backend that the guest has")
    return yield* Effect.forEach(
      backends,
      ({ name, size }) =>
        Effect.flatMap(
          ramRanges(mtree, name, size),
          (ranges) =>
            Effect.forEach(ranges, (range) =>
              Effect.gen(function*() {
                const address = (pa: number) => Effect.map(monitor(`gpa2hva 0x${pa.toString(16)}`), hostAddress)
                const host = yield* address(range.start)
                const last = yield* address(range.start + range.length - 1)
                if (host === undefined || last !== host + range.length - 1) {
                  return yield* unexpected("gpa2hva", `where ${range.length} bytes at ${range.start} lie`)
                }
                return { ...range, host }
              }))
        )
    )
  })

const unexpected = (command: string, expected: string): FormatError =>
  new FormatError({ format: "memory layout", subject: `QEMU's ${command}`, offset: 0, expected })

/** `Host virtual address for 0x1000 (pc.ram) is 0x7f5c47e01000` */
const hostAddress = (text: string): number | undefined => {
  const found = /\bis 0x([0-9a-f]{1,12})\s*$/.exec(text)
  return found === null ? undefined : Number.parseInt(found[1], 16)
}

/** `7f5c47e00000-7f5c67e00000 rw-s 00000000 00:01 9312  /memfd:memory-backend-memfd (deleted)` */
const MAPPING = /^([0-9a-f]+)-([0-9a-f]+) r[w-]([x-])([sp]) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+)/

const mappingsOf = (proc: string): ReadonlyArray<Mapping> =>
  readFileSync(`${proc}/maps`, "latin1").split("\n").flatMap((line) => {
    const found = MAPPING.exec(line)
    if (found === null) return []
    const [, from, to, code, shared, at, device, inode] = found
    const [start, end, offset] = [from, to, at].map((digits) => Number.parseInt(digits, 16))
    return [{ start, end, code: code === "x", shared: shared === "s", offset, device, inode: Number(inode) }]
  })

/** The one file that all of the ranges are mapped from, where others can have that mapping too. */
const sharedFile = (
  proc: string,
  ranges: ReadonlyArray<HostRange>,
  mappings: ReadonlyArray<Mapping>
): MemoryFile | undefined => {
  const inFile = ranges.map((range) => {
    const mapping = mappings.find(({ end, start }) => start <= range.host && range.host + range.length <= end)
    return mapping && { mapping, range: { ...range, offset: mapping.offset + range.host - mapping.start } }
  })
  const first = inFile[0]?.mapping
  if (first === undefined) return undefined
  if (!inFile.every((part) => part?.mapping.inode === first.inode && part.mapping.device === first.device)) {
    return undefined
  }
  const directory = `${proc}/fd`
  for (const name of readdirSync(directory)) {
    const path = join(directory, name)
    const stat = statSync(path, { throwIfNoEntry: false })
    if (stat?.isFile() && stat.ino === first.inode && deviceOf(stat.dev) === first.device) {
      const parts = inFile.flatMap((part) => part === undefined ? [] : [part.range])
      return parts.every(({ length, offset }) => offset + length <= stat.size)
        ? { path, stat, ranges: parts }
        : undefined
    }
  }
  return undefined
}

/** As /proc/PID/maps has it. @see include/linux/kdev_t.h `new_encode_dev`, v6.12 */
const deviceOf = (dev: number): string => {
  const hex = (number: number) => number.toString(16).padStart(2, "0")
  return `${hex(dev >> 8 & 0xfff)}:${hex(dev & 0xff | dev >> 12 & 0xfff00)}`
}

/** Guest memory out of the file of a process's memory. */
const processPages = (fd: number, ranges: ReadonlyArray<HostRange>): FilePages =>
  new FilePages(fd, ranges.map(({ host, length, start }) => ({ start, end: start + length, offset: host })), {
    refused: "lies in a page that QEMU's process does not let us read"
  })
