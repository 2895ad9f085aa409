import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Btf } from "../../../src/btf/Btf.ts"
import { openBtfFile } from "../../../src/btf/BtfFile.ts"
import { diffAll, type TypeChange } from "../../../src/btf/c/BtfDiff.ts"
import { findTypes } from "../../../src/btf/FindTypes.ts"
import { kernelImage } from "../../support/kernels.ts"
import { BlobWriter } from "../BlobWriter.ts"
import { compileC } from "../compileC.ts"

const parsed = (source: string): Btf => Either.getOrThrow(Btf.parse(compileC(source).btf, { subject: "a.o" }))

describe("the difference of two blobs", () => {
  it("is that of names, values and sizes of enums, and of what typedefs stand for", () => {
    const before = parsed(`
      enum same { S }; enum e { A, B = 7, GONE }; enum wide { W = 1 }; enum old { O };
      typedef int number; typedef struct { int a; } unnamed_t; typedef enum { X, Y } choice_t; typedef int (*call_t)(int);
      struct user {
        enum same s; enum e e; enum wide w; enum old o; number n; unnamed_t u; choice_t c; call_t call;
      } user;
    `)
    const after = parsed(`
      enum same { S }; enum e { A, B = 9, FRESH }; enum wide { W = 1 } __attribute__((packed));
      typedef long number; typedef struct { int a, b; } unnamed_t; typedef enum { X, Y = 5 } choice_t;
      typedef long (*call_t)(int);
      struct user { enum same s; enum e e; enum wide w; number n; unnamed_t u; choice_t c; call_t call; } user;
    `)
    const told = (one: Btf, other: Btf) =>
      diffAll(one, other).filter(({ type }) => type !== "struct user").map((
        { aliased, members, sizeAfter, sizeBefore, type, values }
      ) => [
        type,
        sizeBefore,
        sizeAfter,
        aliased === null ? null : `${aliased.before} > ${aliased.after}`,
        members.map(({ member }) => member),
        values.map(({ after, before, name }) => `${name} ${before} > ${after}`)
      ])
    assert.deepStrictEqual(told(before, after), [
      ["enum e", 4, 4, null, [], ["B 7 > 9", "GONE 8 > null", "FRESH null > 10"]],
      ["enum old", 4, null, null, [], []],
      ["enum wide", 4, 1, null, [], []],
      ["typedef call_t", 8, 8, "int (*)(int) > long (*)(int)", [], []],
      ["typedef choice_t", 4, 4, null, [], ["Y 1 > 5"]],
      ["typedef number", 4, 8, "int > long", [], []],
      ["typedef unnamed_t", 4, 8, null, ["b"], []]
    ])
    assert.deepStrictEqual(diffAll(after, after), [])
  })

  it("is what moved, came and went, member by member", () => {
    const before = parsed(`
      struct inner { int a; };
      struct same { long a; };
      struct gone { int a; };
      struct changed {
        char first; int second; struct inner inner; unsigned bits:3, more:2; union { int u; struct { short v; }; };
        struct { int deep; } named; struct { int e; } list[2]; void *last;
      };
      struct same same; struct gone gone; struct changed changed;
    `)
    const after = parsed(`
      struct inner { int a; int b; };
      struct same { long a; };
      struct fresh { int a; };
      struct changed {
        int second; char first; struct inner inner; unsigned bits:4, more:2; union { int u; struct { int v; }; };
        struct { int before; int deep; } named; struct { int e; int f; } list[2]; char *last;
      };
      struct same same; struct fresh fresh; struct changed changed;
    `)
    const changes = diffAll(before, after)
    assert.deepStrictEqual(changes.map(({ sizeAfter, sizeBefore, type }) => [type, sizeBefore, sizeAfter]), [
      ["struct changed", 40, 56],
      ["struct fresh", null, 4],
      ["struct gone", 4, null],
      ["struct inner", 4, 8]
    ])
    const place = (bit: number, size: number, type: string, bits: number | null = null) => ({ bit, size, bits, type })
    const all = changes[0].members.map(({ after, before, member, moved, resized, retyped }) => [
      member,
      before,
      after,
      [moved && "moved", resized && "resized", retyped && "retyped"].filter(Boolean).join(" ")
    ])
    assert.deepStrictEqual(all, [
      ["first", place(0, 1, "char"), place(32, 1, "char"), "moved"],
      ["second", place(32, 4, "int"), place(0, 4, "int"), "moved"],
      ["inner", place(64, 4, "struct inner"), place(64, 8, "struct inner"), "resized"],
      ["bits", place(96, 4, "unsigned int", 3), place(128, 4, "unsigned int", 4), "moved resized"],
      ["more", place(99, 4, "unsigned int", 2), place(132, 4, "unsigned int", 2), "moved"],
      ["u", place(128, 4, "int"), place(160, 4, "int"), "moved"],
      ["v", place(128, 2, "short"), place(160, 4, "int"), "moved resized retyped"],
      ["named.deep", place(160, 4, "int"), place(224, 4, "int"), "moved"],
      [
        "list",
        place(192, 8, "struct { int e; }[2]"),
        place(256, 16, "struct { int e; int f; }[2]"),
        "moved resized retyped"
      ],
      ["last", place(256, 8, "void *"), place(384, 8, "char *"), "moved retyped"],
      ["named.before", null, place(192, 4, "int"), ""]
    ])
    assert.deepStrictEqual(diffAll(before, before), [])
  })
})

