import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Schema from "effect/Schema"
import { KernelMetadata, KernelMetadataJson } from "../../../../src/core/kernels/cache/KernelMetadata.ts"

const metadata = new KernelMetadata({
  format: 1,
  source: { kind: "git", url: "https://example.org/linux.git", ref: "for-next", commit: "0123456789abcdef" },
  release: "6.99.0-rc1",
  arch: "x86_64",
  image: { name: "bzImage", bytes: 1, sha256: "0".repeat(64) },
  vmlinux: { name: "vmlinux", bytes: 2, sha256: "f".repeat(64) },
  config: "config",
  kconfigHash: "01234567",
  extraKconfigHash: null,
  storedAt: "2026-01-02T03:04:05.678Z"
})

describe("KernelMetadata", () => {
  it.prop("are the same after a round through JSON", [Arbitrary.make(KernelMetadata)], ([any]) => {
    const json = Schema.encodeSync(KernelMetadataJson)(any)
    assert.deepStrictEqual(Schema.decodeSync(KernelMetadataJson)(json), any)
  }, { fastCheck: { numRuns: 50 } })

  it("name no file outside of the entry", () => {
    for (const name of ["../vmlinux", "/boot/vmlinuz", "a/b", "..", ".config", "", "a\0", "a\n"]) {
      for (
        const change of [{ config: name }, { image: { ...metadata.image, name } }, {
          vmlinux: { ...metadata.image, name }
        }]
      ) {
        assert.isTrue(Either.isLeft(Schema.decodeUnknownEither(KernelMetadata)({ ...metadata, ...change })), name)
      }
    }
  })

  it("hold no other hash, size, time or format than what they say", () => {
    const wrong = [
      { format: 2 },
      { arch: "riscv64" },
      { kconfigHash: "0123456" },
      { extraKconfigHash: "0123456G" },
      { image: { ...metadata.image, bytes: -1 } },
      { image: { ...metadata.image, bytes: 1.5 } },
      { image: { ...metadata.image, sha256: "0".repeat(63) } },
      { storedAt: "yesterday" },
      { storedAt: "2026-01-02T03:04:05+01:00" },
      { release: "" },
      { source: { kind: "tarball", version: "6.99" } }
    ]
    for (const change of wrong) {
      assert.isTrue(
        Either.isLeft(Schema.decodeUnknownEither(KernelMetadata)({ ...metadata, ...change })),
        JSON.stringify(change)
      )
    }
  })

  it.prop("are decoded from any JSON or refused", [FastCheck.json()], ([json]) => {
    assert.isTrue(Either.isLeft(Schema.decodeEither(KernelMetadataJson)(json)))
  })
})
