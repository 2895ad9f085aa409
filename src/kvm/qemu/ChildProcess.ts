import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import type * as Scope from "effect/Scope"
import { type ChildProcess as NodeProcess, spawn } from "node:child_process"
import { Socket } from "node:net"
import { type HostLacks, SyscallError } from "../../core/Errors.ts"
import { requireProgram } from "../../core/process/Programs.ts"
import type { VmExit } from "../spec/VmEngine.ts"

/** A pipe that a child writes: its end is a descriptor of ours to inherit, and we read the other. */
export interface OutputPipe {
  readonly write: number
  readonly read: Socket
}

/** A child process that cannot outlive us. */
export interface ChildProcess {
  readonly pid: number
  /** Our ends of the descriptors asked for as `"socket"` or as a pipe, by descriptor number in the child. */
  readonly socket: (fd: number) => Socket
  /** How it ended, known when all it wrote has been read too, as far as that comes soon. */
  readonly exit: Effect.Effect<VmExit>
  /** Ends it, if it still runs. */
  readonly kill: Effect.Effect<void>
}

/**
 * Run `program`, whose descriptors 0, 1, 2 … are `descriptors`: `"null"` is /dev/null, a number or a `Socket` is one of
 * ours to inherit, `"socket"` is a new pair of UNIX sockets. It gets no other descriptor, no environment, and a session of its own,
 * so that a terminal's Ctrl-C reaches us alone. Closing the scope kills it and waits for its end; processes that it
 * started end with it.
 *
 * The kernel kills it when we die, even by SIGKILL: `setpriv` asks for that (PR_SET_PDEATHSIG, which survives exec),
 * and the shell in between gives up where we had died before that. Fails with `SyscallError` where it cannot be started.
 */
export const runChild = (
  program: string,
  parameters: ReadonlyArray<string>,
  descriptors: ReadonlyArray<"null" | "socket" | number | Socket | OutputPipe>
): Effect.Effect<ChildProcess, HostLacks | SyscallError, Scope.Scope> =>
  Effect.gen(function*() {
    const setpriv = yield* requireProgram("setpriv", "it ties the VM's life to ours", "util-linux")
    const leash = ["--pdeathsig", "KILL", "/bin/sh", "-c", `[ "$PPID" = "$0" ] && exec "$@"`, String(process.pid)]
    const start = Effect.suspend(() => {
      const child = spawn(setpriv, [...leash, program, ...parameters], {
        detached: true,
        env: {},
        stdio: descriptors.map((fd) => fd === "null" ? "ignore" : fd === "socket" ? "pipe" : isPipe(fd) ? fd.write : fd)
      })
      if (child.pid === undefined) return cannotSpawn(child, program)
      const streams = descriptors.map((fd, index) => isPipe(fd) ? fd.read : child.stdio[index])
      const sockets = streams.map((stream) => stream instanceof Socket ? stream : undefined)
      const exit = exitOf(child, sockets)
      // a reset connection says no more than the process's end does
      for (const socket of sockets) socket?.on("error", () => undefined)
      return Effect.succeed({ child, sockets, exit })
    })
    const { child, exit, sockets } = yield* Effect.acquireRelease(
      start,
      ({ child, exit }) => Effect.zipRight(Effect.sync(() => child.kill("SIGKILL")), Deferred.await(exit))
    )
    return {
      pid: child.pid ?? 0,
      socket: (fd) => {
        const socket = sockets[fd]
        if (socket !== undefined) return socket
        throw new TypeError(`descriptor ${fd} is not a socket`)
      },
      exit: Deferred.await(exit),
      kill: Effect.sync(() => void child.kill("SIGKILL"))
    }
  })

const isPipe = (fd: "null" | "socket" | number | Socket | OutputPipe): fd is OutputPipe =>
  typeof fd === "object" && "write" in fd && typeof fd.write === "number"

/** Of a process that has ended, a socket that we read and that says nothing for this long has nothing more to say. */
const DRAIN_MILLIS = 1000

const exitOf = (child: NodeProcess, sockets: ReadonlyArray<Socket | undefined>): Deferred.Deferred<VmExit> => {
  const exit = Deferred.unsafeMake<VmExit>(FiberId.none)
  const done = (status: number | null, signal: string | null) =>
    Deferred.unsafeDone(exit, Effect.succeed({ status: status ?? undefined, signal: signal ?? undefined }))
  let draining: NodeJS.Timeout | undefined
  child.on("exit", () => {
    killGroup(child)
    // Node does so for its own streams: what nobody reads would never be read to its end
    for (const socket of sockets) if (socket?.readableFlowing === null) socket.resume()
    draining = setInterval(hangUp(sockets), DRAIN_MILLIS)
  })
  // Node waits for its own streams, not for a pipe of ours
  child.on("close", (status, signal) => {
    const open = sockets.filter((socket) => socket?.closed === false)
    const close = () => {
      if (!sockets.every((socket) => socket?.closed !== false)) return
      clearInterval(draining)
      done(status, signal)
    }
    for (const socket of open) socket?.once("close", close)
    close()
  })
  child.on("error", () => undefined) // of a signal that could not be sent: it has ended
  return exit
}

/** Closes, of the sockets that we read, those that have said nothing since the last time: another process has the other end. */
const hangUp = (sockets: ReadonlyArray<Socket | undefined>): () => void => {
  const seen = new Map<Socket, number>()
  return () => {
    for (const socket of sockets) {
      if (socket === undefined || socket.isPaused()) continue
      if (seen.get(socket) === socket.bytesRead) socket.destroy()
      seen.set(socket, socket.bytesRead)
    }
  }
}

/** The processes that a process which has ended started in its session. */
const killGroup = ({ pid }: NodeProcess): void => {
  try {
    if (pid !== undefined) process.kill(-pid, "SIGKILL")
  } catch {
    // it had started none
  }
}

/** Without descriptors left the child has none of its streams either: its error says why. */
const cannotSpawn = (child: NodeProcess, program: string): Effect.Effect<never, SyscallError> =>
  Effect.async((resume) => {
    child.once(
      "error",
      (error: NodeJS.ErrnoException) => resume(SyscallError.of("spawn", program, -(error.errno ?? 0)))
    )
  })
