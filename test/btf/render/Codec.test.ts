import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { Btf } from "../../../src/btf/Btf.ts"
import { Kind } from "../../../src/btf/BtfType.ts"
import { ByteSink } from "../../../src/btf/render/ByteSink.ts"
import { bytesCodec, type Codec, compile } from "../../../src/btf/render/Codec.ts"
import { toJson } from "../../../src/btf/render/RenderedValue.ts"
import { renderPlan } from "../../../src/btf/render/RenderPlan.ts"
import { valueText } from "../../../src/btf/render/ValueText.ts"
import { BlobWriter } from "../BlobWriter.ts"
import { compileC } from "../compileC.ts"

const parse = (bytes: Uint8Array): Btf => Either.getOrThrow(Btf.parse(bytes, { subject: "test" }))
const viewOf = (bytes: ArrayLike<number>): DataView => new DataView(Uint8Array.from(bytes).buffer)

/** What `json` writes, as text; also checks that it parses to what the tree says. */
const jsonText = (codec: Codec, view: DataView, at = 0, length?: number): string => {
  const sink = new ByteSink(16)
  if (length === undefined) codec.json(view, at, sink)
  else codec.json(view, at, sink, length)
  const text = Buffer.from(sink.take()).toString()
  const tree = codec.tree(view, at, length === undefined ? {} : { length })
  assert.deepStrictEqual(JSON.parse(text), toJson(tree))
  return text
}
const jsonOf = (codec: Codec, bytes: ArrayLike<number>): unknown => JSON.parse(jsonText(codec, viewOf(bytes)))

const SOURCE = `
typedef unsigned int u32; typedef unsigned long long u64; typedef unsigned char u8; typedef signed char s8;
typedef char name_t[8]; typedef char letter;
enum kind { K_NONE, K_A, K_B = 7 };
enum sign { MINUS = -2, PLUS = 3 };
enum flag { F_ONE = 1, F_TWO = 2, F_FOUR = 4 };
typedef int (*callback)(int, void *);
struct empty {};
struct fwd;
struct all {
  signed char i8; u8 u8; short i16; unsigned short u16; int i32; u32 u32; long long i64; u64 u64, safe;
  long long least_safe, unsafe;
  __int128 i128; unsigned __int128 u128;
  _Bool yes, no;
  enum kind kind, unnamed; enum flag flags; enum sign sign;
  char letter; char text[8]; name_t name; const letter quoted[12]; char full[4]; char empty_text[4]; char odd[4];
  char texts[2][4]; s8 numbers[3]; char none[0];
  u8 matrix[3][2];
  int low : 5; unsigned high : 3; int minus : 7; u64 wide : 40; long long wide_sign : 63; _Bool bit : 1;
  enum kind kind_bit : 3;
  void *p; callback call; struct fwd *null;
  union { u32 word; u8 bytes[4]; struct { unsigned short lo, hi; }; };
  struct { int in_struct; } named;
  float f; double d, zero, nan, inf;
  struct empty e;
  volatile const u32 cv;
  int tail[];
} __attribute__((aligned(16)));
struct all v = {
  .i8 = -128, .u8 = 255, .i16 = -32768, .u16 = 65535, .i32 = -2147483647 - 1, .u32 = 4294967295u,
  .i64 = -9007199254740993LL, .u64 = 18446744073709551615ull, .safe = 9007199254740991ull,
  .least_safe = -9007199254740991LL, .unsafe = -9007199254740992LL,
  .i128 = -1, .u128 = ((unsigned __int128)1 << 100) + 7, .yes = 1,
  .kind = K_B, .unnamed = 99, .flags = 5, .sign = MINUS,
  .letter = 'A', .text = "init", .name = "seven77", .quoted = "a\\"b\\\\c", .full = {'a', 'b', 'c', 'd'},
  .odd = {'a', -1, 0, 0}, .texts = {"ab", "c"}, .numbers = {65, 66, 0}, .matrix = {{1, 2}, {3, 4}, {5, 6}},
  .low = -16, .high = 7, .minus = -1, .wide = 0xfffffffffe, .wide_sign = -5, .bit = 1, .kind_bit = K_A,
  .p = (void *)0xffff888000000a0f, .word = 0x12345678, .named = {-7},
  .f = 1.5f, .d = -0.1, .zero = -0.0, .nan = __builtin_nan(""), .inf = -__builtin_inf(), .cv = 3
};
static u32 hidden = 41;
static int two(void) { static u32 hidden = 42; return hidden++; }
int use(void) { return two() + hidden++; }
struct typed { int __attribute__((btf_type_tag("user"))) *tagged; int *restrict narrow; } __attribute__((btf_decl_tag("mark")));
struct typed t;
union only_ahead *ahead;
`

