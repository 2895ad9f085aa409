import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import {
  Digits,
  Members,
  NotPrinted,
  parseEntries,
  parseMaps,
  parsePrinted,
  plainInteger,
  PrintedTypes,
  UNSUPPORTED
} from "./bpftool.ts"
import { parseCapture } from "./capture.ts"

// What bpftool printed in a guest that ran test/bpf-src/types.bpf.c: see goldens/regenerate.mjs.
const golden: { maps: string; dumps: Record<string, string>; btfs: Record<string, string> } = JSON.parse(
  readFileSync(new URL("goldens/bpftool.json", import.meta.url), "utf8")
)
const maps = parseMaps(golden.maps)
const entriesOf = (name: string) =>
  maps.filter((map) => map.name === name).flatMap((map) =>
    parseEntries(golden.dumps[map.id], map, map.btfId === null ? undefined : new PrintedTypes(golden.btfs[map.btfId]))
  )
const plainOf = (name: string) => entriesOf(name).map(({ plain }) => plain)

// What types.bpf.c computes, written anew with BigInt.
const u64 = (n: bigint) => BigInt.asUintN(64, n)
const mix = (i: number): bigint => {
  const x = u64(BigInt(i + 1) * 0x9e3779b97f4a7c15n)
  return x ^ (x >> 29n)
}
const signed = (bits: number, n: bigint) => plainInteger(BigInt.asIntN(bits, n))
const unsigned = (bits: number, n: bigint) => plainInteger(BigInt.asUintN(bits, n))
const pointer = (n: bigint) => `0x${u64(n).toString(16)}`
const COLORS = ["COLOR_NONE", "COLOR_RED", "COLOR_GREEN", "COLOR_INFRARED", "COLOR_MAX"]

const bits = (i: number) => {
  const x = mix(i & 15)
  const n = BigInt(i)
  return {
    low: i & 7,
    sign: signed(5, n - 16n),
    across: unsigned(17, x),
    last: signed(7, x >> 20n),
    wide: unsigned(33, x >> 3n),
    wide_sign: signed(31, x >> 30n),
    most: signed(63, x ^ 0x5555555555555555n),
    top: i & 1,
    yes: (i & 1) !== 0,
    no: (i & 2) !== 0,
    tint: ["COLOR_NONE", "COLOR_RED", 2, 3, "COLOR_GREEN"][i % 5],
    one: i & 1 ? -1 : 0,
    tail: (i >> 1) & 3
  }
}

const everything = (i: number) => {
  const x = mix(i)
  const n = BigInt(i)
  const minus = i === 0 ? 0 : -i
  const digits = String(i).padStart(4, "0")
  const byte = (at: number) => Number((x >> BigInt(8 * at)) & 255n)
  return {
    past_double: i === 0 ? Number.MAX_SAFE_INTEGER : i === 1 ? "9007199254740992" : plainInteger(x),
    negative: i === 0 ? Number.MIN_SAFE_INTEGER : i === 1 ? "-9007199254740993" : plainInteger(-(x >> 1n)),
    s32: minus,
    u16: unsigned(16, x),
    s16: signed(16, x),
    u8: unsigned(8, x),
    s8: signed(8, x),
    single: 32 + i,
    truth: (x & 1n) === 1n,
    color: COLORS[i % 5],
    unknown_color: i & 1 ? 1234 : 2 ** 32 - 1234,
    mode: ["MODE_OFF", "MODE_ON", "MODE_AUTO"][i % 3],
    worker: unsigned(32, x >> 7n),
    at: { x: i, y: minus },
    pointer: pointer(0xffff888000000000n | ((x >> 40n) << 3n)),
    forward: i & 1 ? "0xffffffffffffffff" : "0x0",
    callback: pointer(0xffffffffc0000000n + n),
    next: pointer(n),
    whole: plainInteger(x),
    halves: [unsigned(32, x), unsigned(32, x >> 32n)],
    lowest: unsigned(16, x),
    second: signed(16, x >> 16n),
    inner: i,
    innermost: minus,
    named: {
      as_int: i,
      as_point: { x: i, y: signed(32, x) },
      as_bytes: [i, 0, 0, 0, byte(0), byte(1), byte(2), byte(3)]
    },
    nested: { kind: i, bits: bits(i) },
    grid: [[i, i + 1], [i + 2, i + 3], [i + 4, i + 5]],
    signed_grid: [[[0 - i, 1 - i]], [[2 - i, 3 - i]]],
    corners: [{ x: i, y: 0 - i }, { x: i + 1, y: 1 - i }],
    palette: [0, 1, 2].map((k) => COLORS[(i + k) % 5]),
    answers: [0, 1, 2].map((k) => ((i >> k) & 1) === 1),
    pointers: [pointer(x), pointer(x << 1n)],
    comm: `task/${digits}`,
    quoted: "\"a\\b\"/'",
    words: ["left", i & 1 ? "right77" : ""],
    unterminated: [...digits].map((c) => c.charCodeAt(0)),
    binary: [1, 127, -128, -1, -61, 0],
    empty: "",
    aliased: digits.slice(0, 3),
    raw: [0, 1, 2, 3, 4].map(byte),
    qualified: 3 * i,
    none: [],
    tagged: pointer(0x7fff00000000n + n),
    noted: i
  }
}

