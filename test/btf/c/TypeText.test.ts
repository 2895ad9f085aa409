import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { execFileSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Btf } from "../../../src/btf/Btf.ts"
import { openBtfFile } from "../../../src/btf/BtfFile.ts"
import { Kind, type StructType } from "../../../src/btf/BtfType.ts"
import { structLayout, structTotals } from "../../../src/btf/c/StructLayout.ts"
import { typeText } from "../../../src/btf/c/TypeText.ts"
import { kernelImage } from "../../support/kernels.ts"
import { BlobWriter } from "../BlobWriter.ts"
import { compileC } from "../compileC.ts"

const HOST = "/sys/kernel/btf/vmlinux"

const fromImage = (series: "6.1" | "6.12") =>
  Effect.gen(function*() {
    const file = yield* openBtfFile(yield* kernelImage(series))
    assert(file.kind === "image")
    const section = yield* file.section
    assert(section !== undefined)
    return section
  }).pipe(Effect.scoped)

const run = (command: string, ...args: ReadonlyArray<string>): string =>
  // pahole 1.24 complains on stderr of each DECL_TAG, which it does not know.
  execFileSync(command, args, { encoding: "utf8", maxBuffer: 2 ** 28, stdio: ["ignore", "pipe", "ignore"] })

/** A blob and a file that holds it. */
const withFile = (bytes: Uint8Array) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-ctext-"))),
      (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
    ),
    (directory) => {
      const file = join(directory, "vmlinux.btf")
      writeFileSync(file, bytes)
      return { file, btf: Either.getOrThrow(Btf.parse(bytes, { subject: "vmlinux" })) }
    }
  )

/** The structs and unions whose name no other has. */
const unique = (btf: Btf): ReadonlyArray<StructType> => {
  const byName = new Map<string, Array<StructType>>()
  for (let id = 1; id < btf.endId; id++) {
    const type = btf.type(id)
    if (type?.kind !== "STRUCT" && type?.kind !== "UNION") continue
    if (type.name !== "") byName.set(type.name, [...byName.get(type.name) ?? [], type])
  }
  return [...byName.values()].flatMap((types) => types.length === 1 ? types : [])
}

/** The definitions in a text, by `struct name`. */
const definitions = (text: string): ReadonlyMap<string, string> =>
  new Map(
    [...text.matchAll(/^((?:struct|union|enum) \w+) \{\n.*?^\}.*?;/gms)].map(([whole, head]) => [head, whole])
  )

const squeezed = (line: string): string =>
  line.replaceAll(/\s+/g, " ").replaceAll(/ ?\*(?!\/) ?/g, "*").replaceAll(/ (?=[,);])/g, "").trim()

/**
 * What pahole 1.24 and we print, without what only pahole has (cache lines, alignments, advice) and without where it
 * errs: it puts the `const` of a pointer before its target, takes pointers to arrays for pointers to their elements,
 * shows enumerators of -2^31 as positive, and misses the padding of some members' structs.
 */
const comparable = (definition: string): ReadonlyArray<string> => {
  const loose = definition.includes("Bitfield combined")
  return definition.replaceAll(/cachelines: \d+, /g, "").split("\n").flatMap((line) => {
    if (/cacheline|alignment|Bitfield combined|of padding \*|paddings:|^\s*[\w ]+\s:\d+;$/.test(line)) return []
    // It prints sums of some nested structs too.
    if (/^\t\t+\/\* (size|sum)/.test(line)) return []
    const words = squeezed(
      line.replace(", try to pack", "")
        .replace(/ \(\d+ bytes\)/, "")
        .replaceAll(/\s*__attribute__\(\(__\w+__(?:\(\d+\))?\)\)/g, "").replaceAll(/\b(?:const|volatile)\b ?/g, "")
        .replace(/\(\*(\w+)\)\[\d*\];/, "*$1;").replace(/\[0?\];/, "[];").replace("= 2147483648,", "= -2147483648,")
    )
    return words === "" || loose && words.startsWith("/*") ? [] : [words]
  })
}

