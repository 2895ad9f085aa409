import * as Command from "@effect/platform/Command"
import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { failedAs, HostLacks } from "../Errors.ts"

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
        why: failedAs(error, "NotFound")
          ? "the program is not on the PATH"
          : `it cannot be run (${error.message})`,
        hint
      })
    )
  )

/** The last line that says something, for an error message. */
export const lastLine = (text: string): string => text.trimEnd().split("\n").at(-1)?.trim() ?? ""
