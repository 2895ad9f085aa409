import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { closeSync, openSync, writeFileSync } from "node:fs"
import { VmBootError, type VmSpec } from "../spec/VmEngine.ts"
import type { Console } from "./Console.ts"

/** The first line, past or to come, that matches; fails when the console has ended without one. */
export const firstLine = (
  console: Console,
  wanted: RegExp | ((line: string) => boolean)
): Effect.Effect<string, Cause.NoSuchElementException> => {
  const matches = typeof wanted === "function" ? wanted : (line: string) => line.search(wanted) >= 0
  return Effect.flatten(Stream.runHead(Stream.filter(console.lines, matches)))
}

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
            hint: "set consoleFile to a writable path"
          })
      }),
      (file) =>
        Effect.suspend(() => {
          closeSync(file)
          if (trouble === undefined) return Effect.void
          return Effect.logWarning(`${path} is incomplete: ${trouble instanceof Error ? trouble.message : trouble}`)
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
