import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { type KernelId, parseKernelId, parseKernelIds } from "../../../src/core/kernels/KernelId.ts"
import { parseKernelVersion } from "../../../src/core/kernels/KernelVersion.ts"

const version = (text: string) => parseKernelVersion(text)!

const parses = (text: string, id: KernelId) => assert.deepStrictEqual(parseKernelId(text), Either.right(id))

describe("parseKernelId", () => {
  it.each([
    "/boot/vmlinuz",
    "./bzImage",
    "../linux",
    "~/linux",
    "~",
    ".",
    "..",
    ".hidden",
    "linux/bzImage",
    " /boot/x\n"
  ])(
    "takes %j for a path",
    (text) => parses(text, { _tag: "Path", path: text.trim() })
  )

  it.each(
    [
      ["debian:6.12-cloud", { _tag: "Series", series: "6.12", flavour: "cloud" }],
      ["debian:6.12", { _tag: "Series", series: "6.12", flavour: "" }],
      ["debian:6.12.117-rt", { _tag: "Series", series: "6.12.117", flavour: "rt" }],
      ["debian:6.12.117+deb12-cloud-amd64", { _tag: "Release", release: "6.12.117+deb12-cloud-amd64" }],
      ["debian:6.1.0-56-amd64", { _tag: "Release", release: "6.1.0-56-amd64" }],
      ["debian:7.3-cloud-arm64", { _tag: "Series", series: "7.3", flavour: "cloud-arm64" }],
      ["debian:7.3-arm64", { _tag: "Series", series: "7.3", flavour: "arm64" }],
      ["debian:7.3.4-arm64-16k", { _tag: "Series", series: "7.3.4", flavour: "arm64-16k" }],
      ["debian:7.3.4+deb13-arm64-16k", { _tag: "Release", release: "7.3.4+deb13-arm64-16k" }],
      [
        "debian:linux-image-6.1.0-56-cloud-amd64-unsigned",
        { _tag: "Package", name: "linux-image-6.1.0-56-cloud-amd64-unsigned" }
      ],
      ["debian:linux-image-6.12*-rt-amd64", { _tag: "Pattern", pattern: "linux-image-6.12*-rt-amd64" }],
      ["debian:6.1?.*-amd64", { _tag: "Pattern", pattern: "6.1?.*-amd64" }],
      ["debian:[!5].*", { _tag: "Pattern", pattern: "[!5].*" }]
    ] as const
  )("takes %s for a Debian kernel", (text, selector) => parses(text, { _tag: "Debian", selector }))

  it("takes what stands before a / behind debian: for a suite, and two series for a range", () => {
    const selector = { _tag: "Series", series: "6.18", flavour: "rt" } as const
    parses("debian:trixie-backports/6.18-rt", { _tag: "Debian", selector, suite: "trixie-backports" })
    const range = { start: "6.16", end: "7.3", flavour: "cloud" }
    parses("debian:6.16-cloud..7.3-cloud", { _tag: "DebianRange", range })
    parses("debian:6.16-cloud-arm64..7.3-cloud-arm64", {
      _tag: "DebianRange",
      range: { ...range, flavour: "cloud-arm64" }
    })
    parses("debian:sid/6.9..6.10", {
      _tag: "DebianRange",
      range: { start: "6.9", end: "6.10", flavour: "" },
      suite: "sid"
    })
  })

  it.each([
    ["git+https://example.org/linux.git#v6.14", "https://example.org/linux.git", "v6.14"],
    ["git+file:///srv/linux#for-next/a", "file:///srv/linux", "for-next/a"],
    ["git+git@example.org:linux#1234567", "git@example.org:linux", "1234567"],
    ["git+https://example.org/#/linux#6.12..6.14", "https://example.org/#/linux", "6.12..6.14"]
  ])(
    "takes %s for git, the last # being the one that counts",
    (text, url, ref) => parses(text, { _tag: "Git", url, ref })
  )

  it.each([
    ["6.12..6.14", "6.12", "6.14"],
    ["6.12..=6.14", "6.12", "6.14"],
    ["6.14.2..6.14.2", "6.14.2", "6.14.2"],
    ["6.14..6.14.0", "6.14", "6.14.0"],
    ["6.15-rc1..6.15", "6.15-rc1", "6.15"]
  ])(
    "takes %s for a range",
    (text, start, end) => parses(text, { _tag: "Range", start: version(start), end: version(end) })
  )

  it.each(["6.14", "6.14.2", "6.15-rc3"])(
    "takes %s for a version",
    (text) => parses(text, { _tag: "Version", version: version(text) })
  )

  it.each([
    "6.14.2-tarball-x86_64-kc01234567",
    "v6.14-git-1234567-x86_64-kc01234567",
    "bzImage",
    "6.12-cloud",
    "debian"
  ])(
    "takes %s for a cache key",
    (text) => parses(text, { _tag: "CacheKey", key: text })
  )

  const forms =
    "write debian:[SUITE/]SERIES, RELEASE, PACKAGE or PATTERN (debian:6.12-cloud), git+URL#REF, a range (6.12..6.14), " +
    "a path (./bzImage, /boot/vmlinuz-6.12, ~/linux), a version (6.14, 6.14.2, 6.15-rc3), " +
    "or a cache key (`ktstr kernel list`)"
  const debian =
    "after debian: or debian:SUITE/ write a series (6.12, 7.3-cloud, 6.18-rt, 7.3-cloud-arm64), a release (6.1.0-56-cloud-amd64), " +
    "a package (linux-image-…) or a pattern of those (6.12*-rt-amd64)"
  const numbers = "a version has two or three numbers; write it as in 6.14, 6.14.2 or 6.15-rc3"
  const ends = "the ends of a range are versions; write it as in 6.12..6.14"
  it.each([
    ["", `it is empty; ${forms}`],
    ["two words", `not a kernel id; ${forms}`],
    ["--help", `not a kernel id; ${forms}`],
    ["6.12,6.14", `not a kernel id; ${forms}`],
    [
      "~user/linux",
      "only your own ~/ is expanded; write the directory in full, or ./~NAME for a file of that name"
    ],
    ["/boot/\0", "a path holds no NUL"],
    ["6.14..6.12", "the range ends before it starts; swap the ends: 6.12..6.14"],
    ["6.10..=6.10-rc3", "the range ends before it starts; swap the ends: 6.10-rc3..=6.10"],
    ["7.0..6.99", "the range ends before it starts; swap the ends: 6.99..7.0"],
    ["6.12..", ends],
    ["6.12...6.14", ends],
    ["6.12..6.13..6.14", ends],
    ["v6.12..v6.14", ends],
    ["6", numbers],
    ["6.14.2.1", numbers],
    ["6.14-rc", numbers],
    ["v6.14", "write 6.14 for the release, or git+URL#v6.14 for the tag of a repository"],
    ["git+https://example.org/linux", "it names no ref; write git+URL#REF"],
    ["git+#main", "the URL and the ref must not be empty; write git+URL#REF"],
    ["git+https://example.org/linux#", "the URL and the ref must not be empty; write git+URL#REF"],
    ["git+a b#c", "a URL and a ref hold no blanks; write git+URL#REF"],
    ["git+--upload-pack=x#c", "neither the URL nor the ref can start with -; write git+URL#REF"],
    ["git+a#-c", "neither the URL nor the ref can start with -; write git+URL#REF"],
    ["debian:", debian],
    ["debian:six", debian],
    ["debian:-o=x*", debian],
    ["debian:sid/six", debian],
    [
      "debian:6.12/*",
      "a suite's name is lower-case letters, digits, - and .; write it as in debian:trixie-backports/7.3-cloud"
    ],
    ["debian:6.1.0-56-s390x", "kernels for s390x are not read; name one for amd64 or arm64"],
    ["debian:linux-image-6.1.0-56-686-pae", "kernels for 686-pae are not read; name one for amd64 or arm64"],
    ["debian:6.12-arm64-64k", debian],
    ["debian:6.16..x", "the ends of a Debian range are series; write it as in debian:6.16-cloud..7.3-cloud"],
    [
      "debian:6.16-rt..7.3-cloud",
      "both ends of a Debian range are of one flavour; write it as in debian:6.16-cloud..7.3-cloud"
    ],
    ["debian:7.3-rt..6.16-rt", "the range ends before it starts; write it as in debian:6.16-cloud..7.3-cloud"]
  ])("refuses %j and says what to write", (text, why) => {
    const error = Either.getOrThrow(Either.flip(parseKernelId(text)))
    assert.strictEqual(error.message, `kernel id ${JSON.stringify(text)}: ${why}`)
  })

  it.prop(
    "never throws, and its message is one line",
    [
      FastCheck.oneof(
        FastCheck.string(),
        FastCheck.string({ unit: FastCheck.constantFrom("a", "6", ".", "#", "/", "~", "\n", "\0", " ", "[", "*") }),
        FastCheck.string({ unit: "binary" }),
        FastCheck.stringMatching(/^[v~./]?[0-9.]{0,6}(\.\.=?)?[0-9.]{0,6}(-rc)?[0-9]?$/),
        FastCheck.tuple(FastCheck.constantFrom("debian:", "git+", "6.12..", "~", "v"), FastCheck.string()).map((
          [a, b]
        ) => a + b)
      )
    ],
    ([text]) => {
      const parsed = parseKernelId(text)
      if (Either.isLeft(parsed)) assert.notInclude(parsed.left.message, "\n")
      else if (parsed.right._tag === "Version") assert.strictEqual(parsed.right.version.text, text.trim())
      else if (parsed.right._tag === "CacheKey") assert.match(parsed.right.key, /^[A-Za-z0-9_%][^/\0\s]*$/)
    }
  )
})

describe("parseKernelIds", () => {
  it("keeps order and duplicates, and skips blanks", () => {
    assert.deepStrictEqual(
      parseKernelIds(" 6.14, ,git+u#r,,./linux,6.14,"),
      Either.right<ReadonlyArray<KernelId>>([
        { _tag: "Version", version: version("6.14") },
        { _tag: "Git", url: "u", ref: "r" },
        { _tag: "Path", path: "./linux" },
        { _tag: "Version", version: version("6.14") }
      ])
    )
    assert.deepStrictEqual(parseKernelIds(" , "), Either.right([]))
  })

  it("names the first that is wrong", () => {
    const error = Either.getOrThrow(Either.flip(parseKernelIds("6.14, 6, v6")))
    assert.strictEqual(error.id, "6")
  })
})
