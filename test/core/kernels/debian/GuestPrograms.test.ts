import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdirSync, readdirSync, symlinkSync } from "node:fs"
import { basename, join } from "node:path"
import { cacheRoot } from "../../../../src/core/CacheDir.ts"
import { arm64Programs } from "../../../../src/core/kernels/debian/GuestPrograms.ts"
import { readHostFile } from "../../../../src/kvm/guest/HostFiles.ts"
import { arm64System, sharedLibraries } from "../../../../src/kvm/guest/SharedLibraries.ts"
import { Host, temporary, withVariables } from "../../kernelEntries.ts"
import { withVariable } from "../../processes.ts"
import { has, run } from "../../samples.ts"

/** The programs in another cache, by the user's own package lists. */
const programsIn = (root: string) => Effect.provide(withVariables({ KTSTR_CACHE_DIR: root })(arm64Programs), Host)

const withLists = Effect.gen(function*() {
  const root = yield* temporary
  const lists = join(yield* cacheRoot, ".apt")
  mkdirSync(lists, { recursive: true })
  symlinkSync(lists, join(root, ".apt"))
  return root
})

/** What this machine has installed, and for which architectures. */
const installed = () => run("dpkg", ["--print-foreign-architectures"]).toString() + run("dpkg-query", ["-W"]).toString()

describe.skipIf(!has("apt-get") || !has("dpkg"))("programs for arm64 guests", () => {
  it.scopedLive(
    "are fetched once, with all libraries that they need, and nothing is installed",
    () =>
      Effect.gen(function*() {
        const root = yield* withLists
        const before = installed()
        const directory = yield* programsIn(root)
        assert.strictEqual(installed(), before)
        assert.match(
          run("file", ["-b", join(directory, "bin/busybox")]).toString(),
          /^ELF 64-bit LSB executable, ARM aarch64, .*statically linked/
        )
        for (const path of ["usr/sbin/bpftool", "usr/bin/chrt"]) {
          const file = yield* readHostFile(join(directory, path))
          const libraries = yield* sharedLibraries([file], arm64System(directory))
          const names = libraries.map(({ path }) => basename(path))
          assert.include(libraries.map(({ path }) => path), "/lib/ld-linux-aarch64.so.1")
          for (const library of [path, ...libraries.map(({ path }) => path.slice(1))]) {
            const section = run("readelf", ["-d", join(directory, library)]).toString()
            const needed = [...section.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name]) => name)
            assert.deepStrictEqual(needed.filter((name) => !names.includes(name)), [], library)
          }
        }
        assert.deepStrictEqual(readdirSync(join(root, ".programs")), [basename(directory)])
        yield* withVariable("PATH", root)
        assert.strictEqual(yield* programsIn(root), directory)
      }),
    240_000
  )

  it.scopedLive("whose download fails leave nothing but apt's last word", () =>
    Effect.gen(function*() {
      const root = yield* withLists
      yield* programsIn(root) // so that the lists are there
      const other = yield* withLists
      yield* withVariable("http_proxy", "http://127.0.0.1:9")
      yield* withVariable("https_proxy", "http://127.0.0.1:9")
      const { message } = yield* Effect.flip(programsIn(other))
      assert.match(
        message,
        /^cannot download programs for arm64 guests of \w+: E: .*; check the network, and the disk$/
      )
      assert.deepStrictEqual(readdirSync(other), [".apt"])
    }), 240_000)
})
