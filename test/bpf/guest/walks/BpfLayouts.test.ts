import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { bpfLayouts } from "../../../../src/bpf/guest/walks/BpfLayouts.ts"
import { Btf } from "../../../../src/btf/Btf.ts"
import { BlobWriter } from "../../../btf/BlobWriter.ts"
import { MadeMaps } from "../MadeMaps.ts"

describe("the layouts of BPF structs", () => {
  it("are those of the kernel's BTF", () => {
    const { btf } = new MadeMaps().kernel
    const layouts = Either.getOrThrow(bpfLayouts(btf))
    assert.strictEqual(layouts.map.size, 72)
    const hash = Either.getOrThrow(layouts.hash)
    assert.deepInclude(hash.table.at, { buckets: 72, n_buckets: 80 })
    assert.strictEqual(hash.element.at.key, 48)
    assert.isTrue(Either.isRight(layouts.program))
  })

  it("without struct bpf_map are none", () => {
    const blob = new BlobWriter()
    const btf = Either.getOrThrow(Btf.parse(blob.bytes(), { subject: "made" }))
    const layouts = bpfLayouts(btf)
    assert.include(Either.isLeft(layouts) ? layouts.left.message : "", "bpf_map")
  })
})
