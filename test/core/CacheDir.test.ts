import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { spawnSync } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  utimesSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type CacheError, cacheKeys, cacheRoot, storeEntry } from "../../src/core/CacheDir.ts"

const environment = (variables: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables))))

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-cache-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const holdsFile = (directory: string) => Effect.sync(() => existsSync(join(directory, "file")))

const store = (root: string, text: string, during: Effect.Effect<void> = Effect.void) =>
  storeEntry(
    root,
    "key",
    (directory) => Effect.andThen(during, () => writeFileSync(join(directory, "file"), text)),
    holdsFile
  ).pipe(
    Effect.provide(NodeFileSystem.layer)
  )

const stored = (root: string) => readFileSync(join(root, "key/file"), "utf8")

describe("cacheRoot", () => {
  it.effect.each(
    [
      [{ KTSTR_CACHE_DIR: "/a/b", XDG_CACHE_HOME: "/x", HOME: "/h" }, "/a/b"],
      [{ KTSTR_CACHE_DIR: "", XDG_CACHE_HOME: "/x", HOME: "/h" }, "/x/ktstr/kernels"],
      [{ XDG_CACHE_HOME: "", HOME: "/h" }, "/h/.cache/ktstr/kernels"],
      [{ KTSTR_CACHE_DIR: "here" }, join(process.cwd(), "here")]
    ] as ReadonlyArray<readonly [Record<string, string>, string]>
  )("%j gives %s", ([variables, expected]) =>
    Effect.gen(function*() {
      assert.strictEqual(yield* environment(variables)(cacheRoot), expected)
    }))

  it.effect("tells an empty HOME from an absent one", () =>
    Effect.gen(function*() {
      const message = (variables: Record<string, string>) =>
        Effect.map(Effect.flip(environment(variables)(cacheRoot)), (error) => error.message)
      const mend = "so there is no place for it; set KTSTR_CACHE_DIR to a directory that you can write"
      assert.strictEqual(yield* message({}), `kernel cache: HOME is not set, ${mend}`)
      assert.strictEqual(yield* message({ HOME: "" }), `kernel cache: HOME is set but empty, ${mend}`)
    }))
})

describe("storeEntry", () => {
  it.scoped("makes the cache and the entry, and leaves nothing else", () =>
    Effect.gen(function*() {
      const root = join(yield* temporary, "deep/er")
      assert.strictEqual(yield* store(root, "one"), join(root, "key"))
      assert.strictEqual(stored(root), "one")
      assert.deepStrictEqual(readdirSync(root), ["key"])
    }))

  it.scoped("keeps the winner's entry when two store at once", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const paths = yield* Effect.all(
        [
          store(root, "slow", Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 50)))),
          store(root, "fast")
        ],
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(paths, [join(root, "key"), join(root, "key")])
      assert.strictEqual(stored(root), "fast")
      assert.deepStrictEqual(readdirSync(root), ["key"])
    }))

  it.scoped("replaces an entry that is not usable", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      mkdirSync(join(root, "key"))
      writeFileSync(join(root, "key/other"), "")
      yield* store(root, "new")
      assert.strictEqual(stored(root), "new")
      assert.deepStrictEqual(readdirSync(root), ["key"])
    }))

  it.scoped("leaves nothing of a failed or interrupted build", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const failing = storeEntry(root, "key", (directory) =>
        Effect.sync(() =>
          writeFileSync(join(directory, "file"), "")
        ).pipe(
          Effect.andThen(Effect.fail("broken" as const))
        ), holdsFile).pipe(Effect.provide(NodeFileSystem.layer))
      assert.strictEqual(yield* Effect.flip(failing), "broken")
      assert.deepStrictEqual(readdirSync(root), [])

      const fiber = yield* Effect.fork(store(root, "never", Effect.never))
      while (readdirSync(root).length === 0) {
        yield* Effect.promise(() =>
          new Promise((done) =>
            setTimeout(done, 1)
          )
        )
      }
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(readdirSync(root), [])
    }))

  it.scoped("removes what dead processes left, and nothing of living ones", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const namespace = /\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0]
      const dead = spawnSync("true").pid
      const names = {
        dead: `.tmp-${namespace}-${dead}-a`,
        alive: `.tmp-${namespace}-${process.ppid}-b`,
        elsewhereNew: `.tmp-1-${dead}-c`,
        elsewhereOld: `.tmp-1-${dead}-d`
      }
      for (const name of Object.values(names)) mkdirSync(join(root, name, "entry"), { recursive: true })
      const twoDaysAgo = new Date(Date.now() - 2 * 24 * 3600 * 1000)
      utimesSync(join(root, names.elsewhereOld), twoDaysAgo, twoDaysAgo)
      yield* store(root, "x")
      assert.deepStrictEqual(readdirSync(root).toSorted(), [names.alive, names.elsewhereNew, "key"].toSorted())
      assert.deepStrictEqual(yield* cacheKeys(root).pipe(Effect.provide(NodeFileSystem.layer)), ["key"])
    }))

  it.scoped("names the path and the way out where it cannot write", () =>
    Effect.gen(function*() {
      const file = join(yield* temporary, "file")
      writeFileSync(file, "")
      for (const [root, code] of [["/sys/ktstr", "EPERM|EACCES|EROFS"], [join(file, "cache"), "ENOTDIR"]]) {
        const error: CacheError = yield* Effect.flip(store(root, "x"))
        assert.match(
          error.message,
          new RegExp(`^kernel cache ${root}: (${code}): .*; set KTSTR_CACHE_DIR to a directory that you can write$`)
        )
      }
    }))
})

it.effect("cacheKeys of a cache that does not exist are none", () =>
  Effect.gen(function*() {
    assert.deepStrictEqual(yield* cacheKeys("/no/such/cache"), [])
  }).pipe(Effect.provide(NodeFileSystem.layer)))