const counter = (i: number, cpu: number) => ({
  count: plainInteger(mix(i * 131 + cpu)),
  delta: 0 - (i * 1000 + cpu),
  cpu,
  bits: bits(i + cpu),
  name: `cpu-${cpu}`
})

describe("parsePrinted", () => {
  it("keeps every digit, every member and the order", () => {
    assert.deepStrictEqual(
      parsePrinted(" {\"a\":18446744073709551615,\n\"\":[true,null,\"\\\"\"],\"\":-0.5e3}\n"),
      new Members([["a", new Digits("18446744073709551615")], ["", [true, null, "\""]], ["", new Digits("-0.5e3")]])
    )
  })
  it("takes the one thing that bpftool prints and JSON has not", () => {
    assert.deepStrictEqual(parsePrinted("[{\"f\":(unsupported-kind}]"), [new Members([["f", UNSUPPORTED]])])
    assert.deepStrictEqual(parsePrinted("[{\"f\":(unsupported-kind)}]"), [new Members([["f", UNSUPPORTED]])])
  })
  it("refuses what is not JSON", () => {
    for (const text of ["", "[", "[1 2]", "{\"a\"}", "{1:2}", "[1],", "nul", "[1,]", "\"a", "{\"a\":1,}", "]"]) {
      assert.throws(() => parsePrinted(text), /JSON|expected/, text)
    }
  })
})

