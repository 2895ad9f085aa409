import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Socket } from "node:net"
import { makeWriteWatches, notWatched } from "../guest/WriteWatches.ts"
import { inRealTime } from "../spec/RealTime.ts"
import type { Vm, VmEnded } from "../spec/VmEngine.ts"
import { connectGdb, GdbError, type GdbRemote, NOT_SAID, STANDS_SECONDS } from "./GdbRemote.ts"
import { type Freezer, Status } from "./QemuFreeze.ts"
import { DEBUGGER } from "./QemuProcess.ts"
import { endedOr, type Qmp, type QmpError } from "./Qmp.ts"

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
  const watches = makeWriteWatches()
  let remote: GdbRemote | undefined

  /** To be run while the guest stands. */
  const start = (keep: Freezer<VmEnded>["keep"]) =>
    Effect.gen(function*() {
      if (remote !== undefined) return remote
      const command = `gdbserver chardev:${DEBUGGER}`
      const said = yield* qmp.execute("human-monitor-command", Schema.String, { "command-line": command })
      if (!said.startsWith("Waiting for gdb connection")) {
        return yield* new GdbError({ command, detail: said.slice(0, 200) })
      }
      remote = connectGdb(socket, watches.stands)
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
    watchWrites: ({ freeze, keep }, ended) => (address, bytes) => {
      const failed = ({ message }: QmpError | GdbError) =>
        endedOr(ended, notWatched(address, bytes, message, "boot the guest again"))
      const told = (command: string) =>
        Effect.flatMap(start(keep), (server) => ask(server, `${command}2,${address.toString(16)},${bytes}`)).pipe(
          Effect.catchTags({ QmpError: failed, GdbError: failed })
        )
      const lost = Effect.suspend(() => remote === undefined ? Effect.never : Effect.catchAll(remote.lost, failed))
      return watches.watch(address, bytes, {
        freeze,
        keep,
        set: told("Z"),
        clear: told("z"),
        lost: Effect.raceFirst(lost, ended)
      })
    }
  }
}