describe("a struct laid out by clang", () => {
  const { btf: bytes, dump, section, symbols } = compileC(SOURCE)
  const btf = parse(bytes)
  const expected = {
    i8: -128,
    u8: 255,
    i16: -32768,
    u16: 65535,
    i32: -2147483648,
    u32: 4294967295,
    i64: "-9007199254740993",
    u64: "18446744073709551615",
    safe: 9007199254740991,
    least_safe: -9007199254740991,
    unsafe: "-9007199254740992",
    i128: -1,
    u128: "1267650600228229401496703205383",
    yes: true,
    no: false,
    kind: "K_B",
    unnamed: 99,
    flags: 5,
    sign: "MINUS",
    letter: 65,
    text: "init",
    name: "seven77",
    quoted: "a\"b\\c",
    full: [97, 98, 99, 100],
    empty_text: "",
    odd: [97, -1, 0, 0],
    texts: ["ab", "c"],
    numbers: [65, 66, 0],
    none: [],
    matrix: [[1, 2], [3, 4], [5, 6]],
    low: -16,
    high: 7,
    minus: -1,
    wide: 0xff_ffff_fffe,
    wide_sign: -5,
    bit: true,
    kind_bit: "K_A",
    p: "0xffff888000000a0f",
    call: "0x0",
    null: "0x0",
    word: 0x1234_5678,
    bytes: [0x78, 0x56, 0x34, 0x12],
    lo: 0x5678,
    hi: 0x1234,
    named: { in_struct: -7 },
    f: 1.5,
    d: -0.1,
    zero: 0,
    nan: "NaN",
    inf: "-Infinity",
    e: {},
    cv: 3,
    tail: []
  }
  const data = section(".data")
  const [struct] = btf.idsByName("all")

  it("is rendered as DESIGN says", () => {
    const codec = compile(btf, struct)
    assert.strictEqual(codec.size, btf.sizeOf(struct))
    const at = Number(symbols.get("v"))
    assert.deepStrictEqual(JSON.parse(jsonText(codec, viewOf(data), at)), expected)
    assert.strictEqual(compile(btf, struct), codec)
    assert.strictEqual(compile(btf, btf.idsByName("v")[0]).size, codec.size)
  })

  it("is rendered in its data section, by the names of the variables", () => {
    // An object file has neither the section's size nor the variables' offsets: do what a loader does.
    const [id] = btf.idsByName(".data")
    const type = btf.type(id)
    assert(type?.kind === "DATASEC")
    const loaded = bytes.slice()
    const view = new DataView(loaded.buffer)
    const entries = Uint32Array.from(type.variables.flatMap(({ offset, size, type }) => [type, offset, size]))
    const start = Buffer.from(bytes).indexOf(new Uint8Array(entries.buffer))
    assert.isAbove(start, 0)
    view.setUint32(start - 4, data.length, true)
    type.variables.forEach(({ type }, index) => {
      view.setUint32(start + index * 12 + 4, Number(symbols.get(btf.nameOf(type))), true)
    })
    const json = jsonOf(compile(parse(loaded), id), data)
    assert.deepStrictEqual(json, { v: expected, hidden: 41, "two.hidden": 42 })
  })

  it("has the types that bpftool sees", () => {
    assert.strictEqual(btf.endId - 1, dump.length)
    for (const { id, kind, name } of dump) {
      assert.strictEqual(btf.type(id)?.kind, kind)
      assert.strictEqual(btf.nameOf(id) || "(anon)", name)
    }
    const seen = new Set(dump.map(({ kind }) => kind))
    // All but ENUM64, which clang 14 cannot write; Btf.test.ts makes one by hand.
    for (const kind of Object.keys(Kind)) {
      if (kind !== "VOID" && kind !== "ENUM64") assert.isTrue(seen.has(kind), kind)
    }
  })

  it("is truncated member by member where bytes are missing, for every length", () => {
    const codec = compile(btf, struct)
    const at = Number(symbols.get("v"))
    const whole = viewOf(data)
    for (let length = 0; length < codec.size; length++) {
      const cut = viewOf(data.subarray(at, at + length))
      assert.strictEqual(jsonText(codec, cut), jsonText(codec, whole, at, length))
    }
    const json = JSON.parse(jsonText(codec, viewOf(data.subarray(at, at + 18))))
    assert.strictEqual(json.u32, 4294967295)
    assert.deepStrictEqual(json.i64, { $truncated: { needed: 8, had: 2 } })
    assert.deepStrictEqual(json.u64, { $truncated: { needed: 8, had: 0 } })
    assert.deepStrictEqual(JSON.parse(jsonText(codec, viewOf([]))), { $truncated: { needed: codec.size, had: 0 } })
  })
})