const section = (series: "6.1" | "6.12") =>
  Effect.gen(function*() {
    const file = yield* openBtfFile(yield* kernelImage(series))
    assert(file.kind === "image")
    const bytes = yield* file.section
    assert(bytes !== undefined)
    return { bytes, btf: yield* Btf.parse(bytes, { subject: series }) }
  }).pipe(Effect.scoped, Effect.provide(NodeContext.layer))

/** What pahole says of the members of a struct that have a line of their own, first level. */
const paholeMembers = (directory: string, bytes: Uint8Array, struct: string): ReadonlyMap<string, string> => {
  const file = join(directory, "blob.btf")
  writeFileSync(file, bytes)
  const text = execFileSync("pahole", ["-F", "btf", "-C", struct, file], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"]
  })
  return new Map(
    [...text.matchAll(/^\t[a-z][^\t(){}]*?(\w+)(?:\[\d*\])*(?: __attribute__.*)?; +\/\* +(\d+) +(\d+) \*\/$/gm)].map((
      [, name, offset, size]
    ) => [name, `${offset} ${size}`])
  )
}

/** The enums whose name no other has, as bpftool lists them: names with their values. */
const enumsOfBpftool = (directory: string, bytes: Uint8Array): ReadonlyMap<string, ReadonlyArray<string>> => {
  const file = join(directory, "blob.btf")
  writeFileSync(file, bytes)
  const text = execFileSync("bpftool", ["btf", "dump", "file", file], { encoding: "utf8", maxBuffer: 2 ** 28 })
  const all = [...text.matchAll(/^\[\d+\] ENUM(?:64)? '(\w+)' .*(size=\d+) .*\n((?:\t.*\n)*)/gm)].map(
    ([, name, size, values]) => [name, [size, ...values.trim().split(/\n\t/)]] as const
  )
  const times = new Map<string, number>()
  for (const [name] of all) times.set(name, (times.get(name) ?? 0) + 1)
  return new Map(all.filter(([name]) => times.get(name) === 1))
}

/** What a change would be the other way round. */
const mirrored = ({ cut, aliased, members, sizeAfter, sizeBefore, type, values }: TypeChange) => ({
  type,
  sizeBefore: sizeAfter,
  sizeAfter: sizeBefore,
  members: members.map((change) => ({ ...change, before: change.after, after: change.before })),
  values: values.map(({ after, before, name }) => ({ name, before: after, after: before })),
  aliased: aliased === null ? null : { before: aliased.after, after: aliased.before },
  cut
})

describe("the difference of Debian's 6.1 and 6.12", () => {
  it.effect("is that of what pahole prints of both, and the same both ways", () =>
    Effect.gen(function*() {
      const [old, now] = [yield* section("6.1"), yield* section("6.12")]
      const changes = diffAll(old.btf, now.btf)
      assert.isAbove(changes.length, 1000)
      const sorted = (some: ReadonlyArray<TypeChange>) =>
        some.map((change) => ({
          ...change,
          members: change.members.toSorted((a, b) => a.member < b.member ? -1 : 1),
          values: change.values.toSorted((a, b) => a.name < b.name ? -1 : 1)
        })).toSorted((a, b) => `${a.type} ${a.sizeBefore}` < `${b.type} ${b.sizeBefore}` ? -1 : 1)
      assert.deepStrictEqual(sorted(diffAll(now.btf, old.btf).map(mirrored)), sorted(changes))

      const directory = mkdtempSync(join(tmpdir(), "ktstr-diff-"))
      const enums = [old, now].map(({ bytes }) => enumsOfBpftool(directory, bytes))
      const ofEnums = changes.filter(({ type }) => type.startsWith("enum "))
      for (const name of new Set(enums.flatMap((side) => [...side.keys()]))) {
        const [was, is] = enums.map((side) => side.get(name))
        const found = ofEnums.filter(({ type }) => type === `enum ${name}`)
        assert.strictEqual(found.length === 0, JSON.stringify(was) === JSON.stringify(is), name)
      }
      assert.isAbove(ofEnums.length, 100)
      let compared = 0
      for (const struct of ["task_struct", "rq", "mm_struct", "bpf_map", "sock", "inode", "file", "cgroup"]) {
        const [before, after] = [old, now].map(({ bytes }) => paholeMembers(directory, bytes, struct))
        const found = changes.filter(({ type }) => type === `struct ${struct}`)
        assert.strictEqual(found.length, 1, struct)
        const told = new Map(found[0].members.map((change) => [change.member, change]))
        for (const name of new Set([...before.keys(), ...after.keys()])) {
          const change = told.get(name)
          const places = [before.get(name), after.get(name)]
          // A member may have gone into a struct that has no name: pahole then prints it further in.
          if (places.includes(undefined) && change?.before !== null && change?.after !== null) continue
          assert.strictEqual(
            change !== undefined && !isRetypedOnly(change),
            places[0] !== places[1],
            `${struct}.${name}`
          )
          compared++
        }
      }
      assert.isAbove(compared, 500)
      rmSync(directory, { recursive: true })
    }), 120_000)
})

