import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { ExecFailed, type ExecOptions, type ExecResult } from "../spec/VmEngine.ts"
import type { Console } from "./Console.ts"
import { doneReport, execLine, outputReport, partLine, partReport } from "./Init.ts"

/** Characters of a piece: with the words before it, less than the 4095 that a terminal's line takes. */
const PIECE = 3000
/** Most bytes of a command, and of output. */
const LONGEST_COMMAND = 2 ** 20
const MOST_OUTPUT = 2 ** 24

/**
 * Runs commands in a guest whose init listens on the report channel. It echoes each piece, so that no more is on its way
 * than it has room for; the output comes back in base64, and its length with the status.
 * @param send to the report channel
 */
export const makeExec = (
  report: Console,
  send: (bytes: Uint8Array) => Effect.Effect<void>
): (command: string, options?: ExecOptions) => Effect.Effect<ExecResult, ExecFailed> => {
  const alone = Effect.unsafeMakeSemaphore(1).withPermits(1)
  let last = 0
  return (command, options = {}) => {
    const failed = (why: string, hint: string) => new ExecFailed({ command, why, hint })
    const outputBytes = options.outputBytes ?? 2 ** 20
    const limit = Option.getOrUndefined(Duration.decodeUnknown(options.timeout ?? "60 seconds"))
    const bytes = Buffer.from(command)
    if (!Number.isInteger(outputBytes) || outputBytes < 0 || outputBytes > MOST_OUTPUT) {
      return failed(`outputBytes is ${outputBytes}`, `set it to a whole number up to ${MOST_OUTPUT}`)
    }
    if (limit === undefined || Duration.toMillis(limit) <= 0) {
      return failed(`timeout is ${String(options.timeout)}, not a time`, `set timeout to "30 seconds", say`)
    }
    if (bytes.length > LONGEST_COMMAND) {
      return failed(
        `it has ${bytes.length} bytes, the limit is ${LONGEST_COMMAND}`,
        "include it as a file, and run that"
      )
    }
    const run: Effect.Effect<ExecResult | undefined> = Effect.suspend(() => {
      const number = ++last
      return Effect.zipRight(
        sendPieces(report, send, number, bytes.toString("base64")),
        runAndCollect(report, send, number, outputBytes)
      )
    })
    return alone(run).pipe(
      Effect.flatMap((result): Effect.Effect<ExecResult, ExecFailed> =>
        result === undefined
          ? failed("its output was lost", "make it write less, or write to a file")
          : Effect.succeed(result)
      ),
      Effect.timeoutFail({
        duration: limit,
        onTimeout: () => failed(`it did not finish within ${Duration.toSeconds(limit)} s`, "raise its timeout")
      })
    )
  }
}

/** Send something, and take the first line after it, of what comes from then on, for which `take` gives a value. */
const answered = <A>(
  report: Console,
  send: Effect.Effect<void>,
  take: (line: string) => A | undefined
): Effect.Effect<A> =>
  Effect.suspend(() => {
    const lines = report.linesFrom(report.count)
    const answer = Stream.runHead(Stream.filterMap(lines, (line) => Option.fromNullable(take(line))))
    // a report that has ended never answers: the VM's end does
    return Effect.zipRight(
      send,
      Effect.flatMap(answer, Option.match({ onNone: () => Effect.never, onSome: Effect.succeed }))
    )
  })

const sendPieces = (
  report: Console,
  send: (bytes: Uint8Array) => Effect.Effect<void>,
  number: number,
  base64: string
): Effect.Effect<void> => {
  const pieces = Array.from(
    { length: Math.max(1, Math.ceil(base64.length / PIECE)) },
    (_, index) => base64.slice(index * PIECE, (index + 1) * PIECE)
  )
  const taken = (line: string) => Number(partReport.exec(line)?.[1]) === number ? true : undefined
  return Effect.forEach(pieces, (piece) => answered(report, send(partLine(number, piece)), taken), { discard: true })
}

/** Undefined where the output that came is not as long as the guest says. */
const runAndCollect = (
  report: Console,
  send: (bytes: Uint8Array) => Effect.Effect<void>,
  number: number,
  outputBytes: number
): Effect.Effect<ExecResult | undefined> => {
  const pieces: Array<Buffer> = []
  let length = 0
  return answered(report, send(execLine(number, outputBytes)), (line) => {
    const output = outputReport.exec(line)
    if (output !== null && Number(output[1]) === number && length < outputBytes) {
      const piece = Buffer.from(output[2], "base64")
      pieces.push(piece)
      length += piece.length
    }
    const done = doneReport.exec(line)
    if (done === null || Number(done[1]) !== number || Number(done[2]) > 255) return undefined
    return { status: Number(done[2]), bytes: Number(done[3]) }
  }).pipe(Effect.map(({ bytes, status }) => {
    if (length !== Math.min(bytes, outputBytes)) return undefined
    return { status, output: Buffer.concat(pieces).toString("utf8"), truncated: bytes > outputBytes }
  }))
}
