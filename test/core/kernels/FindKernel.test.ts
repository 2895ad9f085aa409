import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import { rmSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { tarballKey } from "../../../src/core/kernels/cache/CacheKey.ts"
import { findKernel, type HostPlace } from "../../../src/core/kernels/FindKernel.ts"
import { Host, image, put, store, temporary, vmlinux, withVariables } from "../kernelEntries.ts"
import { run } from "../samples.ts"

const HOST_RELEASE = "6.98.0-host"
/** Everything that `findKernel` looks at, in one directory. */
interface Place extends HostPlace {
  readonly cache: string
}

const place = Effect.map(temporary, (root): Place => ({
  root: join(root, "host"),
  directory: join(root, "home/here"),
  release: HOST_RELEASE,
  cache: join(root, "cache")
}))

const find = (at: Place, variables: Record<string, string> = {}) =>
  withVariables({ KTSTR_CACHE_DIR: at.cache, ...variables })(findKernel(at))

const imageOf = (at: Place, variables?: Record<string, string>) =>
  Effect.map(find(at, variables), (found) => Option.getOrUndefined(found)?.image)

const messageOf = (at: Place, variables: Record<string, string>) =>
  Effect.map(Effect.flip(find(at, variables)), (error) => error.message)

/** What is warned of while `work` runs. */
const warningsOf = <A, E, R>(work: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const warnings: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => void warnings.push(`${logLevel.label}: ${String(message)}`))
    const result = yield* Effect.provide(work, Logger.replace(Logger.defaultLogger, logger))
    return { result, warnings }
  })

const storeTarball = (at: Place, version: string) =>
  store(at.cache, Either.getOrThrow(tarballKey(version)), { release: version })

const hostKernel = (at: Place) => put(join(at.root, `boot/vmlinuz-${HOST_RELEASE}`), image(HOST_RELEASE))

layer(Host)("without KTSTR_KERNEL", (it) => {
  it.scoped("nothing anywhere is none, not an error", () =>
    Effect.gen(function*() {
      const at = yield* place
      assert.deepStrictEqual(yield* find(at), Option.none())
      for (const value of ["", "  ", "\t\n"]) {
        assert.deepStrictEqual(yield* find(at, { KTSTR_KERNEL: value }), Option.none())
      }
    }))

  it.scoped("the cache comes before build trees, these before the host's kernels, each in its order", () =>
    Effect.gen(function*() {
      const at = yield* place
      const modules = join(at.root, "lib/modules", HOST_RELEASE)
      const kernel = image(HOST_RELEASE)
      // each is put beside the ones that come after it
      const boot = put(join(at.root, "boot/vmlinuz"), kernel)
      assert.strictEqual(yield* imageOf(at), boot)
      const bootRelease = hostKernel(at)
      assert.strictEqual(yield* imageOf(at), bootRelease)
      const module = put(join(modules, "vmlinuz"), kernel)
      assert.strictEqual(yield* imageOf(at), module)
      put(join(at.root, "usr/src/linux/arch/x86/boot/bzImage"), kernel)
      symlinkSync("../../../usr/src/linux", join(modules, "build"))
      assert.strictEqual(yield* imageOf(at), join(modules, "build/arch/x86/boot/bzImage"))
      const sibling = put(join(at.directory, "../linux/arch/x86/boot/bzImage"), kernel)
      assert.strictEqual(yield* imageOf(at), sibling)
      const child = put(join(at.directory, "linux/bzImage"), kernel)
      assert.strictEqual(yield* imageOf(at), child)
      const entry = yield* storeTarball(at, "6.99.1")
      assert.strictEqual(yield* imageOf(at), join(entry, "bzImage"))
      assert.strictEqual(yield* imageOf(at, { KTSTR_KERNEL: boot }), boot)
      assert.strictEqual(yield* imageOf(at, { KTSTR_KERNEL: " \t " }), join(entry, "bzImage"))
    }))

  it.scoped("a tree without an image, and a file that is no kernel, are passed over", () =>
    Effect.gen(function*() {
      const at = yield* place
      put(join(at.directory, "linux/Makefile"), "")
      put(join(at.directory, "../linux/arch/x86/boot/bzImage"), "not a kernel")
      put(join(at.root, "lib/modules", HOST_RELEASE, "build/Makefile"), "")
      const expected = hostKernel(at)
      assert.strictEqual(yield* imageOf(at), expected)
    }))

  it.scoped("an unusable cache is warned of, and the chain goes on", () =>
    Effect.gen(function*() {
      const at = yield* place
      const expected = hostKernel(at)
      put(at.cache, "a file")
      const { result, warnings } = yield* warningsOf(imageOf(at))
      assert.strictEqual(result, expected)
      assert.strictEqual(warnings.length, 1)
      assert.match(warnings[0], /^WARN: kernel cache /)
    }))
})

