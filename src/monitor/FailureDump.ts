import * as Effect from "effect/Effect"
import { DUMP_VERSION, type Header } from "../bpf/Report.ts"
import { escapedJson } from "../core/EscapeText.ts"
import { lossesIn } from "../core/Losses.ts"
import type { Reason } from "../core/Reason.ts"
import { parseScxExits } from "../host/ScxExit.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import type { Failure, FailureDocument, FailureLog } from "./Failure.ts"
import { readKernelRing } from "./KernelRing.ts"
import { captureReading, type StoppedGuest } from "./moments/CaptureReading.ts"
import { momentPieces, type TakenMoment } from "./moments/TakenMoment.ts"
import { withMembers } from "./moments/WithMembers.ts"
import type { Sample } from "./Sample.ts"

/** Lines of the log and of the console that a dump has at most. */
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
  readonly early?: TakenMoment | undefined
  /** Samples before the failure, which `awaitFailure` can give. */
  readonly samples?: ReadonlyArray<Sample> | undefined
}

/**
 * Read all of a stopped guest. What cannot be read is a `Reason` in its place.
 * @param early the guest before its failure, for the document
 *
 * @since 0.1.0
 * @category constructors
 */
export const captureFailure = (
  failure: Failure,
  guest: StoppedGuest & { readonly console: ReadonlyArray<string> },
  early?: TakenMoment
): Effect.Effect<CapturedFailure> =>
  captureReading(guest, {
    schema: early === undefined ? "single" : "dual",
    failure,
    degraded: null,
    console: guest.console.slice(-MOST_LINES)
  }).pipe(
    Effect.map((pieces) => ({ pieces, log: readFailureLog(guest.kernel), early })),
    Effect.withSpan("Monitor.captureFailure")
  )

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
  console: ReadonlyArray<string>,
  early?: TakenMoment
): CapturedFailure => {
  const front: Omit<FailureDocument, "maps" | "programs" | "problems" | "losses" | "log" | "early" | "samples"> = {
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
  return { pieces: [Buffer.from(`${escapedJson(whole)}\n`)], log: { lines: [], exits: [], problem: why }, early }
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

/** `sched_ext: BPF scheduler "NAME" enabled`, and more words; `sub-scheduler` since v7.1 */
const ENABLED = /^sched_ext: BPF (?:sub-)?scheduler ".*" enabled/

/** Has the kernel said why it ended the scheduler that was enabled last? It does so when it has done it. */
export const saysWhyItEnded = ({ lines }: FailureLog): boolean =>
  parseScxExits(lines.slice(lines.findLastIndex(({ text }) => ENABLED.test(text)) + 1))
    .some(({ kind }) => kind !== "normal")

/**
 * The whole document, as UTF-8. The log is added last, because a kernel says why it ended a scheduler some time after it
 * has decided to.
 *
 * @since 0.1.0
 * @category rendering
 */
export const sealFailure = ({ early, log, pieces, samples }: CapturedFailure): ReadonlyArray<Uint8Array> =>
  withMembers(pieces, {
    log: [Buffer.from(escapedJson(log))],
    ...(samples === undefined ? {} : { samples: [Buffer.from(escapedJson(samples))] }),
    ...(early === undefined ? {} : { early: momentPieces(early) })
  })
