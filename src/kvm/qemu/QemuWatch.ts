import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Socket } from "node:net"
import { hex } from "../../core/Address.ts"
import { inRealTime } from "../spec/RealTime.ts"
import { NotWatched, type Vm, type VmEnded, type WriteWatch } from "../spec/VmEngine.ts"
import { connectGdb, GdbError, type GdbRemote, NOT_SAID, STANDS_SECONDS } from "./GdbRemote.ts"
import { type Freezer, Status } from "./QemuFreeze.ts"
import { DEBUGGER } from "./QemuProcess.ts"
import { endedOr, type Qmp, type QmpError } from "./Qmp.ts"

/** An x86 CPU's debug registers for addresses, which KVM uses; what works emulated is to work there, too. */
const MOST_WATCHES = 4

/** QEMU answers within milliseconds. */
const ANSWER_SECONDS = 10

/** QEMU's gdb server. */
export interface QemuDebugger {
  /** Lets the guest run. */
  readonly resume: Effect.Effect<unknown, QmpError>
  /** `Vm.watchWrites`; `ended` fails with how the VM ended, once it has. */
  readonly watchWrites: (
    freezer: Freezer<VmEnded>,
    ended: Effect.Effect<never, VmEnded>
  ) => Vm["watchWrites"]
}

/**
 * The gdb server over a connection that QEMU inherited: it starts when the first watch does, and stays. From then on it is
 * what lets the guest run: only so does it say when the guest stands again, and forgets the write that it stopped for.
 * @see QEMU gdbstub/system.c `gdb_vm_state_change`, 8.1 to 10.0: `allow_stop_reply`
 */
export const makeDebugger = (qmp: Qmp, socket: Socket): Effect.Effect<QemuDebugger, never, Scope.Scope> =>
  Effect.map(Effect.scope, (scope) => debuggerOf(qmp, socket, scope))

/**
 * Gives a gdb server up that does not say that the guest stands, each time that QEMU's monitor does. When it is of no more
 * use the monitor lets the guest run: QEMU still stops it for the server's watches, which nobody can end any more.
 */
const guard = (qmp: Qmp, remote: GdbRemote, keep: Freezer<VmEnded>["keep"]) =>
  Effect.gen(function*() {
    const stops = yield* Queue.sliding<number>(1)
    let heard = 0
    qmp.listeners.add((event) => event === "STOP" && Queue.unsafeOffer(stops, ++heard))
    const listen = Effect.gen(function*() {
      const stop = yield* Queue.take(stops)
      yield* Effect.sleep(Duration.seconds(STANDS_SECONDS))
      yield* qmp.execute("query-status", Status) // what has come by now has been read after that
      if (remote.stops() < stop) remote.giveUp(NOT_SAID)
    })
    return yield* Effect.forever(listen).pipe(
      Effect.raceFirst(remote.lost),
      Effect.catchTag("GdbError", () => Effect.forever(Effect.zipRight(Effect.suspend(keep), Queue.take(stops))))
    )
  })

const debuggerOf = (qmp: Qmp, socket: Socket, scope: Scope.Scope): QemuDebugger => {
  /** Run when the guest stands again. */
  const standing = new Set<() => void>()
  let remote: GdbRemote | undefined
  let watches = 0

  /** To be run while the guest stands. */
  const start = (keep: Freezer<VmEnded>["keep"]) =>
    Effect.gen(function*() {
      if (remote !== undefined) return remote
      const command = `gdbserver chardev:${DEBUGGER}`
      const said = yield* qmp.execute("human-monitor-command", Schema.String, { "command-line": command })
      if (!said.startsWith("Waiting for gdb connection")) {
        return yield* new GdbError({ command, detail: said.slice(0, 200) })
      }
      remote = connectGdb(socket, () => standing.forEach((stands) => stands()))
      yield* Effect.forkIn(Effect.interruptible(inRealTime(guard(qmp, remote, keep))), scope)
      return remote
    })
  const ask = ({ ask }: GdbRemote, command: string) =>
    ask(command).pipe(
      Effect.interruptible,
      Effect.timeoutFail({
        duration: Duration.seconds(ANSWER_SECONDS),
        onTimeout: () => new GdbError({ command, detail: `no answer within ${ANSWER_SECONDS} s` })
      }),
      Effect.filterOrFail(
        (answer) => answer === "OK",
        (answer) =>
          new GdbError({ command, detail: answer === "" ? "not supported" : `refused: ${answer.slice(0, 80)}` })
      ),
      inRealTime
    )

  return {
    resume: Effect.suspend(() => {
      const cont = qmp.execute("cont", Schema.Unknown)
      if (remote === undefined) return cont
      const { resume, stands } = remote
      const status = Effect.zipRight(resume, qmp.execute("query-status", Status))
      return Effect.orElse(Effect.flatMap(status, ({ running }) => running ? Effect.void : stands), () => cont)
    }),
    watchWrites: ({ freeze, keep }, ended) => (address, bytes) =>
      Effect.gen(function*() {
        const place = `${bytes} bytes at ${hex(address)}`
        if (![1, 2, 4, 8].includes(bytes) || address % BigInt(bytes) !== 0n) {
          return yield* new NotWatched({
            place,
            why: "not aligned",
            hint: "give 1, 2, 4 or 8 bytes, aligned to their number"
          })
        }
        const failed = (error: QmpError | GdbError) =>
          endedOr(ended, new NotWatched({ place, why: error.message, hint: "boot the guest again" }))
        yield* Effect.acquireRelease(Effect.sync(() => watches++), () => Effect.sync(() => watches--))
        if (watches > MOST_WATCHES) {
          return yield* new NotWatched({
            place,
            why: `${MOST_WATCHES} places are watched already`,
            hint: "end another watch"
          })
        }
        const letGo: Array<Effect.Effect<void>> = []
        let wake = () => {}
        const stands = () => {
          letGo.push(keep())
          wake()
        }
        const where = `2,${address.toString(16)},${bytes}`
        const stopped = Effect.interruptible(freeze)
        const watched = Effect.gen(function*() {
          yield* stopped
          const server = yield* start(keep)
          yield* ask(server, `Z${where}`)
          standing.add(stands)
          return server
        }).pipe(Effect.scoped, Effect.catchTags({ QmpError: failed, GdbError: failed }))
        const server = yield* Effect.acquireRelease(watched, (server) =>
          Effect.scoped(Effect.zipRight(stopped, ask(server, `z${where}`))).pipe(
            Effect.ignore, // the VM has ended, or QEMU's debugger is of no more use
            Effect.ensuring(Effect.sync(() =>
              standing.delete(stands)
            )),
            Effect.zipRight(Effect.suspend(() => Effect.all(letGo.splice(0), { discard: true })))
          ))
        const stood = Effect.async<void>((resume) => {
          wake = () => resume(Effect.void)
          if (letGo.length > 0) wake()
        })
        const lost = Effect.catchAll(server.lost, failed)
        const hit: WriteWatch["hit"] = Effect.asVoid(Effect.acquireRelease(
          Effect.map(Effect.interruptible(Effect.raceFirst(stood, Effect.raceFirst(lost, ended))), () => letGo.shift()),
          (go) => go ?? Effect.void
        ))
        return { hit }
      })
  }
}
