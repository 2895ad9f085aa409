import { assert, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { Btf } from "../../src/btf/Btf.ts"
import { layout } from "../../src/btf/Layout.ts"
import { ByteSink } from "../../src/btf/render/ByteSink.ts"
import { compile } from "../../src/btf/render/Codec.ts"
import { toJson } from "../../src/btf/render/RenderedValue.ts"
import { valueText } from "../../src/btf/render/ValueText.ts"
import { FormatError } from "../../src/core/FormatError.ts"
import { compileC } from "./compileC.ts"

const { btf: golden } = compileC(`
typedef unsigned int u32; typedef unsigned long long u64;
enum kind { K_NONE, K_A, K_B = 7 };
struct node { struct node *next; u32 id : 5, kind : 27; union { u64 whole; u32 parts[2]; struct { char text[8]; }; }; };
typedef struct node node_t;
struct tree { node_t nodes[4][2]; enum kind kind; const volatile char name[16]; float f; double d; __int128 wide; };
struct tree t;
u32 count;
static const char message[] = "hi";
int f(const struct tree *tree, int n) { return tree->nodes[n][0].id + message[n & 1] + count; }
`)
const START = 24 // the type section: its words are what makes a blob mean something

/** Overwrites: words with values that are likely to matter, or single bytes. */
const overwrites = FastCheck.array(
  FastCheck.record({
    // seldom in the header: that is soon refused
    at: FastCheck.oneof({ weight: 30, arbitrary: FastCheck.integer({ min: START, max: golden.length - 1 }) }, {
      weight: 1,
      arbitrary: FastCheck.nat(START - 1)
    }),
    word: FastCheck.boolean(),
    value: FastCheck.oneof(
      FastCheck.nat(40),
      FastCheck.constantFrom(0xffff_ffff, 0x8000_0000, 0x7fff_ffff, 0xffff, 0x00ff_ffff),
      FastCheck.tuple(FastCheck.nat(20), FastCheck.nat(0xffff)).map(([kind, vlen]) => kind << 24 | vlen),
      FastCheck.nat()
    )
  }),
  { minLength: 1, maxLength: 6 }
)

type Changes = typeof overwrites extends FastCheck.Arbitrary<infer A> ? A : never
const corrupted = (changes: Changes): Uint8Array => {
  const bytes = golden.slice()
  const view = new DataView(bytes.buffer)
  for (const { at, value, word } of changes) {
    if (word && at >= START) view.setUint32(Math.min(at & ~3, bytes.length - 4), value, true)
    else bytes[at] = value
  }
  return bytes
}

const renderAll = (btf: Btf, view: DataView): void => {
  const sink = new ByteSink(64)
  for (let id = 0; id <= btf.endId; id++) {
    const codec = compile(btf, id)
    codec.json(view, 0, sink)
    const json = Buffer.from(sink.take()).toString()
    assert.isBelow(json.length, 2 ** 27)
    const tree = codec.tree(view, 0)
    assert.deepStrictEqual(JSON.parse(json), toJson(tree))
    if (json.length < 10_000) assert.isAbove(valueText(tree).length, 0)
    for (const name of ["node", "tree", btf.nameOf(id)]) {
      const found = layout(btf, name, ["next"], ["kind", "nodes.id", "text", ""])
      if (Either.isRight(found)) assert.isAtLeast(found.right.at.next, 0)
    }
  }
}

it.prop(
  "a corrupted blob is refused or rendered: it never throws, hangs or grows",
  [overwrites, FastCheck.uint8Array({ minLength: 0, maxLength: 300 })],
  ([changes, bytes]) => {
    const btf = Btf.parse(corrupted(changes), { subject: "hostile" })
    if (Either.isLeft(btf)) assert.instanceOf(btf.left, FormatError)
    else renderAll(btf.right, new DataView(bytes.buffer, bytes.byteOffset, bytes.length))
  },
  { fastCheck: { numRuns: 3000, interruptAfterTimeLimit: 20_000, markInterruptAsFailure: false } }
)

it("every prefix of a blob is refused", () => {
  for (let length = 0; length < golden.length; length++) {
    assert.isTrue(Either.isLeft(Btf.parse(golden.subarray(0, length), { subject: "cut" })), `${length} bytes`)
  }
})