/** What `bpftool btf dump format c` and we print, without comments, bodies' padding and the numbers of equal names. */
const asPlainC = (definition: string): ReadonlyArray<string> =>
  definition.replaceAll(/(struct|union) \{\s*\}/g, "$1 {}").split("\n").flatMap((line) => {
    if (/^\s*(?:char|short|int|long) ?: ?\d+;$/.test(line)) return []
    const words = squeezed(
      line.replaceAll(/\/\*.*?\*\//g, "").replaceAll(/\s*__attribute__\(\([^)]*\)\)/g, "").replaceAll(/___\d+\b/g, "")
        .replace(/\[\];/, "[0];").replace(/ = \d+.*,$/, "").replace(/ = -\d+,$/, "").replace(/ ?: ?(\d+);/, ":$1;")
        .replace("volatile const", "const volatile").replace(/,$/, "")
    )
    return words === "" ? [] : [words]
  })

describe.each([
  ["the running kernel", HOST, Effect.sync(() => new Uint8Array(readFileSync(HOST)))],
  ["Debian's 6.12", "", fromImage("6.12")]
])("the C text of %s", (_, path, load) => {
  const absent = path !== "" && !existsSync(path)
  if (absent) it.skip(`${path} does not exist here`, () => {})

  it.scoped.skipIf(absent)("is pahole's, line by line, of every struct", () =>
    Effect.gen(function*() {
      const { btf, file } = yield* withFile(yield* load)
      const structs = unique(btf).filter(({ kind }) => kind === "STRUCT")
      let compared = 0
      let holes = 0
      for (let first = 0; first < structs.length; first += 1000) {
        const some = structs.slice(first, first + 1000)
        const printed = definitions(run("pahole", "-F", "btf", "-C", some.map(({ name }) => name).join(","), file))
        for (const { id, name } of some) {
          const theirs = printed.get(`struct ${name}`)
          if (theirs === undefined) continue // it prints no struct without members
          const ours = typeText(btf, id)
          const expected = comparable(theirs)
          const loose = theirs.includes("Bitfield combined") ? `${ours}/* Bitfield combined */` : ours
          assert.deepStrictEqual(comparable(loose), expected)
          compared++
          holes += theirs.match(/XXX .* hole/g)?.length ?? 0
        }
      }
      assert.isAbove(compared, 5000)
      assert.isAbove(compared, structs.length - 50)
      assert.isAbove(holes, 1000)
    }).pipe(Effect.provide(NodeContext.layer)), 120_000)

  it.scoped.skipIf(absent)(
    "declares what bpftool declares, in every struct, union and enum",
    () =>
      Effect.gen(function*() {
        const { btf, file } = yield* withFile(yield* load)
        const printed = definitions(run("bpftool", "btf", "dump", "file", file, "format", "c"))
        let compared = 0
        let unions = 0
        for (const { id, kind, name } of unique(btf)) {
          const theirs = printed.get(`${kind.toLowerCase()} ${name}`)
          if (theirs === undefined) continue // one that bpftool numbers, as a typedef has its name
          assert.deepStrictEqual(asPlainC(typeText(btf, id)), asPlainC(theirs))
          compared++
          if (kind === "UNION") unions++
        }
        assert.isAbove(compared, 5000)
        assert.isAbove(unions, 100)
      }).pipe(Effect.provide(NodeContext.layer)),
    120_000
  )

  it.scoped.skipIf(absent)("leaves no bit of a struct unnamed", () =>
    Effect.gen(function*() {
      const { btf } = yield* withFile(yield* load)
      let checked = 0
      for (const type of unique(btf)) {
        if (type.kind === "UNION") continue
        const sums = structTotals(structLayout(btf, type))
        const bytes = sums.memberBytes + sums.holeBytes + sums.padding
        const bits = sums.bitFieldBits + sums.bitHoleBits + sums.bitPadding
        assert.strictEqual(bytes * 8 + bits, type.size * 8, type.name)
        checked++
      }
      assert.isAbove(checked, 5000)
    }).pipe(Effect.provide(NodeContext.layer)), 120_000)
})

describe("the C text of other types", () => {
  const { btf: bytes } = compileC(`
    typedef int (*callback)(int a, void *data);
    struct only_declared;
    struct part { int a; struct { char x; long y; } named; struct { int u:3; int :5; int v:20; }; };
    typedef struct { int q; } without_name;
    typedef enum { FIRST = 1, SECOND } choice;
    int function(struct part *part, const char *const *names) { return part->a; }
    struct all {
      callback fn; int (*table[4])(void); int (*(*pick)(int))(char); char matrix[3][4]; const volatile int cv;
      int *restrict r; struct only_declared *f; char (*row)[8]; struct { int z; } several[3];
      union { int i; char c; } *behind; void (*with)(struct { int t; } *); without_name w; choice chosen;
      const char *const *names; struct part tail[];
    } all;
    const int constant = 3;
    int user(void) { struct part p = {}; return function(&p, 0); }
  `)
  const btf = Either.getOrThrow(Btf.parse(bytes, { subject: "a.o" }))
  const text = (name: string) => btf.idsByName(name).map((id) => typeText(btf, id)).join("")

  it("is C", () => {
    assert.strictEqual(text("callback"), "typedef int (*callback)(int, void *); /* size: 8 */\n")
    assert.strictEqual(text("only_declared"), "struct only_declared; /* only declared here */\n")
    assert.strictEqual(text("function"), "int function(struct part *part, const char *const *names);\n")
    assert.strictEqual(text("int"), "int; /* size: 4, 32 bits, signed */\n")
    assert.strictEqual(text("constant"), "const int constant; /* size: 4 */\n")
    assert.strictEqual(text("choice"), "typedef enum {\n\tFIRST  = 1,\n\tSECOND = 2,\n} choice; /* size: 4 */\n")
    assert.match(text(".rodata"), /^\/\* section \.rodata, size: \d+ \*\/\nconst int constant; +\/\* +0 +4 \*\/\n$/)
    assert.strictEqual(
      text("without_name"),
      "typedef struct {\n\tint                        q;                    /*     0     4 */\n\n"
        + "\t/* size: 4, members: 1 */\n} without_name;\n"
    )
    assert.include(text("part"), "} named;                                         /*     8    16 */")
    assert.include(text("part"), "\t\t/* XXX 5 bits hole */\n")
    const all = text("all").split("\n").map(squeezed)
    for (
      const line of [
        "int (*table[4])(void); /* 8 32 */",
        "int (*(*pick)(int))(char); /* 40 8 */",
        "char matrix[3][4]; /* 48 12 */",
        "const volatile int cv; /* 60 4 */",
        "int*restrict r; /* 64 8 */",
        "char (*row)[8]; /* 80 8 */",
        "} several[3]; /* 88 12 */",
        "}*behind; /* 104 8 */",
        "void (*with)(struct { int t; }*); /* 112 8 */",
        "const char*const*names; /* 128 8 */",
        "struct part tail[]; /* 136 0 */"
      ]
    ) assert.include(all, squeezed(line))
  })

  it("compiles, but for its comments", () => {
    const source = ["without_name", "choice", "callback", "part", "all"].map((name) =>
      btf.idsByName(name).filter((id) => btf.kindOf(id) !== Kind.VAR).map((id) => typeText(btf, id)).join("")
    ).join("")
    const again = Either.getOrThrow(Btf.parse(compileC(`${source}struct all all;`).btf, { subject: "again" }))
    const [id] = again.idsByName("all")
    assert.strictEqual(typeText(again, id), typeText(btf, btf.idsByName("all")[0]))
  })
})

it("a type tag with kind_flag is the attribute itself, without it an argument of btf_type_tag", () => {
  const writer = new BlobWriter()
  const int = writer.int("int", 4)
  const arena = writer.ref(Kind.PTR, writer.ref(Kind.TYPE_TAG, int, "address_space(1)", true))
  const user = writer.ref(Kind.PTR, writer.ref(Kind.TYPE_TAG, int, "user"))
  const id = writer.struct("s", 16, [{ name: "arena", type: arena, bits: 0 }, { name: "user", type: user, bits: 64 }])
  const btf = Either.getOrThrow(Btf.parse(writer.bytes(), { subject: "tags" }))
  const lines = typeText(btf, id).split("\n").map(squeezed)
  assert.includeMembers(
    lines,
    [
      "int __attribute__((address_space(1)))*arena; /* 0 8 */",
      "int __attribute__((btf_type_tag(\"user\")))*user; /* 8 8 */"
    ].map(squeezed)
  )
})

describe("hostile BTF", () => {
  const print = (writer: BlobWriter) => {
    const btf = Either.getOrThrow(Btf.parse(writer.bytes(), { subject: "hostile" }))
    return Array.from({ length: btf.endId + 1 }, (_, id) => typeText(btf, id))
  }

  it("is cut where it leads in circles or is beyond all measure", () => {
    const self = new BlobWriter()
    self.struct("", 8, [{ name: "", type: 1, bits: 0 }, { name: "a", type: 1, bits: 0 }])
    self.ref(Kind.PTR, 2)
    self.ref(Kind.TYPEDEF, 3, "round")
    self.type(Kind.FUNC_PROTO, { third: 4, vlen: 2, body: [0, 4, 0, 4] })
    self.array(5, 2 ** 31)
    self.struct("bits", 4, [{ name: "f", type: 99, bits: 2 ** 24 - 1, width: 255 }])
    const texts = print(self)
    assert.match(texts[1], /more members, left out|more member, left out/)
    for (const text of texts) assert.isBelow(text.length, 2 ** 26)

    const wide = new BlobWriter()
    const int = wide.int("int", 4)
    let inner = int
    for (let level = 0; level < 6; level++) {
      inner = wide.struct("", 4, Array.from({ length: 100 }, () => ({ name: "", type: inner, bits: 0 })))
    }
    wide.type(Kind.FUNC_PROTO, { third: inner, vlen: 2, body: [0, inner, 0, inner] })
    for (const text of print(wide)) assert.isBelow(text.length, 2 ** 26)
  })

  it("of any kind gives text", () => {
    const word = FastCheck.oneof(FastCheck.nat(12), FastCheck.integer({ min: 0, max: 0xffff_ffff }))
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(
          FastCheck.record({
            kind: FastCheck.integer({ min: 1, max: 19 }),
            third: word,
            flag: FastCheck.boolean(),
            vlen: FastCheck.nat(4),
            words: FastCheck.array(word, { minLength: 12, maxLength: 12 })
          }),
          { minLength: 1, maxLength: 12 }
        ),
        (types) => {
          const writer = new BlobWriter()
          for (const { flag, kind, third, vlen, words } of types) {
            const fixed = [0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0][kind]
            const each = [0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3][kind]
            const body = words.slice(0, fixed + each * vlen).map((value, index) =>
              index % 3 === 0 && each > 0 ? value % 2 : value
            )
            writer.type(kind, { name: types.length % 2 === 0 ? "name" : "", third, vlen, flag, body })
          }
          for (const text of print(writer)) assert.isTrue(text.endsWith("\n"))
        }
      ),
      { numRuns: 500 }
    )
  })
})
