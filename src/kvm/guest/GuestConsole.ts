import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { closeSync, openSync, writeFileSync } from "node:fs"
import { GuestPanicked, VmBootError, type VmSpec } from "../spec/VmEngine.ts"
import type { Console } from "./Console.ts"
import { exitReport, lastWords } from "./Init.ts"

/** kernel/panic.c `vpanic`, v6.12; behind the time and, where configured, the caller. */
export const panic = /^(\[[^\]]*\]\s*)*Kernel panic - not syncing/

/** Longest wait for the end of the script's output once its report is there: a kernel message may have torn the line. */
const LAST_WORDS = "5 seconds"

/** The first line, past or to come, that matches; fails when the console has ended without one. */
export const firstLine = (console: Console, pattern: RegExp) =>
  Effect.flatten(Stream.runHead(Stream.filter(console.lines, (line) => line.search(pattern) >= 0)))

/**
 * The exit status of the init's script, or how the guest failed to give one. The report overtakes what the serial console
 * has still to send, so wait for the console's last words too: then a frozen guest's console is complete.
 */
export const reported = <E>(
  report: Console,
  console: Console,
  ended: Effect.Effect<never, E>
): Effect.Effect<number, E | GuestPanicked> =>
  Effect.raceFirst(
    firstLine(report, exitReport).pipe(
      Effect.map((line) => exitReport.exec(line)),
      Effect.tap((said) =>
        said?.[1] === "exit"
          ? Effect.timeoutOption(Effect.option(firstLine(console, lastWords)), LAST_WORDS)
          : Effect.void
      ),
      Effect.map((said) => Number(said?.[2])),
      Effect.orElse(() => ended)
    ),
    firstLine(console, panic).pipe(
      Effect.orElse(() => Effect.never),
      Effect.flatMap((line) => new GuestPanicked({ line }))
    )
  )

/** Appends to `spec.consoleFile`; a full disk ends the file, not the VM, and is said when the VM ends. */
export const keepConsole = (
  spec: VmSpec
): Effect.Effect<((bytes: Uint8Array) => void) | undefined, VmBootError, Scope.Scope> =>
  Effect.gen(function*() {
    const path = spec.consoleFile
    if (path === undefined) return undefined
    let trouble: unknown
    const file = yield* Effect.acquireRelease(
      Effect.try({
        try: () => openSync(path, "w"),
        catch: (error) =>
          new VmBootError({
            subject: spec.kernel,
            why: `its console cannot be kept in ${path}: ${
              error instanceof Error && "code" in error ? error.code : error
            }`,
            hint: "give --console a file that can be written"
          })
      }),
      (file) =>
        Effect.suspend(() => {
          closeSync(file)
          return trouble === undefined ? Effect.void : Effect.logWarning(`${path} is incomplete: ${String(trouble)}`)
        })
    )
    return (bytes) => {
      if (trouble !== undefined) return
      try {
        writeFileSync(file, bytes)
      } catch (error) {
        trouble = error
      }
    }
  })
