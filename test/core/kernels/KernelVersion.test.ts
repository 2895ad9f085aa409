import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { compareKernelVersions, covers, inRange, parseKernelVersion } from "../../../src/core/kernels/KernelVersion.ts"
import { run } from "../samples.ts"

const version = (text: string) => {
  const parsed = parseKernelVersion(text)
  if (parsed === undefined) throw new Error(`${text} is no version`)
  return parsed
}

const small = FastCheck.integer({ min: 0, max: 30 })
const versionText = FastCheck.tuple(
  small,
  small,
  FastCheck.option(small, { nil: undefined }),
  FastCheck.option(small, { nil: undefined })
).map(([major, minor, patch, rc]) =>
  `${major}.${minor}${patch === undefined ? "" : `.${patch}`}${rc === undefined ? "" : `-rc${rc}`}`
)

describe("parseKernelVersion", () => {
  it.each(
    [
      ["6.14", 6, 14, undefined, undefined],
      ["6.14.0", 6, 14, 0, undefined],
      ["6.14.2", 6, 14, 2, undefined],
      ["6.15-rc3", 6, 15, undefined, 3],
      ["6.14.2-rc1", 6, 14, 2, 1],
      ["4.9.337", 4, 9, 337, undefined]
    ] as const
  )("reads %s", (text, major, minor, patch, rc) => {
    assert.deepStrictEqual(parseKernelVersion(text), { text, major, minor, patch, rc })
  })

  it.each([
    "",
    "6",
    "6.",
    ".14",
    "v6.14",
    "6.14.",
    "6.14.2.1",
    "6.14-rc",
    "6.14-rc1x",
    "6.14-rc1-rc2",
    " 6.14",
    "6.14\n"
  ])(
    "refuses %j",
    (text) => assert.isUndefined(parseKernelVersion(text))
  )

  it.each(["06.14", "6.014", "6.14-rc01", "6.9999999", "٦.14"])(
    "refuses %j, which would be another spelling of one version or inexact",
    (text) => assert.isUndefined(parseKernelVersion(text))
  )
})

describe("compareKernelVersions", () => {
  it("orders as sort -V does, with a missing patch as 0 and a release after its rcs", () => {
    const texts = FastCheck.sample(versionText, { numRuns: 500, seed: 1 })
    // for sort -V, `~` comes before everything, the end too
    const spelled = (text: string) => {
      const { major, minor, patch, rc } = version(text)
      return `${major}.${minor}.${patch ?? 0}${rc === undefined ? "" : `~rc${rc}`}`
    }
    const ours = texts.toSorted((a, b) => compareKernelVersions(version(a), version(b))).map(spelled)
    const theirs = run("sort", ["-V"], Buffer.from(texts.map(spelled).join("\n"))).toString().trimEnd().split("\n")
    assert.deepStrictEqual(ours, theirs)
  })

  it("puts neighbours in order", () => {
    const ordered = ["6.9", "6.14-rc1", "6.14-rc10", "6.14", "6.14.1-rc1", "6.14.1", "6.14.10", "6.15-rc1", "10.0"]
    for (const [at, text] of ordered.entries()) {
      for (const [other, otherText] of ordered.entries()) {
        const order = compareKernelVersions(version(text), version(otherText))
        assert.strictEqual(Math.sign(order), Math.sign(at - other), `${text} and ${otherText}`)
      }
    }
    assert.strictEqual(compareKernelVersions(version("6.14"), version("6.14.0")), 0)
    assert.strictEqual(compareKernelVersions(version("6.14-rc2"), version("6.14.0-rc2")), 0)
  })
})

describe("which releases a version names", () => {
  const releases = ["6.13.9", "6.14-rc7", "6.14", "6.14.1-rc1", "6.14.1", "6.14.10", "6.15-rc1", "6.15", "6.140.1"]
  it.each([
    ["6.14", ["6.14", "6.14.1", "6.14.10"]],
    ["6.14.0", ["6.14"]],
    ["6.14.1", ["6.14.1"]],
    ["6.14-rc7", ["6.14-rc7"]],
    ["6.14.1-rc1", ["6.14.1-rc1"]],
    ["6.16", []]
  ])("%s", (asked, expected) => {
    assert.deepStrictEqual(releases.filter((release) => covers(version(asked), version(release))), expected)
  })

  it.each([
    ["6.13", "6.14", ["6.13.9", "6.14", "6.14.1", "6.14.10"]],
    ["6.14", "6.14", ["6.14", "6.14.1", "6.14.10"]],
    ["6.14.0", "6.14.0", ["6.14"]],
    ["6.14.1", "6.14.1", ["6.14.1"]],
    ["6.13", "6.14.1", ["6.13.9", "6.14", "6.14.1"]],
    ["6.14-rc1", "6.14.0", ["6.14-rc7", "6.14"]],
    ["6.14.10", "6.15-rc1", ["6.14.10", "6.15-rc1"]],
    ["6.15.1", "6.20", []]
  ])("%s..%s", (start, end, expected) => {
    assert.deepStrictEqual(
      releases.filter((release) => inRange(version(start), version(end), version(release))),
      expected
    )
  })
})
