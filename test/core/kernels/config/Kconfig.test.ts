import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { mergeKconfig } from "../../../../src/core/kernels/cache/CacheKey.ts"
import { parseConfig, parseFragment, unmet } from "../../../../src/core/kernels/config/Kconfig.ts"
import { ESSENTIAL_OPTIONS, TEST_KCONFIG } from "../../../../src/core/kernels/config/TestKconfig.ts"

const options = (text: string) => [...Either.getOrThrow(parseFragment(text))]
const messageOf = (text: string) => Either.getOrThrow(Either.flip(parseFragment(text))).message

describe("a kconfig fragment", () => {
  it("asks for values of every kind; comments and blank lines ask for nothing", () => {
    assert.deepStrictEqual(
      options([
        "# a comment, and # CONFIG_NOT is not set in it",
        "#CONFIG_COMMENTED=y",
        "",
        "CONFIG_A=y",
        "CONFIG_B=m",
        "CONFIG_C=n",
        "# CONFIG_D is not set",
        "CONFIG_E=\"a \\\"quoted\\\" text # no comment\"",
        "CONFIG_F=-12",
        "CONFIG_G=0x1F",
        "CONFIG_H=\"\"",
        "CONFIG_I=y # why"
      ].join("\n")),
      [
        ["CONFIG_A", "y"],
        ["CONFIG_B", "m"],
        ["CONFIG_C", "n"],
        ["CONFIG_D", "n"],
        ["CONFIG_E", "\"a \\\"quoted\\\" text # no comment\""],
        ["CONFIG_F", "-12"],
        ["CONFIG_G", "0x1F"],
        ["CONFIG_H", "\"\""],
        ["CONFIG_I", "y"]
      ]
    )
  })

  it("means the same with CRLF, and without a last newline", () => {
    assert.deepStrictEqual(options("CONFIG_A=y\r\n# CONFIG_B is not set\r\n\r\nCONFIG_C=1"), [
      ["CONFIG_A", "y"],
      ["CONFIG_B", "n"],
      ["CONFIG_C", "1"]
    ])
  })

  it("means the last of several values", () => {
    assert.deepStrictEqual(options("CONFIG_A=y\nCONFIG_B=1\n# CONFIG_A is not set\nCONFIG_B=2"), [
      ["CONFIG_A", "n"],
      ["CONFIG_B", "2"]
    ])
    assert.deepStrictEqual(options(mergeKconfig("CONFIG_A=y", "CONFIG_A=n")), [["CONFIG_A", "n"]])
  })

  it("is refused with the line that is none", () => {
    const hint = "write CONFIG_NAME=y, m, n, a number or a \"text\", or # CONFIG_NAME is not set"
    assert.strictEqual(
      messageOf("CONFIG_A=y\n\nBPF=y"),
      `kconfig fragment, line 3: "BPF=y" is not an option; ${hint}`
    )
    for (
      const line of ["CONFIG_A", "CONFIG_A y", " CONFIG_A=y", "CONFIG_A=", "CONFIG_A=yes", "CONFIG_A=\"x", "<html>"]
    ) {
      assert.include(messageOf(line), "line 1: ", line)
    }
  })

  it("may be any text without harm", () => {
    FastCheck.assert(FastCheck.property(FastCheck.string({ unit: "binary" }), (text) => {
      parseFragment(text)
      parseConfig(text)
      unmet(Either.getOrElse(parseFragment(text), () => new Map()), parseConfig(text))
    }))
  })

  it("is read back as it was written", () => {
    const name = FastCheck.stringMatching(/^CONFIG_[A-Z0-9_]{1,20}$/)
    const value = FastCheck.oneof(
      FastCheck.constantFrom("y", "m", "n"),
      FastCheck.integer().map(String),
      FastCheck.nat().map((number) => `0x${number.toString(16)}`),
      FastCheck.string().filter((text) => !/[\r\n\\"]/.test(text)).map((text) => `"${text}"`)
    )
    FastCheck.assert(FastCheck.property(FastCheck.array(FastCheck.tuple(name, value)), (pairs) => {
      const text = pairs.map(([name, value]) => value === "n" ? `# ${name} is not set` : `${name}=${value}`).join("\n")
      const wanted = new Map(pairs)
      assert.deepStrictEqual(Either.getOrThrow(parseFragment(text)), wanted)
      const config = parseConfig([...wanted].map(([name, value]) => `${name}=${value}`).join("\n"))
      assert.deepStrictEqual(unmet(wanted, config), [])
    }))
  })
})

describe("a configuration", () => {
  const config = "#\n# Linux/x86 6.12\n#\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x=y\"\nCONFIG_D=64\n"

  it("holds the options that are set", () => {
    assert.deepStrictEqual([...parseConfig(config)], [["CONFIG_A", "y"], ["CONFIG_C", "\"x=y\""], ["CONFIG_D", "64"]])
  })

  it("tells which requests it did not grant, and what they became", () => {
    const asked = Either.getOrThrow(parseFragment(
      "CONFIG_A=m\nCONFIG_B=y\nCONFIG_C=\"x=y\"\nCONFIG_D=128\nCONFIG_E=n\nCONFIG_F=\"unknown\"\nCONFIG_A2=n"
    ))
    assert.deepStrictEqual(unmet(asked, parseConfig(config)), [
      { option: "CONFIG_B", wanted: "y", got: "n" },
      { option: "CONFIG_D", wanted: "128", got: "64" },
      { option: "CONFIG_F", wanted: "\"unknown\"", got: "n" }
    ])
    assert.deepStrictEqual(unmet(new Map([["CONFIG_A", "n"]]), parseConfig(config)), [
      { option: "CONFIG_A", wanted: "n", got: "y" }
    ])
  })
})

it("ktstr's own fragment is well-formed, names no option twice and asks for all that is essential", () => {
  const wanted = Either.getOrThrow(parseFragment(TEST_KCONFIG))
  const named = TEST_KCONFIG.match(/^CONFIG_\w+/gm) ?? []
  assert.strictEqual(named.length, wanted.size)
  for (const option of ESSENTIAL_OPTIONS) assert.strictEqual(wanted.get(option), "y", option)
})
