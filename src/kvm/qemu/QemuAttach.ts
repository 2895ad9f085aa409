import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { constants } from "node:fs"
import { connect as connectSocket, Socket } from "node:net"
import type { SyscallError } from "../../core/Errors.ts"
import type { FormatError } from "../../core/FormatError.ts"
import { Native } from "../../core/Native.ts"
import type { GuestMemory } from "../../memory/GuestMemory.ts"
import { inRealTime } from "../spec/RealTime.ts"
import { FreezeFailed, type FrozenVm } from "../spec/VmEngine.ts"
import { isQemu, listenerAt, listensAt, monitorOf, programOf } from "./FindMonitor.ts"
import { foundProcessMemory, hostRanges, processWith, qemuProcessMemory } from "./QemuProcessMemory.ts"
import { parseRegisters } from "./QemuRegisters.ts"
import { connect, type Qmp, QmpError } from "./Qmp.ts"
import { resumeWatch } from "./ResumeWatch.ts"

/** Longest wait for QEMU to greet us, and for its CPUs to stop or to go on. */
const LIMIT = "10 seconds"

/**
 * A QEMU that someone else started could not be read: `qemu` is the path of its monitor's socket, or its process id.
 *
 * @since 0.1.0
 * @category errors
 */
export class QemuAttachFailed
  extends Schema.TaggedError<QemuAttachFailed>("ktstr/QemuAttachFailed")("QemuAttachFailed", {
    qemu: Schema.String,
    why: Schema.String,
    hint: Schema.String
  })
{
  override get message() {
    return `cannot read the QEMU ${this.qemu}: ${this.why}; ${this.hint}`
  }
}

/**
 * A guest of a QEMU that someone else started, at one instant.
 *
 * @since 0.1.0
 * @category models
 */
export interface AttachedQemu extends FrozenVm {
  /** QEMU's process; null where it is one that we may not look into. */
  readonly pid: number | null
  /** Its number of CPUs. */
  readonly cpus: number
  /** Its CPUs stood still already, and will when the scope has closed. */
  readonly paused: boolean
}

const Status = Schema.Struct({ running: Schema.Boolean, status: Schema.String })

/**
 * Stop the guest of a QEMU that someone else started, and read its memory, until the scope closes: then it runs on, if it ran
 * before. It runs on also when this process is killed meanwhile: a shell that shares the connection sees to that. Nothing is
 * started or changed in the guest.
 *
 * QEMU must have a monitor that speaks QMP at a UNIX socket, at which nobody else is (libvirt is at its guests'). Memory that is
 * shared (`memory-backend-memfd`, `memory-backend-file,share=on`) is mapped; other memory is read through /proc/PID/mem, which
 * asks for the right to trace it. As a user without any right to QEMU's process we let QEMU write its memory to files in
 * TMPDIR, which takes as much room there as the guest has memory, and seconds for each GiB.
 * @param qemu path of the monitor's socket, `fd:N` of one that this process has inherited, connected, or the number of QEMU's
 * process
 *
 * @since 0.1.0
 * @category constructors
 */
export const attachQemu = (
  qemu: string | number
): Effect.Effect<AttachedQemu, QemuAttachFailed, Native | Scope.Scope> => {
  const failed: Failed = (why, hint) => new QemuAttachFailed({ qemu: String(qemu), why, hint })
  return inRealTime(Effect.gen(function*() {
    const inherited = descriptorOf(qemu)
    const found = inherited === undefined ? yield* find(qemu, failed) : { path: String(qemu), process: undefined }
    const { path } = found
    const socket = yield* (inherited === undefined ? open(path, failed) : adopt(inherited, failed))
    const unlimited = connect(socket)
    const monitor = limited(unlimited)
    // one that was used before has left capabilities negotiation
    const ready = inherited === undefined
      ? monitor.ready
      : Effect.catchIf(monitor.ready, ({ reason }) => reason === "refused", () => Effect.void)
    yield* Effect.timeoutFail(ready, {
      duration: LIMIT,
      onTimeout: () =>
        failed(
          `no greeting from ${path} within ${LIMIT}`,
          "it serves one program at a time (is libvirt or another connected? racy reads without it), or does not speak QMP"
        )
    })
    if (found.process !== undefined) yield* checkListener(found.process, path, failed)
    const paused = !(yield* monitor.execute("query-status", Status)).running
    if (!paused) yield* stopped(monitor, socket)
    const takenAt = yield* Clock.currentTimeMillis
    const cpus = yield* monitor.execute("query-cpus-fast", Schema.Array(Schema.Unknown))
    const backends = yield* hostRanges(monitor)
    const process = inherited === undefined ? found.process : yield* holderOf(backends, failed)
    const memory = yield* qemuProcessMemory(unlimited, backends, process?.proc)
    const registers = monitor.execute("human-monitor-command", Schema.String, { "command-line": "info registers -a" })
      .pipe(
        Effect.flatMap(parseRegisters),
        Effect.mapError((error) => new FreezeFailed({ why: error.message }))
      )
    return { pid: process?.pid ?? null, cpus: cpus.length, paused, memory, takenAt, registers }
  })).pipe(
    Effect.mapError((error: QemuAttachFailed | QmpError | FormatError | SyscallError) =>
      error._tag === "QemuAttachFailed"
        ? error
        : error._tag === "SyscallError"
        ? ofSyscall(error, failed)
        : failed(error.message, error._tag === "QmpError" && error.command === "pmemsave" ? WRITABLE : NOT_QMP)
    ),
    Effect.withSpan("attachQemu", { attributes: { qemu } })
  )
}

