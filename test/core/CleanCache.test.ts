import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { cleanCache, listEntries } from "../../src/core/kernels/cache/KernelCache.ts"
import { brief, fault, KEY, store, storeAll, visible } from "./cacheEntries.ts"
import { Host, temporary } from "./kernelEntries.ts"
import { killed } from "./processes.ts"

layer(Host, { excludeTestServices: true })("cleanCache", (it) => {
  const corrupt = (root: string, key: string) => {
    mkdirSync(join(root, key))
    writeFileSync(join(root, key, "metadata.json"), "{")
  }

  it.scoped("removes all, or all but the newest, or the corrupt alone", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<readonly [Parameters<typeof cleanCache>[1], ReadonlyArray<string>]> = [
        [{}, []],
        [{ keep: 0 }, []],
        [{ keep: 2 }, ["c", "b"]],
        [{ keep: 9 }, ["c", "b", "a"]],
        [{ corruptOnly: true }, ["c", "b", "a"]]
      ]
      for (const [options, left] of cases) {
        const root = yield* temporary
        yield* storeAll(root, ["a", "b", "c"])
        corrupt(root, "broken")
        corrupt(root, "drifted")
        mkdirSync(join(root, ".downloads"))
        mkdirSync(join(root, ".tmp-left/entry"), { recursive: true })
        const before = yield* listEntries(root)
        const cleaned = yield* cleanCache(root, options)
        assert.deepStrictEqual(brief(cleaned.kept), [...left])
        assert.deepStrictEqual(cleaned.removed, before.filter((entry) => !left.includes(entry.key)))
        assert.deepStrictEqual(cleaned.inUse, [])
        assert.deepStrictEqual(yield* listEntries(root), cleaned.kept)
        assert.deepStrictEqual(visible(root), [".downloads", ...left.toSorted()])
      }
    }))

  it.scoped("skips an entry that somebody has locked, and names him", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* storeAll(root, ["a", "b"])
      const child = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const child = spawn("flock", [
            "--no-fork",
            "--shared",
            join(root, ".locks/a.lock"),
            "sh",
            "-c",
            "echo locked; exec cat"
          ])
          await once(child.stdout, "data")
          return child
        }),
        (child) => killed(child)
      )
      const { inUse, kept, removed } = yield* cleanCache(root, {})
      assert.deepStrictEqual([brief(kept), brief(removed)], [[], ["b"]])
      assert.deepStrictEqual(inUse.map(({ entry, holder }) => [entry.key, holder]), [["a", `pid ${child.pid} (cat)`]])
      assert.deepStrictEqual(visible(root), ["a"])
    }))

  it.scoped("follows no link, and leaves directories alone that are none of its own", () =>
    Effect.gen(function*() {
      const [root, outside] = [yield* temporary, yield* temporary]
      yield* store(outside, KEY, "outside")
      const { directory } = yield* store(root, "linking", "one")
      symlinkSync(outside, join(directory, "out"))
      symlinkSync(join(outside, KEY), join(root, "link"))
      corrupt(outside, "broken")
      symlinkSync(join(outside, "broken"), join(root, "broken-link"))
      mkdirSync(join(root, "Documents"))
      mkdirSync(join(root, KEY))
      const { kept, removed } = yield* cleanCache(root, {})
      assert.deepStrictEqual(
        brief(removed).toSorted(),
        [`${KEY}: missing`, "broken-link: truncated", "link", "linking"].toSorted()
      )
      assert.deepStrictEqual(brief(kept), ["Documents: missing"])
      assert.deepStrictEqual(visible(root), ["Documents"])
      assert.deepStrictEqual(readdirSync(outside).toSorted(), [".locks", KEY, "broken"].toSorted())
      assert.strictEqual(yield* fault(outside, KEY), "valid")
    }))

  it.scoped("makes no cache where there is none", () =>
    Effect.gen(function*() {
      const root = join(yield* temporary, "none")
      assert.deepStrictEqual(yield* cleanCache(root, {}), { removed: [], kept: [], inUse: [] })
      assert.isFalse(existsSync(root))
    }))
})