describe("parseEntries", () => {
  it("gives structs as plain JSON: 64 bits, bit-fields, enums, unions, strings, arrays, pointers", () => {
    assert.deepStrictEqual(plainOf("array_struct"), [0, 1, 2, 3].map((i) => ({ key: i, value: everything(i) })))
  })
  it("gives 128-bit integers with their sign", () => {
    assert.deepStrictEqual(plainOf("array_wide"), [
      { key: 0, value: { i128: 42, u128: 42, after: 0 } },
      {
        key: 1,
        value: {
          i128: plainInteger(BigInt.asIntN(128, (2n ** 64n - 1n << 64n) | mix(1))),
          u128: plainInteger((mix(3) << 64n) | u64(~mix(1))),
          after: 1
        }
      },
      {
        key: 2,
        value: {
          i128: plainInteger(BigInt.asIntN(128, (mix(3) << 64n) | mix(2))),
          u128: plainInteger((mix(4) << 64n) | u64(~mix(2))),
          after: 2
        }
      }
    ])
  })
  it("says what bpftool cannot print, and still has its bytes", () => {
    const [first] = entriesOf("array_reals")
    assert.instanceOf(first.plain, NotPrinted)
    assert.deepStrictEqual(first.valuesHex, ["0000c03f000000009a9999999999b93f0000000000000000"]) // 1.5f, 0.1, 0
    assert.deepStrictEqual(entriesOf("perf_events"), [])
  })
  it("names enum keys and values where they have a name", () => {
    const value = (i: number) => ["MODE_OFF", "MODE_ON", "MODE_AUTO"][i] ?? i
    const expected = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((i) => ({ key: COLORS[i] ?? i * 100, value: value(i) }))
    const byValue = (a: unknown, b: unknown) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1
    assert.deepStrictEqual(plainOf("hash_enum").sort(byValue), expected.sort(byValue))
  })
  it("finds the types of a map whose name was cut, and 64-bit keys", () => {
    for (const { keyHex, plain } of entriesOf("hash_made_on_de")) {
      const key = Buffer.from(keyHex, "hex").readBigUInt64LE(0)
      const i = [...Array(400).keys()].find((candidate) => mix(candidate) === key)
      assert.deepStrictEqual(plain, { key: plainInteger(key), value: counter(i ?? -1, 0) })
    }
  })
  it("gives each CPU's value", () => {
    assert.deepStrictEqual(
      plainOf("percpu_array"),
      [0, 1].map((i) => ({ key: i, cpus: [counter(i, 0), counter(i, 1)] }))
    )
    assert.deepStrictEqual(plainOf("plain_percpu"), [0, 1].map((key) => ({ key, cpus: ["000000", "000000"] })))
  })
  it("gives data sections as objects of variables, static ones too", () => {
    const zero = { wide: 0x1aaaaaaaa, wide_sign: -3, most: 0, top: 0, yes: false, no: false, tint: "COLOR_NONE" }
    assert.deepStrictEqual(plainOf("types.data"), [{
      key: 0,
      value: {
        balance: "-9223372036854775808",
        favourite: "COLOR_GREEN",
        first_corner: "0xffff888000001234",
        knobs: { low: 5, sign: -11, across: 0x15555, last: -1, ...zero, one: 0, tail: 0 },
        matrix: [[1, 2, 3], [4, 5, 4294967295]],
        label: "static"
      }
    }])
    const banner = [...Buffer.from("tabs\tno, quotes \"yes\" \\".padEnd(32, "\0"))]
    assert.deepStrictEqual(plainOf("types.rodata"), [{
      key: 0,
      value: { threshold: "18446744073709551615", banner, origin: { x: -1, y: 2147483647 }, hidden_constant: -7 }
    }])
  })
  it("gives bytes without a type as hex, an array's key as its index", () => {
    assert.deepStrictEqual(
      plainOf("plain_array"),
      [0, 1].map((key) => ({
        key,
        value: key === 1 ? "010203040506" : "000000000000"
      }))
    )
    assert.sameDeepMembers(plainOf("plain_hash"), [
      { key: "0909090909", value: "00000000000000000000000000" },
      ...[1, 2, 3].map((n) => ({ key: `0${n}00ff0708`, value: `0${n}02030405060708090a0b0cfd` }))
    ])
  })
  it("tells an empty map from one that was not dumped", () => {
    const map = maps.find(({ name }) => name === "hash_empty")
    assert.isDefined(map)
    assert.deepStrictEqual(parseEntries("[]", map), [])
    assert.throws(() => parseEntries("{\"error\":\"no\"}", map), /was not dumped/)
  })
})

describe("parseCapture", () => {
  const archive = execFileSync("sh", [
    "-c",
    "d=$(mktemp -d); trap 'rm -r $d' EXIT; cd $d; printf '[1]' >maps.json; seq 2000 >long; : >empty; "
    + "echo '==== capture begins'; tar -c . | gzip | base64; echo '==== capture ends'"
  ], { encoding: "utf8" })
  it("reads the files between the markers, whatever stands around and however lines end", () => {
    const files = parseCapture(`boot log\r\n${archive.replaceAll("\n", "\r\n")}more`)
    assert.deepStrictEqual([...files.keys()].sort(), ["empty", "long", "maps.json"])
    assert.strictEqual(files.get("maps.json"), "[1]")
    assert.strictEqual(files.get("long")?.trimEnd().split("\n").length, 2000)
    assert.strictEqual(files.get("empty"), "")
  })
  it("refuses one that was cut", () => {
    assert.throws(() => parseCapture(archive.slice(0, -40)), /no whole capture/)
  })
})
