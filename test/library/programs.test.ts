import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { build } from "esbuild"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { guestImage } from "../support/image.ts"

const checkout = new URL("../../", import.meta.url).pathname

/** A program of this folder as one file inside the checkout, where packages are found, run in a process of its own: what would end an app must not end the test. */
const started = (name: string, ...args: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(checkout, "test", "program-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true }))
    )
    const outfile = join(directory, `${name}.mjs`)
    yield* Effect.promise(() =>
      build({
        entryPoints: [new URL(`programs/${name}.ts`, import.meta.url).pathname],
        outfile,
        bundle: true,
        platform: "node",
        format: "esm",
        packages: "external",
        logLevel: "error"
      })
    )
    return yield* Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, [outfile, ...args], { stdio: ["ignore", "pipe", "inherit"] })),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
  })

/** What it printed by its end, and how it ended; `onLine` is told of each line as it comes. */
const ended = (child: ChildProcess, onLine: (line: string) => void = () => {}) =>
  Effect.promise(async () => {
    let text = ""
    child.stdout?.setEncoding("utf8").on("data", (piece: string) => {
      const before = text.split("\n").length - 1
      text += piece
      text.split("\n").slice(before, -1).forEach(onLine)
    })
    const [code, signal] = await once(child, "close") as [number | null, string | null]
    return { lines: text.trimEnd().split("\n"), code, signal }
  })

describe("an app that embeds the library", () => {
  it.scopedLive("gets typed failures of what it uses after its scope, and goes on", () =>
    Effect.gen(function*() {
      const child = yield* started("escape", yield* guestImage, "hash_4096")
      assert.deepStrictEqual(yield* ended(child), {
        lines: [
          "a stream that was made before: MapProblem",
          "a new stream: MapProblem",
          "the kernel: Unmapped",
          "the list: read",
          "a walk: unreadable"
        ],
        code: 0,
        signal: null
      })
    }), 240_000)

  it.scopedLive("disposes of its runtime while a response streams, and lives", () =>
    Effect.gen(function*() {
      const { code, lines, signal } = yield* ended(yield* started("dispose", yield* guestImage, "hash_4096"))
      assert.deepStrictEqual([code, signal], [0, null], lines.join("\n"))
      assert.deepStrictEqual(lines.slice(0, 2), ["the response streams", "disposed"])
      assert.match(
        lines[2],
        /^the stream failed: MapProblem: map \d+ \(hash_4096\): unreadable: .* was released: its scope/
      )
    }), 240_000)

  it.scopedLive("hears timers and SIGINT while it reads, and releases what it holds", () =>
    Effect.gen(function*() {
      const child = yield* started("endless", yield* guestImage, "hash_4096")
      const ran = yield* ended(child, (line) => line === "reading" && child.kill("SIGINT"))
      // NodeRuntime.runMain's own exit code of an interruption
      assert.deepStrictEqual(ran, { lines: ["reading", "released"], code: 0, signal: null })
    }), 240_000)
})