describe("kinds that clang 14 does not write", () => {
  it("reads 64-bit enums, and 32-bit ones with a sign", () => {
    const writer = new BlobWriter()
    const big = writer.enum64("big", [["ALL", 2n ** 64n - 1n], ["SMALL", 7n]])
    const low = writer.enum64("low", [["LEAST", -(2n ** 63n)]], true)
    const signed = writer.enum32("signed", [["MINUS", -1]], true)
    const byte = writer.enum32("byte", [["MINUS", -1]], true, 1)
    const btf = parse(writer.bytes())
    const ones = Array.from({ length: 8 }, () => 0xff)
    assert.strictEqual(jsonOf(compile(btf, big), ones), "ALL")
    assert.strictEqual(jsonOf(compile(btf, big), [7, 0, 0, 0, 0, 0, 0, 0]), "SMALL")
    assert.strictEqual(jsonOf(compile(btf, big), [0xfe, ...ones.slice(1)]), "18446744073709551614")
    assert.strictEqual(jsonOf(compile(btf, low), [0, 0, 0, 0, 0, 0, 0, 0x80]), "LEAST")
    assert.strictEqual(jsonOf(compile(btf, low), ones), -1)
    assert.strictEqual(jsonOf(compile(btf, signed), ones), "MINUS")
    assert.strictEqual(jsonOf(compile(btf, signed), [0xfe, 0xff, 0xff, 0xff]), -2)
    assert.strictEqual(jsonOf(compile(btf, byte), [0xff]), "MINUS")
    assert.strictEqual(jsonOf(compile(btf, byte), [0x80]), -128)
  })

  it("names the set bits of an enum of flags", () => {
    const writer = new BlobWriter()
    const id = writer.enum32("flag", [["ONE", 1], ["THREE", 3], ["EIGHT", 8]])
    const codec = compile(parse(writer.bytes()), id)
    assert.deepStrictEqual(codec.tree(viewOf([9, 0, 0, 0]), 0), {
      _tag: "enum",
      value: 9,
      name: null,
      flags: ["ONE", "EIGHT"]
    })
    assert.deepStrictEqual(codec.tree(viewOf([13, 0, 0, 0]), 0), { _tag: "enum", value: 13, name: null, flags: [] })
  })

  it("reads bit-fields of old blobs, which the INT itself describes", () => {
    const writer = new BlobWriter()
    const three = writer.int("three", 4, { bits: 3, offset: 2, signed: true })
    const struct = writer.struct("s", 4, [{ name: "a", type: three, bits: 0 }, { name: "b", type: three, bits: 9 }])
    // a: bits 2 to 4; b: bits 11 to 13
    const bytes = [0b0001_0100, 0b0001_1000, 0, 0]
    assert.deepStrictEqual(jsonOf(compile(parse(writer.bytes()), struct), bytes), { a: -3, b: 3 })
  })

  it("shows long doubles and untyped bytes as hex, and an array of no bytes in part", () => {
    const writer = new BlobWriter()
    const float = writer.type(Kind.FLOAT, { name: "long double", third: 10 })
    const none = writer.array(writer.struct("none", 0, []), 2 ** 32 - 1)
    const btf = parse(writer.bytes())
    assert.strictEqual(jsonOf(compile(btf, float), [1, 2, 3, 4, 5, 6, 7, 8, 9, 0xab]), "0102030405060708" + "09ab")
    assert.strictEqual(jsonOf(bytesCodec(3), [0, 0xff, 0x0a]), "00ff0a")
    assert.strictEqual(jsonOf(bytesCodec(0), []), "")
    const json = jsonOf(compile(btf, none), [])
    assert.deepStrictEqual(json, [...Array.from({ length: 64 }, () => ({})), { $omitted: 2 ** 32 - 1 - 64 }])
  })

  it("tells apart the static variables of linked files that have one name", () => {
    const writer = new BlobWriter()
    const int = writer.int("int", 4)
    const one = writer.type(Kind.VAR, { name: "count", third: int, body: [0] })
    const two = writer.type(Kind.VAR, { name: "count", third: int, body: [0] })
    const section = writer.type(Kind.DATASEC, { name: ".bss", third: 8, vlen: 2, body: [one, 0, 4, two, 4, 4] })
    const json = jsonOf(compile(parse(writer.bytes()), section), [1, 0, 0, 0, 2, 0, 0, 0])
    assert.deepStrictEqual(json, { count: 1, "count@4": 2 })
  })

  it("tells apart members of one name at one place, which no compiler makes", () => {
    const writer = new BlobWriter()
    const byte = writer.int("u8", 1)
    const names = ["a", "a", "a@0", "a@0#2", "a", "a"]
    const struct = writer.struct("s", 1, names.map((name) => ({ name, type: byte, bits: 0 })))
    const json = jsonOf(compile(parse(writer.bytes()), struct), [7])
    const keys = ["a", "a@0", "a@0@0", "a@0#2", "a@0#3", "a@0#4"]
    assert.deepStrictEqual(json, Object.fromEntries(keys.map((key) => [key, 7])))
  })

  it("says why a type has no value", () => {
    const writer = new BlobWriter()
    const fwd = writer.type(Kind.FWD, { name: "ahead" })
    const func = writer.type(Kind.FUNC, { name: "f", third: 3 })
    const proto = writer.type(Kind.FUNC_PROTO, {})
    const tag = writer.type(Kind.DECL_TAG, { name: "t", body: [0] })
    const loop = writer.ref(Kind.TYPEDEF, 5, "loop")
    const lost = writer.ref(Kind.CONST, 1000)
    const self = writer.struct("self", 8, [{ name: "me", type: 7, bits: 0 }])
    const wide = writer.int("wide", 32, { bits: 200 })
    const holder = writer.struct("holder", 8, [{ name: "gone", type: fwd, bits: 0 }, {
      name: "",
      type: fwd,
      bits: 0
    }])
    const btf = parse(writer.bytes())
    const because = (reason: string) => ({ $unsupported: reason })
    const json = (id: number) => jsonOf(compile(btf, id), Array.from({ length: 8 }, () => 0))
    assert.deepStrictEqual(json(0), because("void has no value"))
    assert.deepStrictEqual(json(fwd), because("struct ahead is only declared here"))
    assert.deepStrictEqual(json(func), because("a function has no value"))
    assert.deepStrictEqual(json(proto), because("a function has no value"))
    assert.deepStrictEqual(json(tag), because("a tag has no value"))
    assert.deepStrictEqual(json(loop), because("modifiers without end"))
    assert.deepStrictEqual(json(lost), because("type 1000 does not exist"))
    assert.deepStrictEqual(json(self), { me: because("a type that contains itself") })
    assert.deepStrictEqual(json(wide), because("an integer of 200 bits"))
    assert.deepStrictEqual(json(holder), {
      gone: because("struct ahead is only declared here"),
      "(anonymous)": because("struct ahead is only declared here")
    })
  })
})

