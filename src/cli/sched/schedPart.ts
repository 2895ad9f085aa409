import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { NotADump } from "../../bpf/report/SnapshotDiff.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { diffSched, guestSeconds, readSched, type SchedChange, SchedDocument } from "../../sched/index.ts"
import { diffText } from "./schedDiff.ts"

/** Where a side of `ktstr diff` has its scheduler's state: in a kernel, or as JSON in the file `subject`. */
export type SchedSource = { readonly kernel: GuestKernelService } | { readonly json: unknown; readonly subject: string }

/** The changes of the scheduler, with seconds of the guest's time. */
export interface SchedPart {
  readonly seconds: number | null
  readonly changes: ReadonlyArray<SchedChange>
  /** For people; empty where nothing changed. */
  readonly text: string
}

const decode = Schema.decodeUnknownEither(SchedDocument, { onExcessProperty: "ignore" })

const read = (source: SchedSource) =>
  "kernel" in source
    ? Either.right(readSched(source.kernel))
    : Either.mapLeft(decode(source.json), (error) => {
      const [{ message, path }] = ParseResult.ArrayFormatter.formatErrorSync(error)
      return new NotADump({
        subject: source.subject,
        why: `${["sched", ...path].join(".")}: ${message.split("\n", 1)[0].slice(0, 200)}`
      })
    })

/** The scheduler's part of `ktstr diff`, of two sides of one boot. */
export const schedPart = (from: SchedSource, to: SchedSource): Either.Either<SchedPart, NotADump> =>
  Either.map(Either.all([read(from), read(to)]), ([from, to]) => {
    const seconds = guestSeconds(from.time, to.time)
    const changes = [...diffSched(from, to)]
    return { seconds, changes, text: changes.length === 0 ? "" : diffText(changes, seconds) }
  })
