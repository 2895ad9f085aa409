import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { storeKernel, verifyEntry } from "../../../../src/core/kernels/cache/KernelCache.ts"
import { parseKernelId } from "../../../../src/core/kernels/KernelId.ts"
import { kernelOfId } from "../../../../src/core/kernels/KernelOfId.ts"
import { Host, image, put, temporary, vmlinux, withVariables } from "../../kernelEntries.ts"
import { bzImage } from "../../samples.ts"

const PACKAGE = "linux-image-6.99.1+deb12-cloud-amd64"
const KEY = `debian-${PACKAGE}_6.99.1-1`
const RELEASE = "6.99.1+deb12-cloud-amd64"

/** An entry as it was stored before unpacked kernels were recorded; its directory. */
const storeOld = (root: string, bytes: Uint8Array) =>
  Effect.gen(function*() {
    const { directory } = yield* storeKernel(root, KEY, (made) =>
      Effect.sync(() => {
        put(join(made, "vmlinuz"), bytes)
        put(join(made, "config"), "CONFIG_X=y\n")
        put(join(made, "modules/kernel/fs/9p.ko"), "module")
        return {
          source: { kind: "debian", package: PACKAGE, version: "6.99.1-1", suite: "bookworm" },
          release: RELEASE,
          image: "vmlinuz",
          vmlinux: null,
          config: "config",
          modules: "modules",
          kconfigHash: null,
          extraKconfigHash: null
        }
      }), { replace: true })
    const { unpacked, ...old } = metadataOf(directory)
    assert.isNull(unpacked)
    writeFileSync(join(directory, "metadata.json"), JSON.stringify(old))
    return directory
  })

const metadataOf = (directory: string) => JSON.parse(readFileSync(join(directory, "metadata.json"), "utf8"))

const kernel = (root: string, id: string) =>
  withVariables({ KTSTR_CACHE_DIR: root })(Effect.flatMap(parseKernelId(id), (id) => kernelOfId(id)))

/** That the entry is whole, and nothing else is left beside it. */
const isWhole = (root: string) =>
  Effect.gen(function*() {
    assert.strictEqual(Option.getOrThrow(yield* verifyEntry(root, KEY))._tag, "Valid")
    assert.deepStrictEqual(readdirSync(root).filter((name) => name !== ".locks"), [KEY])
  })

layer(Host)("an entry stored before unpacked kernels were recorded", (it) => {
  for (const id of ["debian:6.99-cloud", KEY]) {
    it.scoped(`gets its own when ${id} is used, once, and keeps the rest`, () =>
      Effect.gen(function*() {
        const root = yield* temporary
        const elf = vmlinux(RELEASE)
        const directory = yield* storeOld(root, bzImage(gzipSync(elf), RELEASE))
        const { unpacked } = yield* kernel(root, id)
        assert.strictEqual(unpacked, join(directory, "vmlinux"))
        assert.deepStrictEqual(readFileSync(join(directory, "vmlinux")), elf)
        assert.strictEqual(readFileSync(join(directory, "config"), "utf8"), "CONFIG_X=y\n")
        assert.strictEqual(readFileSync(join(directory, "modules/kernel/fs/9p.ko"), "utf8"), "module")
        yield* isWhole(root)
        const stored = readFileSync(join(directory, "metadata.json"), "utf8")
        yield* kernel(root, id)
        assert.strictEqual(readFileSync(join(directory, "metadata.json"), "utf8"), stored)
      }))
  }

  it.scoped("whose image cannot be unpacked says so from then on", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const directory = yield* storeOld(root, image(RELEASE)) // no ELF in it
      const { unpacked } = yield* kernel(root, KEY)
      assert.isUndefined(unpacked)
      assert.isNull(metadataOf(directory).unpacked)
      yield* isWhole(root)
    }))

  it.scoped("stays as it is where the cache cannot be written, with a warning", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const directory = yield* storeOld(root, bzImage(gzipSync(vmlinux(RELEASE)), RELEASE))
      const before = readFileSync(join(directory, "metadata.json"), "utf8")
      rmSync(join(root, ".locks"), { recursive: true })
      writeFileSync(join(root, ".locks"), "")
      const warnings: Array<string> = []
      const logger = Logger.make(({ message }) => void warnings.push(String(message)))
      const { unpacked } = yield* kernel(root, KEY).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, logger))
      )
      assert.isUndefined(unpacked)
      assert.strictEqual(readFileSync(join(directory, "metadata.json"), "utf8"), before)
      assert.deepStrictEqual(readdirSync(root).toSorted(), [".locks", KEY])
      assert.lengthOf(warnings, 1)
      assert.match(
        warnings[0],
        new RegExp(`^cannot keep \\S+ unpacked, so its guests start slowly and with KASLR: kernel cache ${root}\\S*: `)
      )
    }))
})
