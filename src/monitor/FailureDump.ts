import * as Effect from "effect/Effect"
import { listLinks } from "../bpf/guest/links/Links.ts"
import type { MapAccessorService } from "../bpf/MapAccessor.ts"
import type { MapReader } from "../bpf/MapReader.ts"
import { DUMP_VERSION, type Header } from "../bpf/Report.ts"
import { jsonDocument } from "../bpf/report/DumpWriter.ts"
import { hex } from "../core/Address.ts"
import { escapedJson } from "../core/EscapeText.ts"
import { Losses, lossesIn } from "../core/Losses.ts"
import { type Reason, truncated, unreadable } from "../core/Reason.ts"
import { parseScxExits } from "../host/ScxExit.ts"
import type { CpuRegisters } from "../kvm/spec/VcpuRegisters.ts"
import { GuestKernel, type GuestKernelService } from "../memory/GuestKernel.ts"
import { readSched } from "../sched/SchedState.ts"
import type { FailedCpu, Failure, FailureDocument, FailureLog } from "./Failure.ts"
import { readKernelRing } from "./KernelRing.ts"

/** Entries of each map, bytes of all maps, lines of the log and of the console that a dump has at most. */
const MOST_ENTRIES = 4096
const MOST_BYTES = 48 * 2 ** 20
const MOST_LINES = 400

/**
 * All that was read of a guest that failed: the document as UTF-8, to which `sealFailure` adds the log.
 *
 * @since 0.1.0
 * @category models
 */
export interface CapturedFailure {
  readonly pieces: ReadonlyArray<Uint8Array>
  readonly log: FailureLog
}

/**
 * A guest that was stopped for its failure, ready to be read.
 *
 * @since 0.1.0
 * @category models
 */
export interface StoppedGuest {
  readonly header: Header
  readonly kernel: GuestKernelService
  readonly maps: MapAccessorService
  readonly registers: ReadonlyArray<CpuRegisters> | Reason
  readonly console: ReadonlyArray<string>
}

/** The part that all documents begin with. */
type Front = Omit<FailureDocument, "maps" | "programs" | "problems" | "losses" | "log">

/**
 * Read all of a stopped guest. What cannot be read is a `Reason` in its place.
 *
 * @since 0.1.0
 * @category constructors
 */
export const captureFailure = (failure: Failure, guest: StoppedGuest): Effect.Effect<CapturedFailure> =>
  Effect.gen(function*() {
    const { header, kernel, maps } = guest
    const sched = readSched(kernel)
    const links = yield* Effect.provideService(listLinks, GuestKernel, kernel).pipe(
      Effect.catchAll((error) => Effect.succeed(unreadable(error.message)))
    )
    const listed = yield* Effect.gen(function*() {
      const { items, problems } = yield* maps.list
      const programs = yield* maps.programs
      return {
        readers: yield* Effect.forEach(items, maps.reader),
        programs: programs.items,
        problems: [...problems, ...programs.problems]
      }
    }).pipe(
      Effect.catchAll((error) => Effect.succeed({ readers: [], programs: [], problems: [unreadable(error.message)] }))
    )
    const front: Front = {
      ...header,
      schema: "single",
      failure,
      degraded: null,
      vcpus: "kind" in guest.registers
        ? guest.registers
        : guest.registers.map((registers, cpu) => failedCpu(kernel, registers, cpu)),
      sched,
      links: "kind" in links ? links : links.items,
      console: guest.console.slice(-MOST_LINES)
    }
    const problems = [...listed.problems, ...("kind" in links ? [] : links.problems)]
    const losses = new Losses()
    const lost = lossesIn(front)
    losses.count = lost.count
    let bytes = 0
    const readers = function*(): Generator<MapReader> {
      for (const reader of listed.readers) {
        const { id, name } = reader.info
        if (bytes < MOST_BYTES) yield reader
        else problems.push(truncated(`map ${id} ${name}: left out, the maps before it have ${bytes} bytes`))
      }
    }
    const pieces: Array<Uint8Array> = []
    const dump = { header: { ...front, ...header }, readers: readers(), limit: MOST_ENTRIES }
    for (const piece of jsonDocument({ ...dump, programs: listed.programs, problems, losses })) {
      pieces.push(piece.slice())
      bytes += piece.length
    }
    return { pieces, log: readFailureLog(kernel) }
  }).pipe(Effect.withSpan("Monitor.captureFailure"))

const failedCpu = (
  { symbolAt }: GuestKernelService,
  { control, general, segments }: CpuRegisters,
  cpu: number
): FailedCpu => {
  const mode = (segments.cs.selector & 3) === 3 ? "user" : "kernel" // the requested privilege level
  const symbol = mode === "kernel" ? symbolAt(general.rip) : undefined
  return {
    cpu,
    mode,
    place: symbol === undefined ? null : `${symbol.name}+${hex(symbol.offset)}`,
    registers: Object.fromEntries([...Object.entries(general), ...Object.entries(control)].map(([name, value]) => [
      name,
      hex(value)
    ]))
  }
}

/**
 * The document of a guest that could not be stopped, or not be read: why, and what its console had.
 *
 * @since 0.1.0
 * @category constructors
 */
export const degradedFailure = (
  failure: Failure,
  source: Header["source"],
  why: Reason,
  console: ReadonlyArray<string>
): CapturedFailure => {
  const front: Front = {
    schema: "degraded",
    version: DUMP_VERSION,
    failure,
    degraded: why,
    source,
    kernel: null,
    freeze: null,
    vcpus: why,
    sched: why,
    links: why,
    console: console.slice(-MOST_LINES)
  }
  const whole = { ...front, maps: [], programs: [], problems: [why], losses: lossesIn(front).count }
  return { pieces: [Buffer.from(`${escapedJson(whole)}\n`)], log: { lines: [], exits: [], problem: why } }
}

/**
 * The log of a kernel, stopped or not: the last lines, and the ends of schedulers in all of it.
 *
 * @since 0.1.0
 * @category reading
 */
export const readFailureLog = (kernel: GuestKernelService): FailureLog => {
  const { lines, problem } = readKernelRing(kernel)
  return { lines: lines.slice(-MOST_LINES), exits: parseScxExits(lines), problem }
}

const CLOSE = "}\n"

/**
 * The whole document, as UTF-8. The log is added last, because a kernel says why it ended a scheduler some time after it
 * has decided to.
 *
 * @since 0.1.0
 * @category rendering
 */
export const sealFailure = ({ log, pieces }: CapturedFailure): ReadonlyArray<Uint8Array> => {
  const last = pieces[pieces.length - 1]
  const end = Buffer.from(`,\n"log":${escapedJson(log)}${CLOSE}`)
  return [...pieces.slice(0, -1), last.subarray(0, last.length - CLOSE.length), end]
}