it("a bit-field of char is a number where it is not a whole byte, and a character where it is", () => {
  const writer = new BlobWriter()
  const char = writer.int("char", 1)
  const id = writer.struct("bits", 16, [
    { name: "wide", type: char, bits: 0, width: 64 },
    { name: "byte", type: char, bits: 64, width: 8 },
    { name: "narrow", type: char, bits: 72, width: 3 }
  ])
  const bytes = [...Array.from({ length: 8 }, () => 255), 65, 0xfd, 0, 0, 0, 0, 0, 0]
  const { tree } = compile(parse(writer.bytes()), id)
  const members = tree(viewOf(bytes), 0)
  assert(members._tag === "struct")
  assert.deepStrictEqual(members.members.map(({ value }) => value._tag), ["int", "char", "int"])
  assert.deepStrictEqual(jsonOf(compile(parse(writer.bytes()), id), bytes), {
    wide: "18446744073709551615",
    byte: 65,
    narrow: 5
  })
})

describe("limits", () => {
  it("shows the first elements of an array to people, and how many are left", () => {
    const writer = new BlobWriter()
    const array = writer.array(writer.int("int", 1), 100)
    const codec = compile(parse(writer.bytes()), array)
    const tree = codec.tree(new DataView(new ArrayBuffer(100)), 0, { elements: 2 })
    const zero = { _tag: "int", value: 0 } as const
    assert.deepStrictEqual(tree, { _tag: "array", elements: [zero, zero], omitted: 98 })
    assert.deepStrictEqual(toJson(tree), [0, 0, { $omitted: 98 }])
  })

  it("bounds what unions of unions multiply, nesting, and arrays of arrays", () => {
    const writer = new BlobWriter()
    const int = writer.int("int", 4)
    let twice = int
    for (let level = 0; level < 30; level++) {
      twice = writer.struct(`u${level}`, 4, [{ name: "a", type: twice, bits: 0 }, { name: "b", type: twice, bits: 0 }])
    }
    let flat = int
    for (let level = 0; level < 30; level++) {
      flat = writer.struct(`f${level}`, 4, [{ name: "", type: flat, bits: 0 }, { name: "x", type: flat, bits: 0 }, {
        name: "",
        type: flat,
        bits: 0
      }])
    }
    let deep = int
    for (let level = 0; level < 1000; level++) {
      deep = writer.struct(`d${level}`, 4, [{ name: "in", type: deep, bits: 0 }])
    }
    let array = int
    for (let level = 0; level < 40; level++) array = writer.array(array, 2 ** 32 - 1)
    const long = writer.array(int, 2 ** 30 - 1)
    const btf = parse(writer.bytes())
    const value = viewOf([1, 0, 0, 0])
    const sink = new ByteSink()
    for (const id of [twice, flat, deep, array, long]) {
      const codec = compile(btf, id)
      codec.json(value, 0, sink)
      const text = Buffer.from(sink.take()).toString()
      assert.isAtMost(text.length, 1 << 27)
      assert.match(text, /\$unsupported|\$truncated/)
    }
    // From below, each level finds the one under it already made.
    for (let id = 1; id < btf.endId; id++) compile(btf, id)
  })

  it("shows what nameless structs bring up to 4096 members, and then says that it is too much", () => {
    const writer = new BlobWriter()
    let nameless = writer.struct("", 4, [{ name: "a", type: writer.int("int", 4), bits: 0 }])
    const levels = Array.from(
      { length: 13 },
      () =>
        nameless = writer.struct("", 4, [{ name: "", type: nameless, bits: 0 }, { name: "", type: nameless, bits: 0 }])
    )
    const btf = parse(writer.bytes())
    const membersAt = (level: number) => {
      const tree = compile(btf, levels[level]).tree(viewOf([7, 0, 0, 0]), 0)
      return tree._tag === "struct" ? tree.members : tree
    }
    const all = membersAt(11)
    assert.isTrue(Array.isArray(all))
    assert.deepStrictEqual([all].flat().length, 4096)
    assert.deepStrictEqual(membersAt(12), {
      _tag: "unsupported",
      reason: "the BTF describes more than this reader keeps"
    })
  })

  it("shows 4096 members of a struct or a section, and of more says that it is too much", () => {
    const writer = new BlobWriter()
    const int = writer.int("int", 4)
    const struct = (count: number) =>
      writer.struct(
        "s",
        4 * count,
        Array.from({ length: count }, (_, at) => ({ name: `m${at}`, type: int, bits: 32 * at }))
      )
    const section = (count: number) => {
      const variables = Array.from(
        { length: count },
        (_, at) => writer.type(Kind.VAR, { name: `v${at}`, third: int, body: [1] })
      )
      const body = variables.flatMap((variable, at) => [variable, 4 * at, 4])
      return writer.type(Kind.DATASEC, { name: ".bss", third: 4 * count, vlen: count, body })
    }
    const ids = [struct(4096), section(4096), struct(4097), section(4097)]
    const btf = parse(writer.bytes())
    const view = new DataView(new ArrayBuffer(4 * 4097))
    view.setUint32(4 * 4095, 7, true)
    const trees = ids.map((id) => compile(btf, id).tree(view, 0))
    for (const tree of trees.slice(0, 2)) {
      assert.deepStrictEqual(tree._tag === "struct" && tree.members.length, 4096)
      assert.deepStrictEqual(tree._tag === "struct" && tree.members[4095].value, { _tag: "int", value: 7 })
    }
    const refused = { _tag: "unsupported", reason: "the BTF describes more than this reader keeps" } as const
    assert.deepStrictEqual(trees.slice(2), [refused, refused])
    // what the typed form does not show, the bytes do
    assert.deepStrictEqual(ids.map((id) => compile(btf, id).hides?.(view, 0) ?? false), [false, false, true, true])
  })

  it("counts the names of all flags that a value may have: they are in its text", () => {
    const writer = new BlobWriter()
    const names = Array.from(
      { length: 64 },
      (_, bit) => [`bit${bit}${"\u202e".repeat(100)}`, 1n << BigInt(bit)] as const
    )
    const flags = writer.array(writer.enum64("e", names), 5)
    const btf = parse(writer.bytes())
    const text = valueText(compile(btf, flags).tree(viewOf(new Uint8Array(40).fill(255)), 0))
    assert.isAtLeast(text.length, 5 * 64 * 600)
    assert.isAtLeast(renderPlan(btf, flags).cost, text.length)
  })
})
