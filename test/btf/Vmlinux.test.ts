import * as NodeContext from "@effect/platform-node/NodeContext"
import * as FileSystem from "@effect/platform/FileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { Btf } from "../../src/btf/Btf.ts"
import type { BtfType } from "../../src/btf/BtfType.ts"
import { layout } from "../../src/btf/Layout.ts"
import { compile } from "../../src/btf/render/Codec.ts"
import { parseElf } from "../../src/core/image/Elf.ts"
import { vmlinuxOf } from "../../src/core/image/KernelImage.ts"
import { kernelImage } from "../support/kernels.ts"

const HOST = "/sys/kernel/btf/vmlinux"

const fromImage = (series: "6.1" | "6.12") =>
  Effect.gen(function*() {
    const path = yield* kernelImage(series)
    const elf = parseElf(yield* vmlinuxOf(readFileSync(path), path), path)
    const section = elf.section(".BTF")
    assert(section !== undefined)
    return new Uint8Array(elf.data(section))
  })

/** A blob in a file of its own, for programs that read files. */
const asFile = (bytes: Uint8Array) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const path = yield* files.makeTempFileScoped()
    yield* files.writeFile(path, bytes)
    return path
  })

const run = (command: string, ...args: ReadonlyArray<string>): string =>
  // pahole 1.24 complains on stderr of each DECL_TAG, which it does not know.
  execFileSync(command, args, { encoding: "utf8", maxBuffer: 2 ** 28, stdio: ["ignore", "pipe", "ignore"] })

