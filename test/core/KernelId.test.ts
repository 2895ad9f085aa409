import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { parseKernelId } from "../../src/core/KernelId.ts"

describe("parseKernelId", () => {
  it.each(["/boot/vmlinuz", "./bzImage", "../linux", "~/linux", "~", ".", "..", " /boot/vmlinuz\n"])(
    "takes %j for a path",
    (text) => assert.deepStrictEqual(parseKernelId(text), Either.right({ _tag: "Path" as const, path: text.trim() }))
  )

  it.each(
    [
      ["debian:6.12-cloud", { _tag: "Series", series: "6.12", flavour: "cloud" }],
      ["debian:6.12", { _tag: "Series", series: "6.12", flavour: "" }],
      ["debian:6.12.117-rt", { _tag: "Series", series: "6.12.117", flavour: "rt" }],
      ["debian:6.12.117+deb12-cloud-amd64", { _tag: "Release", release: "6.12.117+deb12-cloud-amd64" }],
      ["debian:6.1.0-56-amd64", { _tag: "Release", release: "6.1.0-56-amd64" }],
      [
        "debian:linux-image-6.1.0-56-cloud-amd64-unsigned",
        { _tag: "Package", name: "linux-image-6.1.0-56-cloud-amd64-unsigned" }
      ]
    ] as const
  )("takes %s for a Debian kernel", (text, selector) => {
    assert.deepStrictEqual(parseKernelId(text), Either.right({ _tag: "Debian" as const, selector }))
  })

  const forms = "write debian:SERIES, RELEASE or PACKAGE (debian:6.12-cloud), " +
    "or a path (./bzImage, /boot/vmlinuz-6.12, ~/linux)"
  it.each([
    ["", "it is empty"],
    ["6.12", "this is no form of id that is known"],
    ["git+https://example.org/linux#main", "this is no form of id that is known"],
    ["bzImage", "this is no form of id that is known"],
    ["~user/linux", "this is no form of id that is known"],
    ["/boot/\0", "a path holds no NUL"],
    ["debian:", "this is no series (6.12, 6.12-cloud), release (6.1.0-56-cloud-amd64) or package (linux-image-…)"],
    ["debian:six", "this is no series (6.12, 6.12-cloud), release (6.1.0-56-cloud-amd64) or package (linux-image-…)"],
    ["debian:-o=x", "this is no series (6.12, 6.12-cloud), release (6.1.0-56-cloud-amd64) or package (linux-image-…)"]
  ])("refuses %j and says which forms there are", (text, why) => {
    const parsed = parseKernelId(text)
    assert.isTrue(Either.isLeft(parsed))
    if (Either.isLeft(parsed)) assert.strictEqual(parsed.left.message, `kernel id "${text}": ${why}; ${forms}`)
  })
})
