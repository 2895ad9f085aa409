import * as Either from "effect/Either"
import { crc32 } from "node:zlib"
import { KernelIdInvalid } from "../../Errors.ts"
import { TEST_KCONFIG } from "../config/TestKconfig.ts"

const HINT = "`ktstr kernel list` shows the existing keys"
const ARCH = "x86_64"
/** A file name has at most 255 bytes (NAME_MAX, include/uapi/linux/limits.h); the cache needs some for `.lock` and such. */
const MAX_KEY = 200

/**
 * The text, if it can name a directory in the cache and is safe in a shell and in a path.
 *
 * @since 0.1.0
 * @category naming
 */
export const cacheKey = (text: string): Either.Either<string, KernelIdInvalid> => {
  const refused = (why: string) =>
    Either.left(new KernelIdInvalid({ given: "cache key", id: text, why: `${why}; ${HINT}` }))
  if (text.length > MAX_KEY) return refused(`it is longer than ${MAX_KEY} characters`)
  return /^[A-Za-z0-9_%][A-Za-z0-9_.+:~%-]*$/.test(text)
    ? Either.right(text)
    : refused("a key is made of letters, digits and _.+:~%-, and does not start with any of .+:~-")
}

/** CRC-32 (the zip polynomial) of the text's UTF-8 bytes, 8 lower-case hex digits. */
const crc = (text: string): string => crc32(text).toString(16).padStart(8, "0")

/**
 * CRC-32 of `TEST_KCONFIG`, 8 hex digits: an entry built with another fragment is stale.
 *
 * @since 0.1.0
 * @category naming
 */
export const kconfigHash = (): string => crc(TEST_KCONFIG)

/**
 * CRC-32 of a user's extra kconfig fragment, 8 hex digits. Comments and line endings count: it is taken byte for byte.
 *
 * @since 0.1.0
 * @category naming
 */
export const extraKconfigHash = (extra: string): string => crc(extra)

/**
 * The part after `-kc` in a key: the hash of our fragment, and `-xkc` with that of the user's, if any.
 *
 * @since 0.1.0
 * @category naming
 */
export const keySuffix = (extra?: string): string =>
  extra === undefined ? kconfigHash() : `${kconfigHash()}-xkc${extraKconfigHash(extra)}`

/**
 * `6.14.2-tarball-x86_64-kc89abcdef`: a release's sources. `version` names one release, as in the tarball's name.
 *
 * @since 0.1.0
 * @category naming
 */
export const tarballKey = (version: string, extra?: string): Either.Either<string, KernelIdInvalid> =>
  cacheKey(`${version}${tarballEnd(extra)}`)

/**
 * The facts in a tarball's key: the version, and whether it was built with the current kconfig, without an extra
 * fragment.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseTarballKey = (key: string): { readonly version: string; readonly current: boolean } | undefined => {
  const version = /^(.+)-tarball-x86_64-kc[0-9a-f]{8}(?:-xkc[0-9a-f]{8})?$/.exec(key)?.[1]
  return version === undefined ? undefined : { version, current: key.endsWith(tarballEnd()) }
}

const tarballEnd = (extra?: string): string => `-tarball-${ARCH}-kc${keySuffix(extra)}`

/**
 * `for-next-git-1234567-x86_64-kc89abcdef`: a commit of a repository. What a file name cannot hold of `ref`, and `%`, is
 * written `%2F`, so different refs give different keys.
 *
 * @since 0.1.0
 * @category naming
 */
export const gitKey = (ref: string, commit: string, extra?: string): Either.Either<string, KernelIdInvalid> =>
  cacheKey(`${fileName(ref)}-git-${commit.slice(0, 7)}-${ARCH}-kc${keySuffix(extra)}`)

/**
 * `local-1234567-x86_64-cfg01234567-kc89abcdef`: a clean tree of the user.
 * @param configCrc CRC-32 of the tree's own `.config`, 8 hex digits, where the build started from one
 * @since 0.1.0
 * @category naming
 */
export const localKey = (
  commit: string,
  configCrc: string | undefined,
  extra?: string
): Either.Either<string, KernelIdInvalid> =>
  cacheKey(
    `local-${commit.slice(0, 7)}-${ARCH}${configCrc === undefined ? "" : `-cfg${configCrc}`}-kc${keySuffix(extra)}`
  )

/**
 * A kconfig fragment with the user's after it: of an option that is given twice the last value counts
 * (scripts/kconfig/confdata.c conf_read_simple, v6.12). A newline between them keeps their lines apart, whether or not
 * the first ends in one.
 *
 * @since 0.1.0
 * @category writing
 */
export const mergeKconfig = (base: string, extra?: string): string => extra === undefined ? base : `${base}\n${extra}`

/** Percent-encoded UTF-8; a leading dot too, which would hide the entry. */
const fileName = (text: string): string =>
  Array.from(Buffer.from(text), (byte, at) => {
    const character = String.fromCharCode(byte)
    return /[A-Za-z0-9_.+-]/.test(character) && !(at === 0 && /[.+-]/.test(character))
      ? character
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`
  }).join("")
