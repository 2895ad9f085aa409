import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  cacheKey,
  extraKconfigHash,
  gitKey,
  kconfigHash,
  keySuffix,
  localKey,
  mergeKconfig,
  parseTarballKey,
  tarballKey
} from "../../../../src/core/kernels/cache/CacheKey.ts"
import { TEST_KCONFIG } from "../../../../src/core/kernels/config/TestKconfig.ts"
import { run } from "../../samples.ts"

/** The CRC-32 that gzip writes behind its data (RFC 1952, 2.3.1). */
const gzipCrc = (text: string): string => {
  const trailer = run("gzip", ["-c"], Buffer.from(text)).subarray(-8)
  return trailer.readUInt32LE(0).toString(16).padStart(8, "0")
}

describe("kconfig hashes", () => {
  it("are the CRC-32 that gzip computes", () => {
    assert.strictEqual(kconfigHash(), gzipCrc(TEST_KCONFIG))
    for (const extra of ["", "CONFIG_X=y\n", "CONFIG_X=\"é\"\r\n", "# a comment\n"]) {
      assert.strictEqual(extraKconfigHash(extra), gzipCrc(extra))
    }
  })

  it("keep their leading zeros", () => {
    assert.strictEqual(extraKconfigHash(""), "00000000")
  })

  it("take a fragment byte for byte: comments and line endings count", () => {
    const texts = ["CONFIG_X=y", "CONFIG_X=y\n", "CONFIG_X=y\r\n", "# x\nCONFIG_X=y\n", "CONFIG_X=y \n"]
    assert.strictEqual(new Set(texts.map(extraKconfigHash)).size, texts.length)
  })
})

describe("keys", () => {
  const kc = kconfigHash()

  it("say source, architecture and kconfig, and the extra fragment where there is one", () => {
    assert.strictEqual(keySuffix(), kc)
    assert.strictEqual(keySuffix("CONFIG_X=y\n"), `${kc}-xkc${extraKconfigHash("CONFIG_X=y\n")}`)
    assert.strictEqual(keySuffix(""), `${kc}-xkc00000000`)
    assert.deepStrictEqual(tarballKey("6.14.2"), Either.right(`6.14.2-tarball-x86_64-kc${kc}`))
    assert.deepStrictEqual(tarballKey("6.15-rc3", ""), Either.right(`6.15-rc3-tarball-x86_64-kc${kc}-xkc00000000`))
    const commit = "0123456789abcdef0123456789abcdef01234567"
    assert.deepStrictEqual(gitKey("v6.14", commit), Either.right(`v6.14-git-0123456-x86_64-kc${kc}`))
    assert.deepStrictEqual(localKey(commit, undefined), Either.right(`local-0123456-x86_64-kc${kc}`))
    assert.deepStrictEqual(
      localKey(commit, "89abcdef", ""),
      Either.right(`local-0123456-x86_64-cfg89abcdef-kc${kc}-xkc00000000`)
    )
  })

  it("of a tarball tell the version, and whether the kconfig is that of now", () => {
    const version = (key: Either.Either<string, unknown>) => parseTarballKey(Either.getOrThrow(key))
    assert.deepStrictEqual(version(tarballKey("6.14.2")), { version: "6.14.2", current: true })
    assert.deepStrictEqual(version(tarballKey("6.14.2", "x")), { version: "6.14.2", current: false })
    assert.deepStrictEqual(parseTarballKey("6.14-tarball-x86_64-kc00000000"), { version: "6.14", current: false })
    assert.isUndefined(version(gitKey("v6.14", "0123456")))
    assert.isUndefined(version(localKey("0123456", undefined)))
    assert.isUndefined(parseTarballKey(`6.14-tarball-aarch64-kc${kc}`))
    assert.isUndefined(parseTarballKey(`6.14-tarball-x86_64-kc${kc}-more`))
  })

  it("of refs that differ differ, and name a directory that shows in a listing", () => {
    const root = mkdtempSync(join(tmpdir(), "ktstr-keys-"))
    try {
      const refs = ["a/b", "a%2Fb", "a%b", "a_b", "a-b", "-x", ".hidden", "..", "/", "é", "e\u0301", "a b", "a\n", "*"]
      for (const ref of refs) mkdirSync(join(root, Either.getOrThrow(gitKey(ref, "0123456"))))
      const names = readdirSync(root)
      assert.strictEqual(names.length, refs.length)
      assert.isTrue(names.every((name) => !name.startsWith(".") && !name.startsWith("-")))
      assert.include(names, `a%2Fb-git-0123456-x86_64-kc${kc}`)
    } finally {
      rmSync(root, { recursive: true })
    }
  })

  it.prop(
    "of hostile refs differ as the refs do, or are refused",
    [FastCheck.string({ minLength: 1 }), FastCheck.string({ minLength: 1 })],
    ([a, b]) => {
      const [left, right] = [gitKey(a, "0123456"), gitKey(b, "0123456")]
      if (Either.isRight(left) && Either.isRight(right)) {
        // not every string is Unicode: lone surrogates are all written as U+FFFD
        assert.strictEqual(left.right === right.right, Buffer.from(a).equals(Buffer.from(b)))
        assert.isTrue(Either.isRight(cacheKey(left.right)))
      } else {
        assert.isAbove(Math.max(Buffer.byteLength(a), Buffer.byteLength(b)) * 3, 150)
      }
    }
  )

  it.each(["", ".", "..", ".hidden", "-rf", "a/b", "a\0b", "a b", "a\nb", "é", "$(x)", "a".repeat(201)])(
    "are refused where they are no safe names: %j",
    (text) => {
      const error = Either.getOrThrow(Either.flip(cacheKey(text)))
      assert.match(error.message, /^cache key ".*": .+; `ktstr kernel list` shows the existing keys$/)
    }
  )

  it("of hostile parts are refused", () => {
    assert.isTrue(Either.isLeft(tarballKey("../6.14")))
    assert.isTrue(Either.isLeft(localKey("0123456", "../..")))
    assert.isTrue(Either.isLeft(gitKey("r".repeat(200), "0123456")))
  })
})

describe("mergeKconfig", () => {
  it("puts a newline between the two, whatever they end and start with", () => {
    assert.strictEqual(mergeKconfig("CONFIG_A=y"), "CONFIG_A=y")
    assert.strictEqual(mergeKconfig("CONFIG_A=y", "CONFIG_B=y"), "CONFIG_A=y\nCONFIG_B=y")
    assert.strictEqual(mergeKconfig("CONFIG_A=y\n", ""), "CONFIG_A=y\n\n")
  })
})
