import * as Effect from "effect/Effect"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type { Duplex } from "node:stream"

/** QEMU refused a command, answered what we cannot read, or hung up. */
export class QmpError extends Schema.TaggedError<QmpError>("ktstr/QmpError")("QmpError", {
  command: Schema.String,
  reason: Schema.Literal("refused", "unreadable", "closed"),
  detail: Schema.String
}) {
  override get message() {
    return `QEMU's monitor, ${this.command}: ${this.reason}: ${this.detail}`
  }
}

/** A connection to a QEMU monitor. Commands are answered in the order in which they were started. */
export interface Qmp {
  /** Send a command at once; waits for its answer, which must have the shape of `result`. */
  readonly execute: <A, I>(
    command: string,
    result: Schema.Schema<A, I>,
    parameters?: Readonly<Record<string, unknown>>
  ) => Effect.Effect<A, QmpError>
  /** Succeeds when QEMU has greeted us and left capabilities negotiation. */
  readonly ready: Effect.Effect<void, QmpError>
  /** Run with the name of each event that comes. */
  readonly listeners: Set<(event: string) => void>
}

/** How long to wait for the end of a QEMU whose monitor is broken: how it ended says more. */
const HANG_UP = "2 seconds"

/** The failure of a broken monitor, or QEMU's end if that comes meanwhile; whoever waits may be uninterruptible. */
export const endedOr = <E, F>(ended: Effect.Effect<never, E>, failure: Effect.Effect<never, F>) =>
  Effect.interruptible(Effect.raceFirst(ended, Effect.zipRight(Effect.sleep(HANG_UP), failure)))

/** More than QEMU ever says in one message, and parsed within a second; a peer that sends a longer line is hung up on. */
const LONGEST_MESSAGE = 2 ** 21

const Message = Schema.parseJson(Schema.Struct({
  QMP: Schema.optional(Schema.Unknown),
  event: Schema.optional(Schema.String),
  id: Schema.optional(Schema.Number),
  return: Schema.optional(Schema.Unknown),
  error: Schema.optional(Schema.Struct({ class: Schema.String, desc: Schema.String }))
}))
const decodeMessage = Schema.decodeUnknownEither(Message)

/**
 * Speak QMP over `socket`. Of the VM's end its process tells better than an event.
 * @see https://qemu.readthedocs.io/en/v7.2.19/interop/qmp-spec.html
 */
export const connect = (socket: Duplex): Qmp => {
  const waiting = new Map<number, (answer: Effect.Effect<unknown, QmpError>) => void>()
  const listeners: Qmp["listeners"] = new Set()
  const pieces: Array<string> = []
  let length = 0
  let nextId = 1
  let closed: string | undefined
  const close = (detail: string) => {
    closed ??= detail
    for (const answer of waiting.values()) answer(fail("", "closed", detail))
    waiting.clear()
  }
  const receive = (line: string) => {
    const decoded = decodeMessage(line)
    if (decoded._tag === "Left") return close(`not a QMP message: ${line.slice(0, 80)}`)
    const { error, event, id } = decoded.right
    if (event !== undefined) listeners.forEach((listener) => listener(event))
    const answer = id === undefined ? undefined : waiting.get(id)
    if (answer === undefined || id === undefined) return
    waiting.delete(id)
    answer(error === undefined ? Effect.succeed(decoded.right.return) : fail("", "refused", error.desc))
  }
  socket.setEncoding("utf8")
  socket.on("data", (text: string) => {
    if (closed !== undefined) return
    const lines = text.split("\n")
    const last = lines.pop() ?? ""
    for (const line of lines) {
      const whole = [...pieces.splice(0), line].join("").trim()
      length = 0
      if (whole !== "") receive(whole)
    }
    pieces.push(last)
    length += last.length
    if (length > LONGEST_MESSAGE) close("a message without an end")
  })
  // A write that QEMU's end overtakes comes back as one of these; it says no more than the end that follows it.
  socket.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "ECONNRESET" && error.code !== "EPIPE") close(error.message)
  })
  socket.on("close", () => close("the connection has ended"))

  const execute: Qmp["execute"] = (command, result, parameters) =>
    Effect.async<unknown, QmpError>((resume) => {
      if (closed !== undefined) return resume(fail(command, "closed", closed))
      const id = nextId++
      waiting.set(id, (answer) => resume(answer))
      socket.write(`${JSON.stringify({ execute: command, ...(parameters && { arguments: parameters }), id })}\n`)
      return Effect.sync(() => waiting.delete(id))
    }).pipe(
      Effect.mapError((error) => new QmpError({ ...error, command })),
      Effect.flatMap((answer) =>
        Schema.decodeUnknown(result)(answer).pipe(Effect.mapError((error) =>
          new QmpError({ command, reason: "unreadable", detail: ParseResult.TreeFormatter.formatErrorSync(error) })
        ))
      )
    )
  return { execute, ready: Effect.asVoid(execute("qmp_capabilities", Schema.Unknown)), listeners }
}

const fail = (command: string, reason: QmpError["reason"], detail: string) =>
  Effect.fail(new QmpError({ command, reason, detail }))
