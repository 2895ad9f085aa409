import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { once } from "node:events"
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { cleanCache } from "../../src/core/kernels/cache/CleanCache.ts"
import { listEntries } from "../../src/core/kernels/cache/KernelCache.ts"
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
        corrupt(root, "6.1.2-tarball-x86_64-kc01234567")
        corrupt(root, "debian-linux-image-6.1.0-56-amd64_6.1.1-1")
        mkdirSync(join(root, ".downloads"))
        writeFileSync(join(root, ".downloads/linux.tar.xz.part"), "half")
        mkdirSync(join(root, `.tmp-${randomUUID()}/entry`), { recursive: true })
        mkdirSync(join(root, ".tmp-backup"))
        const before = yield* listEntries(root)
        const cleaned = yield* cleanCache(root, options)
        assert.deepStrictEqual(brief(cleaned.kept), [...left])
        assert.deepStrictEqual(cleaned.removed, before.filter((entry) => !left.includes(entry.key)))
        assert.deepStrictEqual([cleaned.inUse, cleaned.downloads], [[], ["linux.tar.xz.part"]])
        assert.deepStrictEqual(yield* listEntries(root), cleaned.kept)
        assert.deepStrictEqual(visible(root), [".downloads", ".tmp-backup", ...left.toSorted()])
        assert.deepStrictEqual(readdirSync(join(root, ".downloads")), [])
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
      symlinkSync(join(outside, "broken"), join(root, "broken-link-kc01234567"))
      mkdirSync(join(root, "Documents"))
      mkdirSync(join(root, "myproject"))
      writeFileSync(join(root, "myproject/metadata.json"), "{\"name\":\"my app\"}")
      mkdirSync(join(root, "later"))
      writeFileSync(join(root, "later/metadata.json"), "{\"format\":9,\"source\":{\"kind\":\"nebula\"}}")
      mkdirSync(join(root, KEY))
      const { kept, removed } = yield* cleanCache(root, {})
      assert.deepStrictEqual(
        brief(removed).toSorted(),
        [`${KEY}: missing`, "broken-link-kc01234567: truncated", "later: schema_drift", "link", "linking"].toSorted()
      )
      assert.deepStrictEqual(brief(kept), ["Documents: missing", "myproject: schema_drift"])
      assert.deepStrictEqual(visible(root), ["Documents", "myproject"])
      assert.deepStrictEqual(readdirSync(outside).toSorted(), [".locks", KEY, "broken"].toSorted())
      assert.strictEqual(yield* fault(outside, KEY), "valid")
    }))

  it.scoped("makes no cache where there is none", () =>
    Effect.gen(function*() {
      const root = join(yield* temporary, "none")
      assert.deepStrictEqual(yield* cleanCache(root, {}), { removed: [], kept: [], inUse: [], downloads: [] })
      assert.isFalse(existsSync(root))
    }))
})
