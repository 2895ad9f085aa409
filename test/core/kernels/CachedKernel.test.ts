import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Logger from "effect/Logger"
import { readdirSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import {
  extraKconfigHash,
  gitKey,
  kconfigHash,
  localKey,
  tarballKey
} from "../../../src/core/kernels/cache/CacheKey.ts"
import { cachedKernel, type CachedKernelId } from "../../../src/core/kernels/CachedKernel.ts"
import { parseKernelId } from "../../../src/core/kernels/KernelId.ts"
import { Host, type Sample, store, temporary, withVariables } from "../kernelEntries.ts"

const idOf = (text: string): CachedKernelId => {
  const id = Either.getOrThrow(parseKernelId(text))
  if (id._tag === "Path" || id._tag === "Debian" || id._tag === "DebianRange") {
    throw new Error(`${text} is not looked up in the cache`)
  }
  return id
}

const kernel = (root: string, id: string) => withVariables({ KTSTR_CACHE_DIR: root })(cachedKernel(idOf(id)))
const releaseOf = (root: string, id: string) => Effect.map(kernel(root, id), ({ release }) => release)
const messageOf = (root: string, id: string) => Effect.map(Effect.flip(kernel(root, id)), (error) => error.message)

const key = (built: Either.Either<string, Error>): string => Either.getOrThrow(built)
/** Store the tarball of a version; its release is `uname -r`. */
const storeTarball = (root: string, version: string, sample?: Partial<Sample>) =>
  store(root, key(tarballKey(version)), { release: /^\d+\.\d+$/.test(version) ? `${version}.0` : version, ...sample })

const STALE = "00000000"

layer(Host)("a version in the cache", (it) => {
  it.scoped("is its tarball's entry, with the files that it has", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const bare = yield* storeTarball(root, "6.14.1")
      const full = yield* storeTarball(root, "6.14.2", { vmlinux: Buffer.from("x"), config: "CONFIG_X=y\n" })
      const source = "sources of 6.14.2, https://example.org/linux.tar.xz"
      assert.deepStrictEqual(yield* kernel(root, "6.14.1"), {
        release: "6.14.1",
        image: join(bare, "bzImage"),
        source: source.replace("6.14.2", "6.14.1")
      })
      assert.deepStrictEqual(yield* kernel(root, "6.14.2"), {
        release: "6.14.2",
        image: join(full, "bzImage"),
        vmlinux: join(full, "vmlinux"),
        unpacked: join(full, "vmlinux"),
        config: join(full, "config"),
        source
      })
    }))

  it.scoped("of two numbers is the newest release of the series, whenever it was stored; three, or an rc, are exact", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      for (const version of ["6.14.10", "6.14", "6.14-rc7", "6.14.9", "6.15.1", "6.140.3"]) {
        yield* storeTarball(root, version)
      }
      assert.strictEqual(yield* releaseOf(root, "6.14"), "6.14.10")
      assert.strictEqual(yield* releaseOf(root, "6.14.0"), "6.14.0")
      assert.strictEqual(yield* releaseOf(root, "6.14.9"), "6.14.9")
      assert.strictEqual(yield* releaseOf(root, "6.14-rc7"), "6.14-rc7")
      assert.strictEqual(yield* releaseOf(root, "6.12..6.14"), "6.14.10")
      assert.strictEqual(yield* releaseOf(root, "6.12..=6.14.0"), "6.14.0")
      assert.strictEqual(yield* releaseOf(root, "6.14..7.0"), "6.140.3")
    }))

  it.scoped("that it does not hold is one line with the command that gets it, whatever else is there", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const miss = (id: string) => `kernel ${id}: it is not in the cache; run \`ktstr kernel build ${id}\``
      assert.strictEqual(yield* messageOf(root, "6.14"), miss("6.14"))
      assert.strictEqual(yield* messageOf(join(root, "none"), "6.14"), miss("6.14"))
      yield* storeTarball(root, "6.14-rc7")
      yield* storeTarball(root, "6.13.1")
      yield* store(root, key(gitKey("6.14", "0123456")), { release: "6.14.0" })
      yield* store(root, key(localKey("0123456", undefined)), { release: "6.14.0" })
      yield* store(root, "debian-linux-image-6.14_6.14-1", { release: "6.14.0", kconfigHash: null })
      for (const id of ["6.14", "6.14.1", "6.14-rc1"]) assert.strictEqual(yield* messageOf(root, id), miss(id))
      assert.strictEqual(
        yield* messageOf(root, "6.14..6.20"),
        "kernel 6.14..6.20: no release of that range is in the cache; run `ktstr kernel build 6.20`"
      )
    }))

  it.scoped("that was built with another kconfig, or an extra fragment, does not count, and the line says so", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* store(root, `6.14.1-tarball-x86_64-kc${STALE}`, { release: "6.14.1", kconfigHash: STALE })
      const extra = "CONFIG_X=y\n"
      const extraKey = key(tarballKey("6.14.2", extra))
      yield* store(root, extraKey, { release: "6.14.2", extraKconfigHash: extraKconfigHash(extra) })
      assert.strictEqual(
        yield* messageOf(root, "6.14"),
        "kernel 6.14: it is not in the cache, except built with another kconfig; run `ktstr kernel build 6.14`"
      )
      assert.strictEqual(yield* releaseOf(root, extraKey), "6.14.2")
      yield* storeTarball(root, "6.14")
      assert.strictEqual(yield* releaseOf(root, "6.14"), "6.14.0")
    }))

  it.scoped("whose entry is corrupt says which kind; of a series an older one serves, with a warning", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      writeFileSync(join(yield* storeTarball(root, "6.14.2"), "metadata.json"), "{")
      const corrupt = key(tarballKey("6.14.2"))
      const message = `cache entry ${corrupt} is corrupt (truncated): metadata.json ends before its closing brace; ` +
        "run `ktstr kernel clean --corrupt-only`, and get the kernel again"
      for (const id of ["6.14.2", "6.14", "6.12..6.14", corrupt]) {
        assert.strictEqual(yield* messageOf(root, id), message, id)
      }
      truncateSync(join(yield* storeTarball(root, "6.14.1"), "bzImage"), 10)
      assert.match(
        yield* messageOf(root, "6.14.1"),
        /^cache entry \S+ is corrupt \(image_missing\): bzImage has 10 bytes, /
      )

      yield* storeTarball(root, "6.14")
      const warnings: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => void warnings.push(`${logLevel.label}: ${String(message)}`))
      const release = yield* Effect.provide(releaseOf(root, "6.14"), Logger.replace(Logger.defaultLogger, logger))
      assert.strictEqual(release, "6.14.0")
      assert.strictEqual(warnings.length, 2)
      assert.match(warnings[0], /^WARN: 6\.14: passing over cache entry 6\.14\.2-tarball-\S+, corrupt \(truncated\): /)
    }))
})