// One kernel after the other: each is 5 MB of BTF, 18 MB as JSON.
describe.each([
  ["the running kernel", HOST, Effect.sync(() => new Uint8Array(readFileSync(HOST)))],
  ["Debian's 6.1", "", fromImage("6.1")],
  ["Debian's 6.12", "", fromImage("6.12")]
])("the BTF of %s", (_, path, load) => {
  const absent = path !== "" && !existsSync(path)
  if (absent) it.skip(`${path} does not exist here`, () => {})

  it.scoped.skipIf(absent)("has every type that bpftool sees, and each is the same", () =>
    Effect.gen(function*() {
      const bytes = yield* load
      const btf = yield* Btf.parse(bytes, { subject: "vmlinux" })
      const text = run("bpftool", "btf", "dump", "file", yield* asFile(bytes), "-j")
      // JSON.parse would round what is beyond 2^53.
      const dump: { types: ReadonlyArray<Dumped> } = JSON.parse(text.replaceAll(/"val":(-?\d{16,})/g, "\"val\":\"$1\""))
      assert.strictEqual(btf.endId - 1, dump.types.length)
      let structs = 0
      for (const expected of dump.types) {
        const type = btf.type(expected.id)
        assert(type !== undefined)
        if (type.kind === "STRUCT") structs++
        const ours = JSON.stringify(asBpftool(type))
        const theirs = JSON.stringify(normalized(expected))
        if (ours !== theirs) assert.strictEqual(ours, theirs)
      }
      assert.isAbove(structs, 5000)
    }).pipe(Effect.provide(NodeContext.layer)), 120_000)

  it.scoped.skipIf(absent)("has the sizes and member offsets that pahole prints", () =>
    Effect.gen(function*() {
      const bytes = yield* load
      const btf = yield* Btf.parse(bytes, { subject: "vmlinux" })
      const file = yield* asFile(bytes)
      const named = run("pahole", "-F", "btf", "--sizes", file).trim().split("\n").map((line) => line.split("\t"))
      const ids = new Map<string, Array<number>>()
      for (let id = 1; id < btf.endId; id++) {
        if (isStruct(btf, id)) ids.set(btf.nameOf(id), [...(ids.get(btf.nameOf(id)) ?? []), id])
      }
      const unique = named.filter(([name]) => ids.get(name)?.length === 1)
      assert.isAbove(unique.length, 3000)
      for (const [name, size] of unique) assert.strictEqual(btf.sizeOf(ids.get(name)?.[0] ?? 0), Number(size), name)
      // Some that matter, and a sample of the others.
      const must = ["task_struct", "bpf_map", "rq", "mm_struct", "xa_node", "sk_buff", "tcp_sock", "page", "inode"]
      const step = Math.floor(unique.length / 400)
      const sample = [...must, ...unique.filter((_, index) => index % step === 0).map(([name]) => name)]
      for (const name of sample) {
        assert.deepStrictEqual(btf.idsByName(name).filter((id) => isStruct(btf, id)), ids.get(name))
      }
      const printed = parsePahole(run("pahole", "-F", "btf", "-C", sample.join(","), file))
      let members = 0
      let bitFields = 0
      for (const [struct, places] of printed) {
        const names = Array.from(places.keys())
        const found = yield* layout(btf, struct, names)
        for (const [name, place] of places) {
          const label = `${struct}.${name}`
          const bits = found.bits[name]
          assert.strictEqual(bits === undefined ? found.at[name] * 8 : bits.offset, place.bit, label)
          assert.strictEqual(bits?.size, place.width, label)
          if (bits === undefined) {
            assert.strictEqual(found.sizeOf[name], place.size, label)
          } else bitFields++
          members++
        }
      }
      assert.isAbove(printed.size, 200)
      assert.isAbove(members, 2000)
      assert.isAbove(bitFields, 20)
    }).pipe(Effect.provide(NodeContext.layer)), 120_000)

  it.effect.skipIf(absent)(
    "can be compiled whole: no type is too deep, too big or out of bounds",
    () =>
      Effect.gen(function*() {
        const btf = yield* Btf.parse(yield* load, { subject: "vmlinux" })
        const zeros = new DataView(new ArrayBuffer(1 << 16))
        const reasons = new Set<string>()
        for (let id = 1; id < btf.endId; id++) {
          if (!isStruct(btf, id) || (btf.sizeOf(id) ?? 0) > zeros.byteLength) continue
          const tree = compile(btf, id).tree(zeros, 0, { elements: 2 })
          if (tree._tag === "unsupported") reasons.add(tree.reason)
          if (tree._tag !== "struct" && tree._tag !== "union") continue
          for (const { value } of tree.members) if (value._tag === "unsupported") reasons.add(value.reason)
        }
        assert.deepStrictEqual(Array.from(reasons).filter((reason) => !reason.includes("only declared")), [])
      }),
    120_000
  )
})

const isStruct = (btf: Btf, id: number): boolean => ["STRUCT", "UNION"].includes(btf.type(id)?.kind ?? "")

interface Dumped {
  readonly id: number
  readonly kind: string
  readonly values?: ReadonlyArray<{ readonly name: string; readonly val: number | string }>
}

/** bpftool 7.1 prints the unsigned values of a 32-bit enum from 2^31 on as 64-bit sign extensions. */
const normalized = (type: Dumped): Dumped => {
  if (type.values === undefined) return type
  const values = type.values.map(({ name, val }) => {
    const exact = type.kind === "ENUM" && typeof val === "string" ? BigInt.asUintN(32, BigInt(val)) : BigInt(val)
    return { name, val: Number.isSafeInteger(Number(exact)) ? Number(exact) : String(exact) }
  })
  return { ...type, values }
}

const LINKAGE = ["static", "global", "extern"]

