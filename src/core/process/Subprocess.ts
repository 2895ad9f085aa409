import * as Command from "@effect/platform/Command"
import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { HostLacks } from "../Errors.ts"
import { findProgram } from "./Programs.ts"

/** The result of a program that ended; code 128 + N if signal N killed it. */
export interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/**
 * Runs `$@`, and ends with its status; when our end of its stdin closes, because we have died, kills all processes of the
 * group. A signal to the group is the program's matter: the shell waits for it.
 */
const TIED = `exec 3<&0 </dev/null
(exec >/dev/null 2>&1; trap '' TERM INT HUP; read -r _ <&3; kill -KILL 0) &
trap : TERM INT HUP
"$@" 3<&-
status=$?
{ kill -KILL $!; wait $!; } 2>/dev/null
exit $status`

/** The command that runs a program that cannot outlive us, nor can what it starts; `Command.start` gives it a group. */
const tied = (program: string, args: ReadonlyArray<string>): Command.Command =>
  Command.make("/bin/sh", "-c", TIED, "sh", program, ...args)

/** Where a program runs, if not here, and variables beside those of ours. */
export interface Surroundings {
  readonly directory?: string | undefined
  readonly environment?: Readonly<Record<string, string>>
}

/** Most characters that a program may print to stdout, or to stderr: a server or an archive may have it print without end. */
const MOST_OUTPUT = 2 ** 26

/**
 * Run a program to its end in the C locale; one that prints without end is killed. Interruption kills its process group first.
 * @param hint what the user can do when the program is missing
 */
export const runToEnd = (
  program: string,
  args: ReadonlyArray<string>,
  hint: string,
  { directory, environment }: Surroundings = {}
): Effect.Effect<Ended, HostLacks, CommandExecutor.CommandExecutor> =>
  Effect.gen(function*() {
    if (findProgram(program) === undefined) {
      const why = program.includes("/") ? "it is not a program that can be run" : "the program is not on the PATH"
      return yield* new HostLacks({ what: program, why, hint })
    }
    const command = tied(program, args).pipe(
      Command.env({ LC_ALL: "C", ...environment }),
      directory === undefined ? (same) => same : Command.workingDirectory(directory)
    )
    const process = yield* Command.start(command)
    const text = (stream: typeof process.stdout) =>
      Stream.runFoldEffect(Stream.decodeText(stream), "", (before, piece) =>
        before.length + piece.length > MOST_OUTPUT
          ? new HostLacks({ what: program, why: `it printed more than ${MOST_OUTPUT / 2 ** 20} MiB`, hint })
          : Effect.succeed(before + piece))
    const [stdout, stderr, code] = yield* Effect.all(
      [text(process.stdout), text(process.stderr), Effect.orElseSucceed(process.exitCode, () => -1)],
      { concurrency: "unbounded" }
    )
    return { code, stdout, stderr }
  }).pipe(
    Effect.scoped,
    Effect.mapError((error) =>
      error._tag === "HostLacks"
        ? error
        : new HostLacks({ what: program, why: `it cannot be run (${error.message})`, hint })
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
      tied(program, args).pipe(Command.env(environment, { extendEnv: false }))
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