layer(Host)("of the cache", (it) => {
  it.scoped("the kernel that was stored last is taken, whatever its version; corrupt and stale ones are not", () =>
    Effect.gen(function*() {
      const at = yield* place
      const first = yield* storeTarball(at, "6.99.9")
      const second = yield* storeTarball(at, "6.99.1")
      assert.strictEqual(yield* imageOf(at), join(second, "bzImage"))
      yield* store(at.cache, "stale", { release: "6.99.2", kconfigHash: "00000000" })
      writeFileSync(join(yield* storeTarball(at, "6.99.3"), "metadata.json"), "{")
      rmSync(join(yield* storeTarball(at, "6.99.4"), "bzImage"))
      assert.strictEqual(yield* imageOf(at), join(second, "bzImage"))
      rmSync(second, { recursive: true })
      assert.strictEqual(yield* imageOf(at), join(first, "bzImage"))
    }))

  it.scoped("a kernel that was built by somebody else, so has no kconfig hash, counts", () =>
    Effect.gen(function*() {
      const at = yield* place
      yield* storeTarball(at, "6.99.1")
      const foreign = yield* store(at.cache, "debian-x_1", { release: "6.99.2", kconfigHash: null })
      assert.strictEqual(yield* imageOf(at), join(foreign, "bzImage"))
    }))

  it.scoped("a kernel whose vmlinux cannot serve is skipped with a warning that says why", () =>
    Effect.gen(function*() {
      const at = yield* place
      const whole = vmlinux("6.99.0")
      const good = yield* store(at.cache, "good", { release: "6.99.0", vmlinux: whole })
      assert.deepStrictEqual(yield* warningsOf(imageOf(at)), { result: join(good, "bzImage"), warnings: [] })

      const scratch = put(join(dirname(at.cache), "scratch/vmlinux"), whole)
      const changed = (program: string, ...args: ReadonlyArray<string>) => {
        run(program, [...args, scratch, `${scratch}.out`])
        return run("cat", [`${scratch}.out`])
      }
      const bad: ReadonlyArray<readonly [key: string, bytes: Uint8Array, why: string]> = [
        ["no-symtab", changed("objcopy", "--strip-all"), "lacks .symtab"],
        ["no-btf", changed("objcopy", "--remove-section=.BTF"), "lacks .BTF"],
        ["no-runqueues", changed("objcopy", "--redefine-sym=runqueues=other"), "lacks runqueues"],
        ["no-percpu", changed("objcopy", "--strip-symbol=__per_cpu_offset"), "lacks __per_cpu_offset"],
        [
          "neither",
          vmlinux("6.99.0", ["__attribute__((section(\".BTF\"))) int x = 1;"]),
          "lacks runqueues and __per_cpu_offset"
        ],
        ["cut-off", whole.subarray(0, 100), "cannot be used: "],
        ["no-elf", Buffer.from("text"), "cannot be used: "]
      ]
      for (const [key, bytes] of bad) yield* store(at.cache, key, { release: "6.99.1", vmlinux: bytes })
      const { result, warnings } = yield* warningsOf(imageOf(at))
      assert.strictEqual(result, join(good, "bzImage"))
      assert.strictEqual(warnings.length, bad.length)
      for (const [at, [key, , why]] of bad.toReversed().entries()) {
        assert.include(warnings[at], `WARN: skipping cached kernel ${key}: its vmlinux ${why}`)
      }
    }))
})

