import * as FileSystem from "@effect/platform/FileSystem"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { constants, fstatSync } from "node:fs"
import type { SyscallError } from "./Errors.ts"
import { Native } from "./Native.ts"

/**
 * A lock could not be taken in time. `holder` names the process that holds it, as seen by this process.
 *
 * @since 0.1.0
 * @category errors
 */
export class LockTimeout extends Schema.TaggedError<LockTimeout>("ktstr/LockTimeout")("LockTimeout", {
  path: Schema.String,
  holder: Schema.String
}) {
  override get message() {
    return `${this.path} is locked by ${this.holder}; wait until it ends, or end it, and try again`
  }
}

const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants
/** Make the file if it is not there, follow no link, and do not wait for a FIFO's other end. */
const MAKE = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK

/** The pause before a held lock is tried again. */
const RETRY = "50 millis"

/**
 * Do something under an advisory lock (flock(2)) on a file or a directory, trying for it until `wait` has passed and at
 * least once. If `path` does not exist, an empty file is made. The lock is released at the work's end, failure or
 * interruption, and by the kernel when the process dies; the file stays, because removing one that somebody else
 * is waiting for would give two processes the lock at once.
 *
 * @since 0.1.0
 * @category utilities
 */
export const withLock = (path: string, mode: "shared" | "exclusive", wait: Duration.DurationInput) =>
<A, E, R>(
  work: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LockTimeout | SyscallError, R | FileSystem.FileSystem | Native> =>
  Effect.using(acquire(path, mode, wait), () => work)

const acquire = (
  path: string,
  mode: "shared" | "exclusive",
  wait: Duration.DurationInput
): Effect.Effect<void, LockTimeout | SyscallError, FileSystem.FileSystem | Native | Scope.Scope> =>
  Effect.gen(function*() {
    const native = yield* Native
    // a directory can only be opened for reading, and so can a lock in a cache of another user
    // and where somebody put a link, nothing is made where it leads
    const fd = yield* Effect.orElse(native.open(path, MAKE, 0o666), () => native.open(path, O_RDONLY))
    const granted = native.flock(fd, mode)
    yield* granted.pipe(
      Effect.filterOrFail((got) => got, () => "held" as const),
      Effect.retry({
        while: (error) => error === "held",
        schedule: Schedule.intersect(Schedule.spaced(RETRY), Schedule.recurUpTo(wait))
      }),
      Effect.catchIf(
        (error) => error === "held",
        () => Effect.flatMap(holderOf(fd), (holder) => new LockTimeout({ path, holder }))
      )
    )
  })

/** The holders of a lock on an open file, for people: "pid 1234 (node ktstr.cjs)", several joined by commas. */
const holderOf = (fd: number): Effect.Effect<string, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const { dev, ino } = yield* Effect.try(() => fstatSync(fd))
    const pids = holders(yield* fs.readFileString("/proc/locks"), dev, ino)
    const named = yield* Effect.forEach(pids, (pid) =>
      Effect.gen(function*() {
        const words = (yield* fs.readFileString(`/proc/${pid}/cmdline`)).split("\0").join(" ")
        const name = words.trim() === "" ? yield* fs.readFileString(`/proc/${pid}/comm`) : words
        return `pid ${pid} (${name.replaceAll(/\p{C}/gu, " ").trim().slice(0, NAME_LENGTH)})`
      }).pipe(Effect.orElseSucceed(() => `pid ${pid}`)))
    return named.join(", ")
  }).pipe(
    Effect.orElseSucceed(() => ""),
    Effect.map((names) => names === "" ? "another process" : names)
  )

const NAME_LENGTH = 80

/**
 * The processes that hold a flock on an inode, from the text of /proc/locks. A lock of another PID namespace is not in
 * there, and some file systems (overlayfs, btrfs) give another device there than to stat(2).
 * @see fs/locks.c lock_get_status, v6.12: `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`, device in hexadecimal;
 * a waiting process has `->` behind the number
 */
const holders = (locks: string, device: number, inode: number): ReadonlyArray<number> => {
  // the bits of a dev_t, bits/sysmacros.h of glibc; beyond 32 there are none in Linux
  const major = (device >>> 8) & 0xfff
  const minor = (device & 0xff) | ((device >>> 12) & 0xfff00)
  const hex = (part: number) => part.toString(16).padStart(2, "0")
  const subject = `${hex(major)}:${hex(minor)}:${inode}`
  return locks.split("\n").flatMap((line) => {
    const [, kind, , , pid, where] = line.split(/\s+/)
    return kind === "FLOCK" && where === subject && Number(pid) > 0 ? [Number(pid)] : []
  })
}