layer(Host)("a git source in the cache", (it) => {
  const url = "https://example.org/linux.git"
  const git = (ref: string, commit: string, sample?: Partial<Sample>): Sample => ({
    release: `6.14.0-g${commit}`,
    source: { kind: "git", url, ref, commit },
    ...sample
  })

  it.scoped("is the entry of that URL and ref that was stored last", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      for (const commit of ["aaaaaaa", "ccccccc", "bbbbbbb"]) {
        yield* store(root, key(gitKey("for-next/x", commit)), git("for-next/x", commit))
      }
      yield* store(root, key(gitKey("main", "ddddddd")), git("main", "ddddddd"))
      const found = yield* kernel(root, `git+${url}#for-next/x`)
      assert.strictEqual(found.release, "6.14.0-gbbbbbbb")
      assert.strictEqual(found.source, `${url}, for-next/x, commit bbbbbbb`)
    }))

  it.scoped("that it does not hold is one line with a command for a shell", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* store(root, key(gitKey("main", "0123456")), git("main", "0123456"))
      assert.strictEqual(
        yield* messageOf(root, `git+${url}#v6.14`),
        `kernel git+${url}#v6.14: it is not in the cache; run \`ktstr kernel build --git ${url} --ref v6.14\``
      )
      assert.strictEqual(
        yield* messageOf(root, "git+/srv/it's;here#$(x)"),
        "kernel git+/srv/it's;here#$(x): it is not in the cache; " +
          "run `ktstr kernel build --git '/srv/it'\\''s;here' --ref '$(x)'`"
      )
      assert.strictEqual(
        yield* messageOf(root, `git+${url}/#main`),
        `kernel git+${url}/#main: it is not in the cache; run \`ktstr kernel build --git ${url}/ --ref main\``
      )
    }))

  it.scoped("that was built with another kconfig, or an extra fragment, does not count", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* store(root, "a", git("main", "aaaaaaa", { kconfigHash: STALE }))
      yield* store(root, "b", git("main", "bbbbbbb", { extraKconfigHash: STALE }))
      assert.include(
        yield* messageOf(root, `git+${url}#main`),
        "it is not in the cache, except built with another kconfig;"
      )
      yield* store(root, "c", git("main", "ccccccc", { kconfigHash: kconfigHash() }))
      yield* store(root, "d", git("main", "ddddddd", { kconfigHash: STALE }))
      assert.strictEqual(yield* releaseOf(root, `git+${url}#main`), "6.14.0-gccccccc")
    }))
})

layer(Host)("a cache key", (it) => {
  it.scoped("is that entry, whatever it holds; its name in parts is none", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const local = key(localKey("0123456", "89abcdef"))
      yield* store(root, local, {
        release: "6.14.0-mine",
        source: { kind: "local", path: "/srv/linux", commit: "0123456789abcdef" },
        kconfigHash: STALE
      })
      const found = yield* kernel(root, local)
      assert.strictEqual(found.source, "/srv/linux, commit 0123456789abcdef")
      assert.deepStrictEqual(readdirSync(join(root, local)).toSorted(), ["bzImage", "metadata.json"])
      assert.strictEqual(
        yield* messageOf(root, local.slice(0, -1)),
        `kernel ${local.slice(0, -1)}: the cache has no entry of that name; ` +
          `\`ktstr kernel list\` shows those it has; for a file write ./${local.slice(0, -1)}`
      )
    }))

  it.scoped("where there is no cache to look into is the cache's error", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(withVariables({})(cachedKernel(idOf("some-key"))))
      assert.strictEqual(error._tag, "CacheError")
      const file = join(yield* temporary, "file")
      writeFileSync(file, "")
      assert.strictEqual((yield* Effect.flip(kernel(file, "some-key")))._tag, "CacheError")
      assert.strictEqual((yield* Effect.flip(kernel(file, "6.14")))._tag, "CacheError")
    }))
})