/**
 * The memory of a guest of a QEMU that someone else started, until the scope closes, while the guest runs on: what is read at
 * different moments does not fit together. No monitor is asked, so it may be somebody else's, as libvirt's is. The guest's
 * memory must be one mapping of QEMU's: one memory backend, and no memory that was plugged in.
 * @param qemu path of the monitor's socket, or the number of QEMU's process
 *
 * @since 0.1.0
 * @category constructors
 */
export const runningQemu = (
  qemu: string | number
): Effect.Effect<{ readonly pid: number; readonly memory: GuestMemory }, QemuAttachFailed, Native | Scope.Scope> => {
  const failed: Failed = (why, hint) => new QemuAttachFailed({ qemu: String(qemu), why, hint })
  return Effect.gen(function*() {
    if (descriptorOf(qemu) !== undefined) {
      return yield* failed("a racy reader asks no monitor", "give the number of QEMU's process")
    }
    const { pid, proc } = yield* findProcess(qemu, failed)
    yield* checkQemu(proc, failed)
    const { looked, memory } = yield* Effect.mapError(
      foundProcessMemory(proc),
      (error) => error._tag === "SyscallError" ? ofSyscall(error, failed) : failed(error.message, ASK_MONITOR)
    )
    if (memory === undefined) {
      const sizes = looked.map((bytes) => `${Math.floor(bytes / 2 ** 20)} MiB`).join(", ")
      return yield* failed(
        `no running x86-64 or arm64 Linux kernel in its largest mappings (${sizes || "none has 16 MiB"})`,
        ASK_MONITOR
      )
    }
    return { pid, memory }
  }).pipe(Effect.withSpan("runningQemu", { attributes: { qemu } }))
}

const NOT_QMP = "is it the monitor of a QEMU 7.2 or newer, in QMP?"
const WRITABLE =
  "we may not look into its process, so it writes its memory to TMPDIR: set that to where it can, or run as root"
const ASK_MONITOR = "is its guest up? Memory in several pieces is read only by way of the monitor, without racy"

const ofSyscall = (error: SyscallError, failed: Failed): QemuAttachFailed =>
  failed(error.message, "run as the user who started it; memory that is not shared asks for root (CAP_SYS_PTRACE)")

type Failed = (why: string, hint: string) => QemuAttachFailed

/** A monitor whose every answer is waited for only so long, also by a finalizer: its own fiber is not interrupted, the waiting is. */
const limited = ({ execute, ...qmp }: Qmp): Qmp => ({
  ...qmp,
  execute: (command, result, parameters) =>
    Effect.timeoutFail(Effect.interruptible(execute(command, result, parameters)), {
      duration: LIMIT,
      onTimeout: () => new QmpError({ command, reason: "unreadable", detail: `no answer within ${LIMIT}` })
    })
})

/** A look at files of /proc, and at paths. */
const look = <A>(failed: Failed, look: () => A): Effect.Effect<A, QemuAttachFailed> =>
  Effect.try({
    try: look,
    catch: (error) => failed(error instanceof Error ? error.message : String(error), "is it running, and yours?")
  })

/** The process with guest memory where QEMU says that its own has it. */
const holderOf = (backends: Parameters<typeof processWith>[0], failed: Failed) =>
  Effect.flatMap(
    look(failed, () => processWith(backends)),
    (pid) => pid === undefined ? Effect.succeed(undefined) : processOf(pid, failed)
  )

