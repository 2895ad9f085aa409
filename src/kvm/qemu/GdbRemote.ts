import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Schema from "effect/Schema"
import type { Duplex } from "node:stream"

/** QEMU's gdb server said what we do not understand, or hung up. */
export class GdbError extends Schema.TaggedError<GdbError>("ktstr/GdbError")("GdbError", {
  command: Schema.String,
  detail: Schema.String
}) {
  override get message() {
    return `QEMU's gdb server, ${this.command}: ${this.detail}`
  }
}

/** A debugger's connection to a guest. It begins with a guest that stands. */
export interface GdbRemote {
  /** Send a command once the guest stands; waits for the answer. One at a time. */
  readonly ask: (command: string) => Effect.Effect<string, GdbError>
  /**
   * Let the guest run once it stands; waits until QEMU has been told. Each time that it is let run, QEMU says once that it
   * stands again, whatever has stopped it.
   */
  readonly resume: Effect.Effect<void, GdbError>
  /** Waits for the server to say that the guest stands, which is known from elsewhere; one that does not is given up. */
  readonly stands: Effect.Effect<void, GdbError>
  /** How often a guest that was let run has been said to stand. */
  readonly stops: () => number
  /** Ends the connection. */
  readonly giveUp: (detail: string) => void
  /** Fails once the connection is of no more use. */
  readonly lost: Effect.Effect<never, GdbError>
}

/** More than any answer to what we ask. */
const LONGEST_PACKET = 4096

const textOf = (bytes: ReadonlyArray<number>): string => String.fromCharCode(...bytes)

/** The last byte of the sum of all, as two digits. */
const checksum = (text: string): string =>
  (Buffer.from(text, "latin1").reduce((sum, byte) => sum + byte, 0) & 0xff).toString(16).padStart(2, "0")

/** One thing that a server sends: that it has got a packet, or one of its own. */
export type Received = { readonly ack: true } | { readonly packet: string }

/** Takes a server's bytes apart as they come; throws a line that says what is wrong with them. */
export class GdbPackets {
  #packet: Array<number> | undefined;

  *take(bytes: Uint8Array): Generator<Received> {
    for (const byte of bytes) {
      const char = String.fromCharCode(byte)
      if (this.#packet === undefined) {
        if (char === "+") yield { ack: true }
        else if (char === "$") this.#packet = []
        else throw new Error(`neither a packet nor its receipt: byte 0x${byte.toString(16)}`)
        continue
      }
      this.#packet.push(byte)
      const end = this.#packet.indexOf(0x23)
      if (end >= 0 && this.#packet.length === end + 3) {
        const [packet, sum] = [textOf(this.#packet.slice(0, end)), textOf(this.#packet.slice(end + 1)).toLowerCase()]
        if (sum !== checksum(packet)) throw new Error(`a packet whose checksum is ${checksum(packet)}, not ${sum}`)
        this.#packet = undefined
        yield { packet }
      } else if (this.#packet.length > LONGEST_PACKET) throw new Error("a packet without an end")
    }
  }
}

/** Who has stopped the guest knows so from QEMU's monitor, and by then QEMU has said so here. */
export const STANDS_SECONDS = 0.5
/** The reason why a server is given up that has not said so. */
export const NOT_SAID = "the guest was not said to stand"

/** If it has not, the connection is of no more use: nobody knows whether the guest runs, and one that runs must not be told to. */
const soon = (stands: Effect.Effect<void, GdbError>, close: (detail: string) => void) =>
  stands.pipe(
    Effect.timeoutFail({
      duration: Duration.seconds(STANDS_SECONDS),
      onTimeout: () => new GdbError({ command: "c", detail: NOT_SAID })
    }),
    Effect.tapError(({ detail }) => Effect.sync(() => close(detail)))
  )

/**
 * Speak gdb's remote protocol over `socket`, to a QEMU whose guest stands. QEMU stops a guest that runs for any byte but a
 * receipt that it waits for (gdbstub/gdbstub.c `gdb_read_byte`, 10.0), so all else waits until it stands.
 * @param stopped run at once when the guest, which was let run, stands again
 * @see https://sourceware.org/gdb/current/onlinedocs/gdb.html/Overview.html
 */
export const connectGdb = (socket: Duplex, stopped: () => void): GdbRemote => {
  const made = <A>() => Deferred.unsafeMake<A, GdbError>(FiberId.none)
  const done = <A>(deferred: Deferred.Deferred<A, GdbError> | undefined, exit: Effect.Effect<A, GdbError>) => {
    if (deferred !== undefined) Deferred.unsafeDone(deferred, exit)
  }
  const packets = new GdbPackets()
  let standing = made<void>()
  done(standing, Effect.void)
  let isRunning = false
  let stops = 0
  let receipt: Deferred.Deferred<void, GdbError> | undefined
  let answer: Deferred.Deferred<string, GdbError> | undefined
  let closed: string | undefined
  const lost = made<never>()

  const close = (detail: string) => {
    if (closed !== undefined) return
    closed = detail
    socket.destroy()
    const failure = new GdbError({ command: "its connection", detail })
    done(receipt, failure)
    done(answer, failure)
    done(standing, failure)
    done(lost, failure)
  }
  const receive = (packet: string) => {
    socket.write("+")
    if (!isRunning) {
      done(answer, Effect.succeed(packet))
    } else if (/^[TS][0-9a-f]{2}/.test(packet)) {
      isRunning = false
      stops++
      stopped()
      done(standing, Effect.void)
    } else close(`not that the guest stands: ${packet.slice(0, 80)}`) // `W`, the guest's end, too
  }
  socket.on("data", (bytes: Buffer) => {
    if (closed !== undefined) return
    try {
      for (const received of packets.take(bytes)) {
        if ("packet" in received) receive(received.packet)
        else done(receipt, Effect.void)
      }
    } catch (error) {
      close(error instanceof Error ? error.message : String(error))
    }
  })
  socket.on("error", ({ message }) => close(message))
  socket.on("close", () => close("the connection has ended"))

  const alone = Effect.unsafeMakeSemaphore(1).withPermits(1)
  /** Send once the guest stands; `sent` is run in the same moment. Waits for what comes behind the receipt, too. */
  const send = <A>(
    command: string,
    stands: Effect.Effect<void, GdbError>,
    sent: () => Effect.Effect<A, GdbError>
  ) =>
    alone(Effect.gen(function*() {
      if (closed !== undefined) return yield* new GdbError({ command, detail: closed })
      yield* stands
      const received = made<void>()
      receipt = received
      const behind = sent()
      socket.write(`$${command}#${checksum(command)}`)
      yield* Deferred.await(received)
      return yield* behind
    })).pipe(Effect.mapError(({ detail }) => new GdbError({ command, detail })))
  const stood = Effect.suspend(() => Deferred.await(standing))
  const stands = soon(stood, close)
  return {
    ask: (command) =>
      send(command, stood, () => {
        const asked = made<string>()
        answer = asked
        return Deferred.await(asked)
      }).pipe(
        // an answer that nobody waits for would be taken for that of the next command
        Effect.onInterrupt(() => Effect.sync(() => close("given up")))
      ),
    resume: send("c", stands, () => {
      isRunning = true
      standing = made()
      return Effect.void
    }),
    stands,
    stops: () => stops,
    giveUp: close,
    lost: Deferred.await(lost)
  }
}