layer(Host)("KTSTR_KERNEL", (it) => {
  it.scoped("as a path gives the kernel there, blanks around it or not", () =>
    Effect.gen(function*() {
      const at = yield* place
      yield* storeTarball(at, "6.99.1")
      const tree = dirname(put(join(at.directory, "tree/bzImage"), image("6.99.2")))
      assert.strictEqual(yield* imageOf(at, { KTSTR_KERNEL: ` ${tree}\n` }), join(tree, "bzImage"))
      assert.strictEqual(yield* imageOf(at, { KTSTR_KERNEL: "~/tree", HOME: at.directory }), join(tree, "bzImage"))
    }))

  it.scoped("as a path with no kernel fails, whatever else there is", () =>
    Effect.gen(function*() {
      const at = yield* place
      hostKernel(at)
      yield* storeTarball(at, "6.99.1")
      const missing = join(at.root, "missing")
      assert.strictEqual(
        yield* messageOf(at, { KTSTR_KERNEL: missing }),
        `KTSTR_KERNEL="${missing}": no kernel at ${missing}: no such file or directory; ` +
          "give a bzImage, a vmlinux, or a directory that holds one"
      )
      assert.include(yield* messageOf(at, { KTSTR_KERNEL: put(join(at.root, "text"), "x") }), "neither a bzImage nor")
    }))

  it.scoped("as a version or a key gives that kernel of the cache, and never another one of it", () =>
    Effect.gen(function*() {
      const at = yield* place
      const older = yield* storeTarball(at, "6.99.1")
      const other = yield* store(at.cache, "mine", { release: "6.99.9", kconfigHash: "00000000" })
      yield* storeTarball(at, "6.98.7")
      for (const value of ["6.99.1", "6.99", " 6.99.1 ", Either.getOrThrow(tarballKey("6.99.1"))]) {
        assert.strictEqual(yield* imageOf(at, { KTSTR_KERNEL: value }), join(older, "bzImage"), value)
      }
      assert.strictEqual(yield* imageOf(at, { KTSTR_KERNEL: "mine" }), join(other, "bzImage"))
      for (const value of ["6.99.2", "6.97", "6.99-rc1", "no-such-key"]) {
        assert.deepStrictEqual(yield* find(at, { KTSTR_KERNEL: value }), Option.none(), value)
      }
      const expected = hostKernel(at)
      for (const value of ["6.99.2", "6.97", "no-such-key"]) {
        assert.strictEqual(yield* imageOf(at, { KTSTR_KERNEL: value }), expected, value)
      }
      assert.strictEqual(yield* imageOf(at), join(at.cache, Either.getOrThrow(tarballKey("6.98.7")), "bzImage"))
    }))

  it.scoped("as a key of a corrupt entry warns which kind, and goes on to the file system", () =>
    Effect.gen(function*() {
      const at = yield* place
      writeFileSync(join(yield* storeTarball(at, "6.99.1"), "metadata.json"), "[]")
      yield* storeTarball(at, "6.99.2")
      const { result, warnings } = yield* warningsOf(imageOf(at, { KTSTR_KERNEL: "6.99.1" }))
      assert.isUndefined(result)
      assert.strictEqual(warnings.length, 1)
      assert.match(warnings[0], /^WARN: cache entry 6\.99\.1-tarball-\S+ is corrupt \(schema_drift\): /)
    }))

  it.scoped("as a version or a key fails where there is no cache to look into", () =>
    Effect.gen(function*() {
      const at = yield* place
      hostKernel(at)
      put(at.cache, "a file")
      for (const value of ["6.99.1", "some-key"]) {
        assert.match(
          yield* messageOf(at, { KTSTR_KERNEL: value }),
          new RegExp(`^KTSTR_KERNEL="${value}": kernel cache ${at.cache}: .*; set KTSTR_CACHE_DIR to a directory`)
        )
        assert.strictEqual(
          yield* Effect.map(Effect.flip(withVariables({ KTSTR_KERNEL: value })(findKernel(at))), (error) =>
            error.message),
          `KTSTR_KERNEL="${value}": kernel cache: HOME is not set, so the cache has no directory; ` +
            "set KTSTR_CACHE_DIR to a directory that you can write"
        )
      }
    }))

  it.scoped("as a range or a git source fails, and first for what is wrong with it", () =>
    Effect.gen(function*() {
      const at = yield* place
      hostKernel(at)
      yield* storeTarball(at, "6.99.1")
      for (const value of ["6.99..6.99.5", "git+https://example.org/linux#main"]) {
        assert.strictEqual(
          yield* messageOf(at, { KTSTR_KERNEL: value }),
          `KTSTR_KERNEL="${value}": the variable names one kernel, not a range or a git source; ` +
            "set it to a version, a cache key, a path or debian:…, or use --kernel"
        )
      }
      assert.strictEqual(
        yield* messageOf(at, { KTSTR_KERNEL: "6.99.5..6.99" }),
        "KTSTR_KERNEL=\"6.99.5..6.99\": the range ends before it starts; swap the ends: 6.99..6.99.5"
      )
      assert.match(
        yield* messageOf(at, { KTSTR_KERNEL: "two\nwords" }),
        /^KTSTR_KERNEL="two\\nwords": not a kernel id; /
      )
    }))

  it.scoped("may name a Debian kernel", () =>
    Effect.gen(function*() {
      const at = yield* place
      const name = "linux-image-6.12.20+deb12-cloud-amd64-unsigned"
      const entry = yield* store(at.cache, `debian-${name}_6.12.20-1`, {
        release: "6.12.20+deb12-cloud-amd64",
        source: { kind: "debian", package: name, version: "6.12.20-1" },
        kconfigHash: null
      })
      yield* storeTarball(at, "6.99.1")
      assert.strictEqual(yield* imageOf(at, { KTSTR_KERNEL: "debian:6.12-cloud" }), join(entry, "bzImage"))
    }))
})
