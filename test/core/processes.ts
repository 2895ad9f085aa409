import * as Effect from "effect/Effect"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { readdirSync, readlinkSync } from "node:fs"

/** Set a variable of this process, which programs that it starts inherit, for the scope's life. */
export const withVariable = (name: string, value: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const before = process.env[name]
      process.env[name] = value
      return before
    }),
    (before) =>
      Effect.sync(() => {
        if (before === undefined) delete process.env[name]
        else process.env[name] = before
      })
  )

/** Processes whose working directory is in `path`. */
export const processesIn = (path: string): ReadonlyArray<string> =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readlinkSync(`/proc/${pid}/cwd`).startsWith(path)
    } catch {
      return false // it ended meanwhile
    }
  })

/** Kill a process of ours, and wait until it is gone. */
export const killed = (child: ChildProcess) =>
  Effect.promise(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill("SIGKILL")
    await once(child, "exit")
  })
