import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { spawnSync } from "node:child_process"
import { compareDebianVersions } from "../../../../src/core/kernels/debian/DebianVersion.ts"
import { has } from "../../samples.ts"

const dpkg = (a: string, b: string): number => {
  const holds = (relation: string) => spawnSync("dpkg", ["--compare-versions", a, relation, b]).status === 0
  return holds("lt") ? -1 : holds("gt") ? 1 : 0
}

const part = FastCheck.array(FastCheck.constantFrom("0", "1", "9", "10", "a", "Z", "~", "+", "."), { maxLength: 5 })
  .map((pieces) => pieces.join(""))
const version = FastCheck.tuple(FastCheck.constantFrom("", "0:", "2:"), part, FastCheck.constantFrom("", "-"), part)
  .map(([epoch, upstream, dash, revision]) => `${epoch}1${upstream}${dash}${dash === "" ? "" : `0${revision}`}`)

describe("compareDebianVersions", () => {
  it("orders kernels as one expects", () => {
    assert.deepStrictEqual(
      ["6.12.9-1", "6.12.117-1~deb12u1", "6.1.192-2", "6.12.117-1", "6.12.117-1~deb12u2"].toSorted(
        compareDebianVersions
      ),
      ["6.1.192-2", "6.12.9-1", "6.12.117-1~deb12u1", "6.12.117-1~deb12u2", "6.12.117-1"]
    )
  })

  it.skipIf(!has("dpkg")).each(FastCheck.sample(FastCheck.tuple(version, version), { numRuns: 60, seed: 12 }))(
    "%s and %s: as dpkg says",
    (a, b) => assert.strictEqual(Math.sign(compareDebianVersions(a, b)), dpkg(a, b))
  )
})