const isRetypedOnly = ({ moved, resized, retyped }: TypeChange["members"][number]): boolean =>
  retyped && !moved && !resized

describe("a type's name", () => {
  const btf = parsed(`
    struct thing { int a; };
    typedef struct thing thing;
    struct only_declared;
    union both { int a; };
    enum word { A_WORD };
    struct user { thing t; struct only_declared *o; union both b; enum word w; } user;
    int thing_function(void) { return 0; }
  `)
  const found = (query: string) =>
    Either.map(findTypes(btf, query), (ids) => ids.map((id) => btf.type(id)?.kind).toSorted())

  it("finds all that have it, or those of the sort that it says", () => {
    assert.deepStrictEqual(found("thing"), Either.right(["STRUCT", "TYPEDEF"]))
    assert.deepStrictEqual(found(" struct   thing "), Either.right(["STRUCT"]))
    assert.deepStrictEqual(found("typedef thing"), Either.right(["TYPEDEF"]))
    assert.deepStrictEqual(found("enum word"), Either.right(["ENUM"]))
    assert.deepStrictEqual(found("struct only_declared"), Either.right(["FWD"]))
    assert.deepStrictEqual(found("user"), Either.right(["STRUCT", "VAR"]))
  })

  it("that nothing has is answered with those near it", () => {
    const message = (query: string) =>
      Either.match(findTypes(btf, query), { onLeft: (e) => e.message, onRight: String })
    assert.strictEqual(message("thnig"), "a.o: no type \"thnig\"; there is typedef thing, struct thing")
    assert.strictEqual(
      message("enum thing"),
      "a.o: no type \"enum thing\"; there is typedef thing, struct thing, thing_function"
    )
    assert.strictEqual(
      message("union only_declared"),
      "a.o: no type \"union only_declared\"; there is struct only_declared"
    )
    assert.strictEqual(message("declared"), "a.o: no type \"declared\"; there is struct only_declared")
    assert.strictEqual(
      message("nothing_like_it"),
      "a.o: no type \"nothing_like_it\"; is it misspelt, or was this built without it?"
    )
    assert.match(message(""), /no type ""/)
    assert.match(message("x".repeat(10_000)), /no type "x+"/)
    assert.match(message("a\0b"), /no type/)
    assert.match(message("constructor thing"), /no type "constructor thing"/)
    assert.match(message("__proto__ thing"), /no type "__proto__ thing"/)
  })
})

describe("hostile blobs", () => {
  const of = (fill: (writer: BlobWriter, int: number) => void): Btf => {
    const writer = new BlobWriter()
    fill(writer, writer.int("int", 4))
    return Either.getOrThrow(Btf.parse(writer.bytes(), { subject: "hostile" }))
  }
  const empty = of((writer) => writer.struct("none", 0, []))

  it("a member's name that comes 20,000 times has as many places", () => {
    const names = Array.from({ length: 20_000 }, () => "same")
    const same = (bits: number) =>
      of((writer, int) => writer.struct("t", 4, names.map((name) => ({ name, type: int, bits }))))
    const [change] = diffAll(same(0), same(8))
    assert.strictEqual(change.members.length, 20_000)
    assert.strictEqual(change.members.at(-1)?.member, "same#20000")
  })

  it("a struct with more members than are compared is said to be one, even where the first are alike", () => {
    const long = of((writer, int) =>
      writer.struct("t", 4, Array.from({ length: 65_535 }, (_, at) => ({ name: `m${at}`, type: int, bits: 0 })))
    )
    const short = of((writer, int) => writer.struct("t", 4, [{ name: "m0", type: int, bits: 0 }]))
    assert.deepStrictEqual(diffAll(long, long).map(({ cut, members }) => [cut, members.length]), [[true, 0]])
    assert.deepStrictEqual(diffAll(short, long).map(({ cut }) => cut), [true])
    assert.deepStrictEqual(diffAll(short, empty).map(({ cut }) => cut), [false, false])
  })

  it("an enum whose names are too long to compare is said to be one", () => {
    const long = "x".repeat(50_000)
    const of65535 = (last: number) =>
      of((writer) => writer.enum32("e", Array.from({ length: 65_535 }, (_, at) => [long, at + last])))
    assert.deepStrictEqual(diffAll(of65535(0), of65535(1)).map(({ cut, type }) => [type, cut]), [["enum e", true]])
  })

  it("60,000 structs of one name are paired with their equals", () => {
    const many = (from: number) =>
      of((writer) => {
        for (let size = from; size < from + 60_000; size++) writer.struct("t", size, [])
      })
    const changes = diffAll(many(0), many(1))
    assert.deepStrictEqual(changes.map(({ sizeAfter, sizeBefore }) => [sizeBefore, sizeAfter]), [[0, 60_000]])
    assert.strictEqual(diffAll(many(0), empty).length, 60_001)
  })
})
