import * as NodeContext from "@effect/platform-node/NodeContext"
import * as FileSystem from "@effect/platform/FileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import { execFileSync } from "node:child_process"
import { Btf } from "../../src/btf/Btf.ts"
import { BtfLoader } from "../../src/btf/BtfLoader.ts"
import { Kind } from "../../src/btf/BtfType.ts"
import { layout } from "../../src/btf/Layout.ts"
import { relocateBase } from "../../src/btf/RelocateBase.ts"
import { BlobWriter } from "./BlobWriter.ts"

const parse = (bytes: Uint8Array, subject: string, base?: Btf): Btf =>
  Either.getOrThrow(Btf.parse(bytes, base === undefined ? { subject } : { subject, base }))

/** A kernel's BTF in another order than the module's distilled base, with other types between. */
const kernel = (() => {
  const writer = new BlobWriter()
  writer.int("char", 1)
  const int = writer.int("int", 4, { signed: true })
  writer.int("unsigned int", 4)
  const list = writer.struct("list", 16, [])
  writer.struct("task", 24, [{ name: "a", type: int, bits: 0 }, { name: "l", type: list, bits: 64 }])
  writer.struct("twice", 8, [])
  writer.struct("twice", 12, [])
  writer.type(Kind.ENUM64, { name: "huge", third: 8 })
  writer.struct("device", 40, [])
  writer.struct("embedded", 8, [])
  return writer.bytes()
})()

/** What pahole leaves of the kernel's types: no members, no values. */
const distilledWriter = (): BlobWriter => {
  const writer = new BlobWriter()
  writer.int("int", 4, { signed: true }) // 1
  writer.struct("task", 24, []) // 2
  writer.struct("twice", 12, []) // 3
  writer.enum32("huge", [], false, 8) // 4
  writer.ref(Kind.FWD, 0, "device") // 5
  writer.struct("embedded", 8, []) // 6
  return writer
}

const moduleOn = (writer: BlobWriter): Uint8Array => {
  const split = new BlobWriter({ endId: 7, strings: writer.stringLength })
  const pointer = split.ref(Kind.PTR, 2)
  const own = split.struct("own", 4, [{ name: "x", type: 1, bits: 0 }])
  const array = split.array(6, 2)
  split.struct("mod_ctx", 64, [
    { name: "t", type: pointer, bits: 0 },
    { name: "n", type: 1, bits: 64 },
    { name: "own", type: own, bits: 96 },
    { name: "twice", type: 3, bits: 128 },
    { name: "pair", type: array, bits: 256 },
    { name: "h", type: 4, bits: 384 }
  ])
  split.type(Kind.FUNC_PROTO, { third: 1, vlen: 1, body: [split.string("dev"), 5] })
  return split.bytes()
}

