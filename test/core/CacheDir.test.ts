import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it, layer } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process"
import { randomUUID } from "node:crypto"
import { once } from "node:events"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { cacheRoot, makeDirectories, temporaryDirectory } from "../../src/core/CacheDir.ts"
import { withLock } from "../../src/core/EntryLock.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"

const Live = Layer.merge(NodeFileSystem.layer, NativeKoffi.layer)

const environment = (variables: Record<string, string>) =>
  Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables))))

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-cache-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** End a process by closing its stdin, and wait for that. */
const ended = async (child: ChildProcessWithoutNullStreams): Promise<void> => {
  child.stdin.end()
  if (child.exitCode === null) await once(child, "close")
}

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
      const hint = "so the cache has no directory; set KTSTR_CACHE_DIR to a directory that you can write"
      assert.strictEqual(yield* message({}), `kernel cache: HOME is not set, ${hint}`)
      assert.strictEqual(yield* message({ HOME: "" }), `kernel cache: HOME is set but empty, ${hint}`)
    }))
})

layer(Live, { excludeTestServices: true })("temporaryDirectory", (it) => {
  it.scoped("makes the cache, and goes with its scope", () =>
    Effect.gen(function*() {
      const root = join(yield* temporary, "deep/er")
      yield* Effect.scoped(Effect.gen(function*() {
        const path = yield* temporaryDirectory(root)
        writeFileSync(join(path, "file"), "")
        assert.deepStrictEqual(readdirSync(root, { recursive: true }).map(String).toSorted(), [
          basename(path),
          join(basename(path), "file")
        ])
      }))
      assert.deepStrictEqual(readdirSync(root), [])
    }))

  const UNSHARE = ["unshare", "--pid", "--fork", "--kill-child"]
  const mayUnshare = spawnSync("unshare", [...UNSHARE.slice(1), "true"]).status === 0
  const leftovers = (prefix: ReadonlyArray<string>) => () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const [dead, livingName] = [`.tmp-${randomUUID()}`, `.tmp-${randomUUID()}`]
      // A name of the user's own, and a link, are not ours to remove.
      for (const name of [dead, livingName, ".tmp-backup", ".locks", "key"]) {
        mkdirSync(join(root, name, "entry"), { recursive: true })
      }
      const outside = yield* temporary
      writeFileSync(join(outside, "file"), "")
      const link = `.tmp-${randomUUID()}`
      symlinkSync(outside, join(root, link))
      const living = join(root, livingName)
      const holder = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const [program, ...args] = [...prefix, "flock", living, "sh", "-c", "echo locked; exec cat"]
          const child = spawn(program, args)
          await once(child.stdout, "data")
          return child
        }),
        (child) => Effect.promise(() => ended(child))
      )
      const mine = yield* Scope.make()
      const path = yield* Scope.extend(temporaryDirectory(root), mine)
      assert.deepStrictEqual(
        readdirSync(root).toSorted(),
        [".locks", basename(path), livingName, ".tmp-backup", "key"].toSorted()
      )
      const second = yield* Effect.scoped(temporaryDirectory(root))
      assert.notStrictEqual(second, path)
      assert.isTrue(statSync(path).isDirectory(), "the first is in use")
      assert.deepStrictEqual(readdirSync(outside), ["file"])

      yield* Effect.promise(() => ended(holder))
      yield* Scope.close(mine, Exit.void)
      yield* Effect.scoped(temporaryDirectory(root))
      assert.deepStrictEqual(readdirSync(root).toSorted(), [".locks", ".tmp-backup", "key"])
    })
  it.scoped("removes what dead processes left, and nothing of living ones", leftovers([]))
  it.scoped.skipIf(!mayUnshare)("nor of those in another PID namespace (needs root)", leftovers(UNSHARE))

  it.scoped("is made under the cache's lock, so that nobody takes it for left behind before it has its own", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const waiting = yield* withLock(root, "exclusive", 0)(Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.scoped(Effect.map(temporaryDirectory(root), existsSync)))
        yield* Effect.sleep("100 millis")
        assert.isNull(fiber.unsafePoll())
        return fiber
      }))
      assert.isTrue(yield* Fiber.join(waiting))
    }))

  it.scoped("names the path and the way out where it cannot write", () =>
    Effect.gen(function*() {
      const file = join(yield* temporary, "file")
      writeFileSync(file, "")
      const places = [
        ["/sys/ktstr", "EPERM|EACCES|EROFS"],
        ["/proc/ktstr/kernels", "ENOENT"], // where Node's own `mkdir -p` never ends
        [join(file, "cache"), "ENOTDIR"],
        [file, "ENOTDIR"]
      ]
      for (const [root, code] of places) {
        const error = yield* Effect.flip(temporaryDirectory(root))
        assert.match(
          error.message,
          new RegExp(`^kernel cache ${root}: (${code}): .*; set KTSTR_CACHE_DIR to a directory that you can write$`)
        )
      }
    }))
})

it.scoped("makeDirectories leaves what is there, and makes what others make at once", () =>
  Effect.gen(function*() {
    const root = yield* temporary
    const path = join(root, "a/b/c")
    yield* Effect.all(Array.from({ length: 8 }, () => makeDirectories(path)), { concurrency: "unbounded" })
    writeFileSync(join(path, "file"), "")
    yield* makeDirectories(path)
    assert.deepStrictEqual(readdirSync(path), ["file"])
  }).pipe(Effect.provide(Live)))
