import * as NodeContext from "@effect/platform-node/NodeContext"
import * as FileSystem from "@effect/platform/FileSystem"
import { assert, layer } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Runtime from "effect/Runtime"
import { execFileSync } from "node:child_process"
import { existsSync, writeFileSync } from "node:fs"
import { openBtfFile } from "../../src/btf/BtfFile.ts"
import { BtfLoader } from "../../src/btf/BtfLoader.ts"
import { layout } from "../../src/btf/Layout.ts"
import { parsing } from "../../src/core/FormatError.ts"
import { parseElf } from "../../src/core/image/Elf.ts"
import { kernelImage } from "../support/kernels.ts"
import { BlobWriter } from "./BlobWriter.ts"

const HOST = "/sys/kernel/btf/vmlinux"
const noHost = !existsSync(HOST)
const Live = Layer.provideMerge(BtfLoader.layer, NodeContext.layer)

const file = (bytes: Uint8Array) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const path = yield* files.makeTempFileScoped()
    yield* files.writeFile(path, bytes)
    return path
  })
const load = (path: string) => Effect.flatMap(BtfLoader, (loader) => loader.load(path))
const text = (path: string) => Effect.map(Effect.flip(load(path)), (error) => error.message.replaceAll(path, "FILE"))

layer(Live)("BtfLoader", (it) => {
  it.scoped("reads a raw blob", () =>
    Effect.gen(function*() {
      const writer = new BlobWriter()
      const id = writer.int("int", 4)
      const path = yield* file(writer.bytes())
      const btf = yield* load(path)
      assert.deepStrictEqual(btf.idsByName("int"), [id])
      assert.strictEqual(btf.subject, path)
    }))

  if (noHost) it.skip(`${HOST} does not exist here`, () => {})
  it.effect.skipIf(noHost)("reads the running kernel's", () =>
    Effect.gen(function*() {
      const btf = yield* load(HOST)
      assert.isAbove((yield* layout(btf, "task_struct", ["pid", "comm"])).size, 1000)
    }))

  it.effect("reads the vmlinux inside a bzImage", () =>
    Effect.gen(function*() {
      const image = yield* kernelImage("6.12")
      // Outside of any cache, so that none is written to.
      const btf = yield* Effect.withConfigProvider(load(image), ConfigProvider.fromMap(new Map()))
      assert.isAbove((yield* layout(btf, "bpf_map", ["map_type"])).size, 100)
    }), 120_000)

  it.scoped("reads the longest whole blob of an arm64 Image", () =>
    Effect.gen(function*() {
      const head = Buffer.alloc(64 + 5)
      head.write("ARM\x64", 56, "latin1")
      const [kernels, programs] = [new BlobWriter(), new BlobWriter()]
      programs.int("program", 4)
      for (const name of ["kernel", "long", "int"]) kernels.int(name, 4)
      const cut = kernels.bytes().slice(0, -1) // looks longer than it is: the file ends before it does
      const magic = Uint8Array.of(0x9f, 0xeb, 1, 0)
      const pieces = [head, magic, programs.bytes(), magic, kernels.bytes(), Buffer.alloc(3), programs.bytes()]
      const btf = yield* load(yield* file(Buffer.concat([...pieces, cut])))
      assert.deepStrictEqual([btf.idsByName("kernel"), btf.idsByName("program")], [[1], []])
      const none = "FILE: no .BTF section; build the kernel with CONFIG_DEBUG_INFO_BTF=y, or a BPF object with clang -g"
      assert.strictEqual(yield* text(yield* file(Buffer.concat([head, cut]))), none)
      assert.strictEqual(yield* text(yield* file(Buffer.concat([head, magic]))), none)
    }))

  it.scoped("reads the section of an ELF file, and continues a base", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const dir = yield* files.makeTempDirectoryScoped()
      yield* files.writeFileString(`${dir}/a.c`, "struct thing { int a; } thing;")
      execFileSync("clang", ["-g", "-target", "bpf", "-c", "a.c", "-o", "a.o"], { cwd: dir })
      const btf = yield* load(`${dir}/a.o`)
      assert.strictEqual((yield* layout(btf, "thing", ["a"])).size, 4)

      const below = new BlobWriter()
      const int = below.int("int", 4)
      const loader = yield* BtfLoader
      const base = yield* loader.load(yield* file(below.bytes()))
      const writer = new BlobWriter({ endId: base.endId, strings: below.stringLength })
      writer.struct("module_thing", 4, [{ name: "m", type: int, bits: 0 }])
      const split = yield* loader.load(yield* file(writer.bytes()), base)
      assert.strictEqual((yield* layout(split, "module_thing", ["m"])).sizeOf.m, 4)
    }))

  it.scoped("says what is wrong with other files", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const dir = yield* files.makeTempDirectoryScoped()
      assert.strictEqual(yield* text(`${dir}/none`), "FILE: no such file")
      assert.strictEqual(yield* text(dir), "FILE: a regular file is needed, this is a Directory")
      assert.strictEqual(yield* text("/dev/zero"), "FILE: a regular file is needed, this is a CharacterDevice")
      const unknown =
        "FILE: neither raw BTF nor an ELF file nor a bzImage nor an arm64 Image; give a vmlinux, a kernel image " +
        "or /sys/kernel/btf/vmlinux"
      assert.strictEqual(yield* text(yield* file(new Uint8Array(0))), unknown)
      assert.strictEqual(yield* text(yield* file(Uint8Array.of(0x9f))), unknown)
      assert.strictEqual(yield* text(yield* file(Buffer.from("#!/bin/sh\n".repeat(100)))), unknown)
      assert.match(
        yield* text("/bin/busybox"),
        /^FILE: no \.BTF section; build the kernel with CONFIG_DEBUG_INFO_BTF=y/
      )
      assert.match(yield* text(yield* file(Uint8Array.of(0x9f, 0xeb, 1, 0))), /^FILE: BTF at byte 4: expected a header/)
      assert.match(
        yield* text(yield* file(Buffer.concat([Uint8Array.of(0xeb, 0x9f), Buffer.alloc(30)]))),
        /BTF at byte 0: expected little-endian BTF/
      )
      assert.match(
        yield* text(yield* file(Buffer.concat([Buffer.from("\x7fELF"), Buffer.alloc(10)]))),
        /^FILE: ELF at byte/
      )
    }))

  it.scoped("finds in an ELF file, cut or wrong as it may be, what reading it whole finds", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const path = yield* files.makeTempFileScoped()
      const dir = yield* files.makeTempDirectoryScoped()
      yield* files.writeFileString(`${dir}/a.c`, "struct thing { int a; } thing;")
      execFileSync("clang", ["-g", "-target", "bpf", "-c", "a.c", "-o", "a.o"], { cwd: dir })
      const good = yield* files.readFile(`${dir}/a.o`)
      const headers = Number(new DataView(good.buffer, good.byteOffset).getBigUint64(40, true))
      const at = FastCheck.oneof(FastCheck.nat(63), FastCheck.integer({ min: headers, max: good.length - 1 }))
      const byte = FastCheck.oneof(FastCheck.constantFrom(0, 1, 0x7f, 0xff), FastCheck.nat(255))
      const whole = (bytes: Uint8Array) =>
        Effect.runSyncExit(parsing(() => {
          const elf = parseElf(bytes, path)
          const found = elf.section(".BTF")
          return found === undefined ? undefined : new Uint8Array(elf.data(found))
        }))
      const inParts = Effect.flatMap(openBtfFile(path), (file) => {
        assert(file.kind === "image")
        return Effect.zipRight(file.stamp, file.section)
      }).pipe(Effect.scoped, Effect.exit)
      const runtime = yield* Effect.runtime<FileSystem.FileSystem>()
      yield* Effect.promise(() =>
        FastCheck.assert(
          FastCheck.asyncProperty(
            FastCheck.array(FastCheck.tuple(at, byte), { maxLength: 4 }),
            FastCheck.oneof(FastCheck.constant(good.length), FastCheck.nat(good.length)),
            async (changes, length) => {
              const bytes = Uint8Array.from(good)
              for (const [at, byte] of changes) bytes[at] = byte
              bytes.set([0x7f, 0x45, 0x4c, 0x46])
              const cut = bytes.slice(0, Math.max(4, length))
              writeFileSync(path, cut)
              assert.deepStrictEqual(await Runtime.runPromise(runtime)(inParts), whole(cut))
            }
          ),
          { numRuns: 500 }
        )
      )
    }))
})
