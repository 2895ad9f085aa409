import * as Command from "@effect/platform/Command"
import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { HostLacks, reasonOf } from "../Errors.ts"

/** The result of a program that ended; code -1 if a signal killed it. */
export interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/**
 * Run a program to its end in the C locale, in `directory` if given. Interruption kills its process group first.
 * @param hint what the user can do when the program is missing
 */
export const runToEnd = (
  program: string,
  args: ReadonlyArray<string>,
  hint: string,
  directory?: string
): Effect.Effect<Ended, HostLacks, CommandExecutor.CommandExecutor> =>
  Effect.gen(function*() {
    const command = Command.make(program, ...args).pipe(
      Command.env({ LC_ALL: "C" }),
      directory === undefined ? (same) => same : Command.workingDirectory(directory)
    )
    const process = yield* Command.start(command)
    const text = (stream: typeof process.stdout) => Stream.mkString(Stream.decodeText(stream))
    const [stdout, stderr, code] = yield* Effect.all(
      [text(process.stdout), text(process.stderr), Effect.orElseSucceed(process.exitCode, () => -1)],
      { concurrency: "unbounded" }
    )
    return { code, stdout, stderr }
  }).pipe(
    Effect.scoped,
    Effect.mapError((error) =>
      new HostLacks({
        what: program,
        why: reasonOf(error) === "NotFound"
          ? "the program is not on the PATH"
          : `it cannot be run (${error.message})`,
        hint
      })
    )
  )

/**
 * The exit code of a program that runs in nothing but the given environment; -1 if it cannot be started or a signal killed
 * it. When this ends, for whatever reason, so have all processes that the program started.
 */
export const runGroup = (
  program: string,
  args: ReadonlyArray<string>,
  environment: Record<string, string | undefined>
): Effect.Effect<number, never, CommandExecutor.CommandExecutor> =>
  Effect.gen(function*() {
    let group: number | undefined
    // runs after the finalizer of `start`, which asks the group to end and waits for the first of its processes only
    yield* Effect.addFinalizer(() => group === undefined ? Effect.void : groupEnded(group))
    const started = yield* Command.start(
      Command.make(program, ...args).pipe(Command.env(environment, { extendEnv: false }))
    )
    group = started.pid
    return yield* started.exitCode
  }).pipe(Effect.scoped, Effect.orElseSucceed(() => -1))

const groupEnded = (group: number): Effect.Effect<void> =>
  Effect.suspend(() => isAlive(group, 0) ? Effect.fail("alive") : Effect.void).pipe(
    Effect.retry(Schedule.intersect(Schedule.spaced("10 millis"), Schedule.recurUpTo("5 seconds"))),
    Effect.catchAll(() => Effect.sync(() => isAlive(group, "SIGKILL")))
  )

/** Send a signal to a process group; false if it has no process any more. */
const isAlive = (group: number, signal: 0 | "SIGKILL"): boolean => {
  try {
    return process.kill(-group, signal)
  } catch {
    return false
  }
}

/** The last line that says something, for an error message. */
export const lastLine = (text: string): string => text.trimEnd().split("\n").at(-1)?.trim() ?? ""
