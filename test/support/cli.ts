import * as Effect from "effect/Effect"
import { type ChildProcess, spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import type { Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** The command as `npm run build` leaves it. */
export const KTSTR = new URL("../../dist/bin/ktstr.cjs", import.meta.url).pathname

export interface Ran {
  /** As a shell says it: 128 + N after signal N. */
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  /** What the command's stdout is; a pipe that is read if not given. */
  readonly stdout?: number | "pipe"
  /** Called once, when the process runs. */
  readonly meanwhile?: (child: ChildProcess) => void | Promise<void>
  /** Words of a program that becomes the command. */
  readonly under?: ReadonlyArray<string>
  /** A socket that is its descriptor 3. */
  readonly socket?: Socket
  /** Take no bytes from stdout until this is over. */
  readonly unread?: Promise<void>
}

const signals = { SIGINT: 2, SIGKILL: 9, SIGTERM: 15 } as const

/** Run `ktstr` as a user does, to its end. */
export const ktstr = (args: ReadonlyArray<string>, options: RunOptions = {}): Effect.Effect<Ran> =>
  Effect.promise(async () => {
    const [program, ...words] = [...options.under ?? [], process.execPath, KTSTR, ...args]
    const child = spawn(program, words, {
      cwd: options.cwd,
      env: { ...process.env, NO_COLOR: undefined, FORCE_COLOR: undefined, ...options.env },
      stdio: ["ignore", options.stdout ?? "pipe", "pipe", ...options.socket === undefined ? [] : [options.socket]]
    })
    const read = { stdout: [] as Array<Buffer>, stderr: [] as Array<Buffer> }
    child.stderr?.on("data", (bytes: Buffer) => read.stderr.push(bytes))
    void (options.unread ?? Promise.resolve()).then(() =>
      child.stdout?.on("data", (bytes: Buffer) => read.stdout.push(bytes))
    )
    const ended = new Promise<number>((resolve) =>
      child.on(
        "close",
        (code, signal) => resolve(code ?? 128 + (signals[signal as keyof typeof signals] ?? 0))
      )
    )
    await options.meanwhile?.(child)
    const code = await ended
    return {
      code,
      stdout: Buffer.concat(read.stdout).toString(),
      stderr: Buffer.concat(read.stderr).toString()
    }
  })

/** The lines of stderr that are not of stages that were done. */
export const complaints = ({ stderr }: Ran): ReadonlyArray<string> =>
  stderr.split("\n").filter((line) => line !== "" && !/^ {2}.*: [\d.]+ m?s$/.test(line))

/** A place of its own for a command that boots: what it must not leave anything in, and how its QEMU is told apart. */
export const place = Effect.acquireRelease(
  Effect.sync(() => {
    const cwd = mkdtempSync(join(tmpdir(), "ktstr-test-cli-"))
    const mark = `ktstr.test=${randomUUID()}`
    return {
      cwd,
      mark,
      env: { TMPDIR: cwd, HOME: cwd, KTSTR_CACHE_DIR: undefined, XDG_CACHE_HOME: undefined },
      /** What is left of the command: its files, and processes whose arguments hold the mark. */
      leftovers: () => [...filesIn(cwd), ...processesWith(mark)]
    }
  }),
  ({ cwd }) => Effect.sync(() => rmSync(cwd, { recursive: true, force: true }))
)

/** The names in a directory, without the code that the launcher keeps in a home's cache. */
const filesIn = (cwd: string): ReadonlyArray<string> =>
  readdirSync(cwd).flatMap((name) =>
    name === ".cache"
      ? readdirSync(join(cwd, name), { recursive: true, encoding: "utf8" }).filter((path) =>
        !/^ktstr(\/code|$)/.test(path)
      )
      : [name]
  )

/** The processes whose arguments hold `text`, besides this one. */
export const processesWith = (text: string): ReadonlyArray<string> =>
  readdirSync("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid).flatMap((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(text) ? [`process ${pid}`] : []
    } catch {
      return [] // it has ended
    }
  })

/** Wait until `condition` holds; fails after `seconds`. */
export const until = async (what: string, condition: () => boolean, seconds = 60): Promise<void> => {
  for (let left = seconds * 50; !condition(); left--) {
    if (left === 0) throw new Error(`waited ${seconds} s in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
