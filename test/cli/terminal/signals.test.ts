import { assert, describe, it } from "@effect/vitest"
import { build } from "esbuild"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"

const root = new URL("../../../", import.meta.url).pathname

/** A process of its own that runs `main`; its first output means that it is at work. */
const started = async (main: string): Promise<ChildProcess> => {
  const { outputFiles: [{ text }] } = await build({
    stdin: {
      contents: `import * as Effect from "effect/Effect"
        import { holdSignals, runMain } from "./src/cli/terminal/signals.ts"
        import { liftTimeLimit, restartTimeLimit, withTimeLimit } from "./src/cli/terminal/timeLimit.ts"
        import { writeSync } from "node:fs"
        const say = (text) => Effect.sync(() => writeSync(1, text))
        runMain(${main}, (exit) => exit._tag === "Success" ? 0 : exit.cause._tag === "Fail" ? 1 : 130)`,
      resolveDir: root
    },
    bundle: true,
    format: "cjs",
    platform: "node",
    external: ["koffi"],
    logOverride: { "empty-import-meta": "silent" },
    write: false
  })
  const child = spawn(process.execPath, ["-"], { stdio: ["pipe", "pipe", "pipe"], cwd: root })
  child.stdin.end(text)
  await once(child.stdout, "data")
  return child
}

const ended = async (child: ChildProcess): Promise<readonly [number | null, string | null]> => {
  const [code, signal] = await once(child, "exit")
  return [code, signal]
}

describe("a signal", () => {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const) {
    it(`${signal} ends synchronous work`, async () => {
      const child = await started(`Effect.zipRight(say("busy"), Effect.sync(() => { for (;;); }))`)
      child.kill(signal)
      assert.deepStrictEqual(await ended(child), [null, signal])
    })
  }

  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR2", "SIGALRM"] as const) {
    it(`${signal} interrupts what must be put back in order, which is then done`, async () => {
      const child = await started(
        `Effect.scoped(Effect.gen(function*() {
          yield* holdSignals
          yield* Effect.addFinalizer(() => say("done"))
          yield* say("held")
          yield* Effect.never
        }))`
      )
      let said = ""
      child.stdout!.on("data", (data: Buffer) => said += data.toString())
      const closed = once(child, "close")
      child.kill(signal)
      assert.deepStrictEqual((await closed).slice(0, 2), [130, null])
      assert.strictEqual(said, "done")
    })
  }

  it("a second one does not wait", async () => {
    const child = await started(
      `Effect.scoped(Effect.gen(function*() {
        yield* holdSignals
        yield* Effect.addFinalizer(() => Effect.zipRight(say("stuck"), Effect.never))
        yield* say("held")
        yield* Effect.never
      }))`
    )
    child.kill("SIGINT")
    await once(child.stdout!, "data")
    child.kill("SIGINT")
    assert.deepStrictEqual(await ended(child), [130, null])
  })
})

describe("a time limit", () => {
  it("ends synchronous work, with exit code 1 and a line that says why", async () => {
    const child = await started(
      `withTimeLimit(1, Effect.zipRight(say("busy"), Effect.sync(() => { for (;;); })))`
    )
    let said = ""
    child.stderr!.on("data", (data: Buffer) => said += data.toString())
    assert.deepStrictEqual((await once(child, "close")).slice(0, 2), [1, null])
    assert.strictEqual(said, "ktstr: not done within 1 s; raise --timeout, or leave it out\n")
  })

  it("interrupts what can be, which puts things back in order", async () => {
    const child = await started(
      `withTimeLimit(1, Effect.zipRight(say("waiting"), Effect.onInterrupt(Effect.never, () => say("done"))))`
    )
    let said = ""
    child.stdout!.on("data", (data: Buffer) => said += data.toString())
    assert.deepStrictEqual((await once(child, "close")).slice(0, 2), [1, null])
    assert.strictEqual(said, "done")
  })

  it("begins again for each part, and can be taken away", async () => {
    const part = `Effect.zipRight(restartTimeLimit(), Effect.sleep(600))`
    const child = await started(
      `withTimeLimit(1, Effect.gen(function*() {
        yield* say("parts")
        yield* ${part}
        yield* ${part}
        yield* ${part}
        yield* liftTimeLimit
        yield* Effect.sleep(1500)
      }))`
    )
    assert.deepStrictEqual(await ended(child), [0, null])
  })
})
