import { assert, describe, it } from "@effect/vitest"
import { gzipSync } from "node:zlib"
import { FormatError } from "../../../../src/core/FormatError.ts"
import { ikconfigOf } from "../../../../src/core/kernels/config/Ikconfig.ts"

const CONFIG = "CONFIG_64BIT=y\n# CONFIG_DRM is not set\n"
const kernel = (...parts: ReadonlyArray<Uint8Array | string>) => Buffer.concat(parts.map((part) => Buffer.from(part)))

describe("ikconfigOf", () => {
  it("finds the stream behind the mark that has one", () => {
    const bytes = kernel("xx IKCFG_ST is the mark", "IKCFG_ST", gzipSync(CONFIG), "IKCFG_ED", "more")
    assert.strictEqual(ikconfigOf(bytes, "made"), CONFIG)
    assert.isUndefined(ikconfigOf(kernel("IKCFG_ST nothing"), "made"))
  })

  it("refuses a damaged stream, a cut one and one that never ends, with the place", () => {
    const stream = gzipSync(CONFIG)
    const cut = kernel("IKCFG_ST", stream.subarray(0, 20))
    const damaged = kernel("..IKCFG_ST", stream.subarray(0, 12), Buffer.alloc(8, 0xff), "IKCFG_ED")
    const bomb = kernel("IKCFG_ST", gzipSync(Buffer.alloc(2 ** 25)), "IKCFG_ED")
    for (const bytes of [cut, damaged, bomb]) assert.throws(() => ikconfigOf(bytes, "made"), FormatError)
    assert.throws(() => ikconfigOf(damaged, "made"), "made: kernel image at byte 10: expected a gzip stream")
  })
})
