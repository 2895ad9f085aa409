import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import type { Socket } from "node:net"
import { SyscallError } from "../../core/Errors.ts"

/**
 * Unless we write a line before our end of the pipe closes, we are gone: the monitor, descriptor 3, is told to go on. QEMU
 * forgets the commands of a connection that ends (monitor/qmp.c `monitor_qmp_event`, 7.2), so ours stays until the answer, or
 * until QEMU has ended: then a write fails. The descriptor does not block: a `read` that fails has nothing to read yet.
 */
const WATCH = String.raw`
read -r done && exit
printf '{"execute":"cont","id":"resumed"}\n' >&3 || exit
tries=0
while [ $((tries += 1)) -le 300 ] && printf '\n' >&3; do
  while read -r line <&3; do
    case $line in *'"resumed"'*) exit ;; esac
  done
  sleep 0.1
done`

/**
 * A shell that makes a QEMU run on when this process ends without having done so, by SIGKILL too: it shares our connection
 * to the monitor, and sends `cont` over it when we are gone. It has a session of its own, so that a terminal's Ctrl-C does
 * not reach it.
 * @param resumed whether the guest is known to run on, asked when the scope closes: else the shell sees to it after that
 */
export const resumeWatch = (
  monitor: Socket,
  resumed: () => boolean
): Effect.Effect<void, SyscallError, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(start(monitor), (child) => Effect.suspend(() => end(child, resumed()))))

const start = (monitor: Socket): Effect.Effect<ChildProcess, SyscallError> =>
  Effect.async((resume) => {
    const child = spawn("/bin/sh", ["-c", WATCH], {
      detached: true,
      env: {},
      stdio: ["pipe", "ignore", "ignore", monitor]
    })
    monitor.resume() // Node leaves a socket to the child that inherits it; this one only writes, when we are gone
    child.stdin?.on("error", () => undefined) // it has ended, which its exit says
    child.on("spawn", () => resume(Effect.succeed(child)))
    child.on(
      "error",
      (error: NodeJS.ErrnoException) => resume(SyscallError.of("spawn", "/bin/sh", -(error.errno ?? 0)))
    )
  })

const end = (child: ChildProcess, resumed: boolean): Effect.Effect<void> =>
  Effect.async((resume) => {
    child.on("exit", () => resume(Effect.void))
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    if (resumed) return void child.stdin?.end("done\n")
    child.stdin?.end()
    child.unref()
    resume(Effect.void)
  })
