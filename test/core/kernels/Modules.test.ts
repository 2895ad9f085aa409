import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { decompressWithin } from "../../../src/core/image/Decompress.ts"
import { kernelModules } from "../../../src/core/kernels/Modules.ts"
import { Host, put, temporary } from "../kernelEntries.ts"
import { run } from "../samples.ts"

/** An ELF file with a module's .modinfo. */
const moduleFile = (...information: ReadonlyArray<string>): Buffer => {
  const directory = mkdtempSync(join(tmpdir(), "ktstr-module-"))
  try {
    const text = information.map((line) => `${line}\\0`).join("")
    const source = put(
      join(directory, "module.c"),
      `__attribute__((section(".modinfo"))) char modinfo[] = "${text}";\n`
    )
    run("clang", ["-c", source, "-o", join(directory, "module.o")])
    return readFileSync(join(directory, "module.o"))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** A directory of modules as a distribution installs them; `packed` names the compressor and what it adds to names. */
const tree = (root: string) => {
  const add = (path: string, ...information: ReadonlyArray<string>) =>
    put(join(root, "kernel", path), moduleFile("license=GPL", ...information))
  const packed = (path: string, program: string, ...information: ReadonlyArray<string>) => {
    run(program, ["-q", ...(program === "zstd" ? ["--rm"] : []), add(path, ...information)])
  }
  packed("net/top.ko", "xz", "depends=left,right-side")
  add("net/left.ko", "depends=base")
  packed(
    "net/deep/right-side.ko",
    "zstd",
    "depends=base,fixed",
    `softdep=pre: first-hash${" ".repeat(2 ** 17)}absent post: last`
  )
  packed("lib/base.ko", "gzip", "depends=")
  add("crypto/first-hash.ko", "depends=")
  add("crypto/last.ko", "depends=")
  add("bad/lonely.ko", "depends=gone")
  add("bad/ouro.ko", "depends=boros")
  add("bad/boros.ko", "depends=ouro")
  put(join(root, "modules.builtin"), "kernel/lib/fixed.ko\nkernel/drivers/virtio/virtio-pci.ko\n")
  return { modules: root, release: "6.99.1" }
}

layer(Host)("the modules of a kernel", (it) => {
  const named = (kernel: { modules?: string; release: string }, names: ReadonlyArray<string>, optional = false) =>
    Effect.map(
      kernelModules(kernel, names, { optional }),
      ({ builtIn, modules }) => [modules.map(({ name }) => name), builtIn]
    )

  it.scoped("come behind what they depend on, decompressed, once each, and without those that are built in", () =>
    Effect.gen(function*() {
      const kernel = tree(yield* temporary)
      assert.deepStrictEqual(yield* named(kernel, ["top"]), [["base", "left", "first_hash", "right_side", "top"], []])
      assert.deepStrictEqual(yield* named(kernel, ["last", "right_side", "virtio_pci", "left"]), [
        ["last", "first_hash", "base", "right_side", "left"],
        ["virtio_pci"]
      ])
      const { modules } = yield* kernelModules(kernel, ["top"], { optional: false })
      for (const { bytes } of modules) {
        assert.strictEqual(Buffer.from(bytes.subarray(0, 4)).toString("latin1"), "\x7fELF")
      }
      assert.include(Buffer.from(modules[4].bytes).toString("latin1"), "depends=left,right-side")
      assert.deepStrictEqual(yield* named(kernel, ["ouro"]), [["boros", "ouro"], []], "a circle ends")
    }))

  it.scoped("that are not there are said to be so, and only missed where they are needed", () =>
    Effect.gen(function*() {
      const kernel = tree(yield* temporary)
      const why = (names: ReadonlyArray<string>, of: { modules?: string; release: string } = kernel) =>
        Effect.map(Effect.flip(named(of, names)), (error) => error.message)
      assert.match(yield* why(["nosuch"]), /^module nosuch of kernel 6\.99\.1: the kernel has no module of that name; /)
      assert.match(yield* why(["lonely"]), /^module gone of kernel 6\.99\.1: lonely needs it, and it is not there; /)
      assert.match(yield* why(["base"], { release: "6.99.1" }), /its modules are not known; get a Debian kernel/)
      assert.deepStrictEqual(yield* named(kernel, ["nosuch", "base"], true), [["base"], []])
      assert.deepStrictEqual(yield* named({ release: "6.99.1" }, ["base"], true), [[], []])
      writeFileSync(join(kernel.modules, "kernel/net/left.ko"), "\x7fELF, but not really")
      assert.match(yield* why(["left"]), /left\.ko: ELF at byte /)
    }))

  it.scoped("do not decompress into more than there is room for", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      for (const [program, ending] of [["xz", "xz"], ["zstd", "zst"], ["gzip", "gz"]]) {
        const plain = put(join(root, program), Buffer.alloc(70_000, "ktstr"))
        run(program, ["-q", "-k", plain])
        const packed = readFileSync(`${plain}.${ending}`)
        assert.deepStrictEqual(
          Buffer.from(yield* decompressWithin(packed, 70_000, program)),
          readFileSync(plain),
          program
        )
        const error = yield* Effect.flip(decompressWithin(packed, 69_999, program))
        assert.strictEqual(error._tag, "FormatError", program)
        const cut = yield* Effect.either(decompressWithin(packed.subarray(0, packed.length - 9), 70_000, program))
        assert.strictEqual(cut._tag, "Left", program)
      }
    }))
})
