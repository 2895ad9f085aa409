import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import { build } from "esbuild"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { listEntries, verifyEntry } from "../../src/core/kernels/cache/KernelCache.ts"
import { brief, fault, KEY, store, visible } from "./cacheEntries.ts"
import { Host, temporary } from "./kernelEntries.ts"
import { killed } from "./processes.ts"
import { run } from "./samples.ts"

/** The program of storeLoop.ts as one file, and a process that runs it. */
const program = Effect.tap(
  Effect.map(temporary, (directory) => join(directory, "storeLoop.cjs")),
  (outfile) =>
    Effect.promise(() =>
      build({
        entryPoints: [new URL("storeLoop.ts", import.meta.url).pathname],
        outfile,
        bundle: true,
        platform: "node",
        format: "cjs",
        external: ["koffi"],
        logLevel: "error"
      })
    )
)

const modules = new URL("../../node_modules", import.meta.url).pathname

const started = (command: string, args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, NODE_PATH: modules } })
    ),
    killed
  )

const SEED = 1
const ROUNDS = 8

describe("processes that store and clean", () => {
  it.live(
    `leave a whole entry or none wherever they are killed (delays of seed ${SEED})`,
    () =>
      Effect.gen(function*() {
        const main = yield* program
        const root = yield* temporary
        const delays = FastCheck.sample(FastCheck.tuple(FastCheck.nat(60), FastCheck.nat(60)), {
          numRuns: ROUNDS,
          seed: SEED
        })
        for (const [round, pauses] of delays.entries()) {
          const children = yield* Effect.forEach(
            [round % 2 === 0 ? "store" : "clean", "store"],
            (mode) => started(process.execPath, [main, root, KEY, mode])
          )
          yield* Effect.promise(() => Promise.all(children.map((child) => once(child.stdout!, "data"))))
          for (const [index, child] of children.entries()) {
            const end = performance.now() + pauses[index]
            do {
              const entries = yield* listEntries(root)
              assert.deepStrictEqual(
                brief(entries).filter((name) => name !== KEY),
                [],
                `seed ${SEED}, round ${round}, alive`
              )
            } while (performance.now() < end)
            assert.isNull(child.exitCode, `seed ${SEED}, round ${round}: it ended by itself`)
            yield* killed(child)
          }
          const entry = Option.getOrUndefined(yield* verifyEntry(root, KEY))
          if (entry === undefined) {
            assert.strictEqual(round % 2, 1, `seed ${SEED}, round ${round}: only a clean removes`)
          } else assert.strictEqual(entry._tag, "Valid", `seed ${SEED}, round ${round}: ${JSON.stringify(entry)}`)
        }
        yield* store(root, KEY, "last")
        assert.deepStrictEqual(visible(root), [KEY], "what the dead left is gone")
      }).pipe(Effect.scoped, Effect.provide(Host)),
    120_000
  )

  const mayMount = spawnSync("unshare", ["--mount", "true"]).status === 0
  it.live.skipIf(!mayMount)(
    "replace and clean entries of an overlay's lower layer, which cannot be moved (needs root)",
    () =>
      Effect.gen(function*() {
        const main = yield* program
        const place = yield* temporary
        yield* store(join(place, "lower"), KEY, "of the image")
        yield* store(join(place, "lower"), "other", "of the image")
        for (const name of ["upper", "work", "cache"]) mkdirSync(join(place, name))
        const script = `cd "$1" && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work cache
        node "$2" "$PWD/cache" ${KEY} store 1 && grep -c "pid " cache/${KEY}/metadata.json && ls cache
        node "$2" "$PWD/cache" ${KEY} clean 1 && ls cache`
        const output = run("unshare", [
          "--mount",
          "env",
          `NODE_PATH=${modules}`,
          "sh",
          "-ec",
          script,
          "sh",
          place,
          main
        ])
        assert.strictEqual(output.toString(), `stored\n1\n${KEY}\nother\nstored\n`)
        assert.strictEqual(yield* fault(join(place, "lower"), KEY), "valid")
      }).pipe(Effect.scoped, Effect.provide(Host))
  )
})