/** A type in the words and the order of `bpftool btf dump -j`. */
const asBpftool = (type: BtfType): object => {
  const named = (name: string): string => name === "" ? "(anon)" : name
  const head = { id: type.id, kind: type.kind, name: named("name" in type ? type.name : "") }
  switch (type.kind) {
    case "INT": {
      const encoding = type.signed ? "SIGNED" : type.char ? "CHAR" : type.bool ? "BOOL" : "(none)"
      return { ...head, size: type.size, bits_offset: type.bitOffset, nr_bits: type.bits, encoding }
    }
    case "ARRAY":
      return { ...head, type_id: type.type, index_type_id: type.indexType, nr_elems: type.count }
    case "STRUCT":
    case "UNION": {
      const members = type.members.map((member) => ({
        name: named(member.name),
        type_id: member.type,
        bits_offset: member.bitOffset,
        ...(member.bitSize > 0 && { bitfield_size: member.bitSize })
      }))
      return { ...head, size: type.size, vlen: members.length, members }
    }
    case "ENUM":
    case "ENUM64": {
      const values = type.values.map(({ name, value }) => ({
        name: named(name),
        val: typeof value === "bigint" ? String(value) : value
      }))
      return { ...head, encoding: type.signed ? "SIGNED" : "UNSIGNED", size: type.size, vlen: values.length, values }
    }
    case "FWD":
      return { ...head, fwd_kind: type.of }
    case "FUNC":
    case "VAR":
      return { ...head, type_id: type.type, linkage: LINKAGE[type.linkage] }
    case "FUNC_PROTO": {
      const params = type.parameters.map(({ name, type }) => ({ name: named(name), type_id: type }))
      return { ...head, ret_type_id: type.returns, vlen: params.length, params }
    }
    case "DATASEC": {
      const vars = type.variables.map(({ offset, size, type }) => ({ type_id: type, offset, size }))
      return { ...head, size: type.size, vlen: vars.length, vars }
    }
    case "FLOAT":
      return { ...head, size: type.size }
    case "DECL_TAG":
      return { ...head, type_id: type.type, component_idx: type.component }
    case "VOID":
    case "UNKNOWN":
      return head
    default:
      return { ...head, type_id: type.type }
  }
}

interface Place {
  readonly bit: number
  readonly size: number
  readonly width: number | undefined
}

/** The members in `pahole -C` output by the path that `layout` takes: through anonymous and unnamed structs. */
const parsePahole = (text: string): ReadonlyMap<string, ReadonlyMap<string, Place>> => {
  const structs = new Map<string, Map<string, Place>>()
  let open: Array<Map<string, Place>> = []
  let current = ""
  for (const line of text.split("\n")) {
    const begin = /^(?:struct|union) (\w+) \{/.exec(line)
    if (begin !== null) {
      current = begin[1]
      open = [new Map()]
    } else if (line.startsWith("}")) {
      structs.set(current, open[0])
    } else if (/^\t+(?:const |volatile )*(?:struct|union|enum)(?: \w+)? \{/.test(line)) {
      open.push(new Map())
    } else {
      const found = /^\t+(.*);\s+\/\*\s+(\d+)(?::\s*(\d+))?\s+(\d+) \*\/$/.exec(line)
      const close = /^\t+\}/.test(line)
      if (found === null) {
        if (close) throw new Error(`not understood: ${line}`)
        continue
      }
      const declaration = found[1].replaceAll(/\s*__attribute__\(\(.*?\)\)\)?/g, "").trim()
      const width = /:(\d+)$/.exec(declaration)?.[1]
      const name = /\(\*+(?:const )?(\w+)/.exec(declaration)?.[1] ??
        /(\w+)(?:\[\d*\])*(?::\d+)?$/.exec(declaration)?.[1]
      const inner = close ? open.pop() : undefined
      const into = open[open.length - 1]
      for (const [path, place] of inner ?? []) into.set(name === undefined ? path : `${name}.${path}`, place)
      if (name === undefined) continue
      // Elements of an unnamed struct have no path of their own.
      if (/\[\d*\]/.test(declaration) && close) {
        for (const path of inner?.keys() ?? []) into.delete(`${name}.${path}`)
      }
      into.set(name, {
        bit: Number(found[2]) * 8 + Number(found[3] ?? 0),
        size: Number(found[4]),
        width: width === undefined ? undefined : Number(width)
      })
    }
  }
  return structs
}