const checkListener = ({ pid, proc }: QemuProcess, path: string, failed: Failed) =>
  Effect.gen(function*() {
    if (yield* look(failed, () => listensAt(path)(proc))) return
    yield* failed(`process ${pid} does not listen at ${path}`, "give the path of its monitor's socket")
  })

/** A process, and its directory in /proc by a descriptor of ours. */
type QemuProcess = Effect.Effect.Success<ReturnType<typeof processOf>>

const processOf = (pid: number, failed: Failed) =>
  Effect.gen(function*() {
    const native = yield* Native
    const directory = yield* Effect.mapError(
      native.open(`/proc/${pid}`, constants.O_RDONLY | constants.O_DIRECTORY),
      ({ code }) => failed(code === "ENOENT" ? "no such process" : code, "give the number of a running QEMU")
    )
    return { pid, proc: `/proc/self/fd/${directory}` }
  })

const findProcess = (qemu: string | number, failed: Failed) =>
  Effect.gen(function*() {
    const pid = typeof qemu === "number" ? qemu : yield* look(failed, () => listenerAt(qemu))
    if (pid === undefined) {
      return yield* failed("no process that we may look at listens there", "is it running, and yours? try as root")
    }
    return yield* processOf(pid, failed)
  })

/** Fails where the process is not a QEMU, by its command line. */
const checkQemu = (proc: string, failed: Failed) =>
  Effect.gen(function*() {
    const program = yield* look(failed, () => programOf(proc))
    if (!isQemu(program)) {
      yield* failed(
        `that is not a QEMU but ${program || "a thread of the kernel"}`,
        "give the number of QEMU's process"
      )
    }
  })

/** Where its monitor is, and the process, which a user without rights to it does not see behind a socket. */
const find = (qemu: string | number, failed: Failed) =>
  Effect.gen(function*() {
    if (typeof qemu === "string") {
      const pid = yield* look(failed, () => listenerAt(qemu))
      return { path: qemu, process: pid === undefined ? undefined : yield* processOf(pid, failed) }
    }
    const process = yield* processOf(qemu, failed)
    const path = yield* look(failed, () => monitorOf(process.proc))
    if (path !== undefined) return { path, process }
    yield* checkQemu(process.proc, failed)
    return yield* failed(
      "its command line has no QMP monitor at a UNIX socket",
      "start it with -qmp unix:PATH,server=on,wait=off, or read it while it runs (racy)"
    )
  })

/** `fd:3` is a descriptor; a path that begins so is `./fd:3`. */
const descriptorOf = (qemu: string | number): number | undefined => {
  const found = typeof qemu === "string" ? /^fd:(\d{1,9})$/.exec(qemu) : null
  return found === null ? undefined : Number(found[1])
}

/** A socket that this process was started with. */
const adopt = (fd: number, failed: Failed): Effect.Effect<Socket, QemuAttachFailed, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => new Socket({ fd }),
      catch: (error) =>
        failed(
          error instanceof Error ? error.message : String(error),
          "give the number of a descriptor that is connected to QEMU's monitor"
        )
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

const open = (path: string, failed: Failed): Effect.Effect<Socket, QemuAttachFailed, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async((resume) => {
      const socket = connectSocket({ path })
      socket.once("connect", () => resume(Effect.succeed(socket)))
      socket.once("error", (error) => resume(failed(error.message, "is it the socket of a running QEMU's monitor?")))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** Stop the guest until the scope closes. */
const stopped = (monitor: Qmp, socket: Socket) =>
  Effect.gen(function*() {
    let resumed = false
    yield* resumeWatch(socket, () => resumed)
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => resumed ? Effect.void : monitor.execute("cont", Schema.Unknown)).pipe(
        Effect.tap(() => Effect.sync(() => resumed = true)),
        inRealTime,
        Effect.ignore // then the shell tells it again
      )
    )
    yield* monitor.execute("stop", Schema.Unknown)
    yield* Effect.repeat(monitor.execute("query-status", Status), {
      until: ({ running }) => !running,
      schedule: Schedule.spaced("5 millis")
    }).pipe(Effect.timeoutFail({
      duration: LIMIT,
      onTimeout: () => new QmpError({ command: "stop", reason: "unreadable", detail: "its CPUs do not stop" })
    }))
    // it came to a standstill of its own, such as a panic, before our command: it stays there
    resumed = (yield* monitor.execute("query-status", Status)).status !== "paused"
  })