describe("a module's distilled base", () => {
  const writer = distilledWriter()
  const distilled = parse(writer.bytes(), "mod.ko .BTF.base")
  const module = moduleOn(writer)
  const base = parse(kernel, "kernel")
  const names = (btf: Btf, id: number): string => `${btf.type(id)?.kind} ${btf.nameOf(id)}`

  it("is replaced by the kernel's types of the same names", () => {
    const before = module.slice()
    const bytes = Either.getOrThrow(relocateBase(module, distilled, base, "mod.ko"))
    assert.deepStrictEqual(module, before, "the module's bytes stay as they are")
    const btf = parse(bytes, "mod.ko", base)
    const type = btf.type(btf.idsByName("mod_ctx")[0])
    assert(type?.kind === "STRUCT")
    const ids = new Map(type.members.map(({ name, type }) => [name, type]))
    const pointer = btf.type(ids.get("t") ?? 0)
    assert(pointer?.kind === "PTR")
    assert.strictEqual(btf.sizeOf(pointer.type), 24)
    assert.strictEqual(Either.getOrThrow(layout(btf, "task", ["l"])).at.l, 8)
    assert.strictEqual(names(btf, ids.get("n") ?? 0), "INT int")
    assert.strictEqual(names(btf, ids.get("own") ?? 0), "STRUCT own")
    assert.strictEqual(btf.sizeOf(ids.get("twice") ?? 0), 12)
    assert.strictEqual(btf.sizeOf(ids.get("pair") ?? 0), 16)
    assert.strictEqual(names(btf, ids.get("h") ?? 0), "ENUM64 huge")
    const proto = btf.type(btf.endId - 1)
    assert(proto?.kind === "FUNC_PROTO")
    assert.deepStrictEqual(proto.parameters.map(({ name, type }) => [name, names(btf, type)]), [[
      "dev",
      "STRUCT device"
    ]])
  })

  const failure = (change: (writer: BlobWriter) => void, on = kernel): string => {
    const writer = distilledWriter()
    change(writer)
    const own = parse(writer.bytes(), "mod.ko .BTF.base")
    const split = new BlobWriter({ endId: own.endId, strings: writer.stringLength })
    split.struct("holder", 64, [{ name: "last", type: own.endId - 1, bits: 0 }])
    return Either.match(relocateBase(split.bytes(), own, parse(on, "kernel"), "mod.ko"), {
      onLeft: (error) => error.message,
      onRight: () => "relocated"
    })
  }

  it("is refused where the kernel lacks a type, or has two of the same size", () => {
    assert.strictEqual(failure(() => {}), "relocated")
    assert.match(
      failure((writer) => writer.struct("gone", 8, [])),
      /^mod.ko .BTF.base: BTF at byte \d+: expected STRUCT gone of 8 bytes in kernel: was the module built for another kernel\?$/
    )
    // Held by value, a struct must have its size.
    assert.match(failure((writer) => writer.struct("task", 32, [])), /expected STRUCT task of 32 bytes in kernel/)
    assert.match(failure((writer) => writer.int("int", 4)), /expected INT int of 4 bytes in kernel/)
    const same = new BlobWriter()
    same.int("int", 4, { signed: true })
    for (const size of [8, 8]) same.struct("task", size, [])
    assert.match(failure(() => {}, same.bytes()), /expected one STRUCT task of 24 bytes|expected STRUCT task of 24/)
    assert.match(
      failure((writer) => writer.ref(Kind.PTR, 1)),
      /expected a named INT, FLOAT, ENUM, STRUCT, UNION or FWD in a distilled base, not PTR/
    )
  })
})

describe("the loader", () => {
  const Live = Layer.provideMerge(BtfLoader.layer, NodeContext.layer)

  it.scoped("reads a module with a distilled base, with its kernel and without", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const loader = yield* BtfLoader
      const dir = yield* files.makeTempDirectoryScoped()
      const writer = distilledWriter()
      yield* files.writeFile(`${dir}/base`, writer.bytes())
      yield* files.writeFile(`${dir}/split`, moduleOn(writer))
      yield* files.writeFile(`${dir}/kernel.btf`, kernel)
      yield* files.writeFileString(`${dir}/e.c`, "int x;")
      execFileSync("gcc", ["-c", "e.c", "-o", "e.o"], { cwd: dir })
      execFileSync("objcopy", ["--add-section", ".BTF=split", "--add-section", ".BTF.base=base", "e.o", "mod.ko"], {
        cwd: dir
      })
      const base = yield* loader.load(`${dir}/kernel.btf`)
      const onKernel = yield* loader.load(`${dir}/mod.ko`, base)
      assert.strictEqual((yield* layout(onKernel, "mod_ctx", ["n", "own.x", "pair"])).sizeOf.pair, 16)
      assert.strictEqual(onKernel.base, base)
      const alone = yield* loader.load(`${dir}/mod.ko`)
      assert.strictEqual((yield* layout(alone, "mod_ctx", ["n", "own.x", "pair"])).at["own.x"], 12)
      assert.strictEqual(alone.base?.subject, `${dir}/mod.ko .BTF.base`)
    }).pipe(Effect.provide(Live)))
})
