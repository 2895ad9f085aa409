import * as Either from "effect/Either"

/**
 * Debian's names of the architectures that kernels are fetched for.
 *
 * @since 0.1.0
 * @category models
 */
export type DebianArchitecture = "amd64" | "arm64"

/**
 * Which Debian package: one by its name, one by its release (`uname -r`), the newest of a series and flavour (`""` is the
 * plain one of amd64; arm64's are `arm64`, `cloud-arm64`, `rt-arm64`, `arm64-16k`), or the newest whose name or release a
 * shell pattern (`*`, `?`, `[…]`) matches.
 *
 * @since 0.1.0
 * @category models
 */
export type DebianSelector =
  | { readonly _tag: "Package"; readonly name: string }
  | { readonly _tag: "Release"; readonly release: string }
  | { readonly _tag: "Series"; readonly series: string; readonly flavour: string }
  | { readonly _tag: "Pattern"; readonly pattern: string }

const PACKAGE = /^linux-image-[a-z0-9][a-z0-9.+-]*$/
const RELEASE = /^\d+\.\d+\.\d+[a-z0-9.+-]*-(?:amd64|arm64(?:-16k)?)$/
const SERIES = /^(\d+\.\d+(?:\.\d+)?)(?:-((?:cloud|rt)(?:-arm64)?|arm64(?:-16k)?))?$/
const PATTERN = /^(?=.*[*?[])[a-z0-9.+*?[][a-z0-9.+*?[\]!-]*$/

/** Debian's architectures whose kernels are not read, at the end of a release or of a package's name. */
const OTHER_ARCHITECTURE =
  /-(armel|armhf|armmp|armmp-lpae|i386|686|686-pae|loong64|mips64el|ppc64el|powerpc64le|riscv64|s390x)(?:-unsigned)?$/

const FORMS = "write a series (6.12, 7.3-cloud, 6.18-rt, 7.3-cloud-arm64), a release (6.1.0-56-cloud-amd64), " +
  "a package (linux-image-…) or a pattern of those (6.12*-rt-amd64)"

/**
 * The selector in a text, or why it is not one and what to write.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseDebianSelector = (text: string): Either.Either<DebianSelector, string> => {
  const other = OTHER_ARCHITECTURE.exec(text)
  if (other !== null) return Either.left(`kernels for ${other[1]} are not read; name one for amd64 or arm64`)
  if (PACKAGE.test(text)) return Either.right({ _tag: "Package", name: text })
  const series = SERIES.exec(text) // 7.3.4-arm64 too: no release is without a revision
  if (series !== null) return Either.right({ _tag: "Series", series: series[1], flavour: series[2] ?? "" })
  if (RELEASE.test(text)) return Either.right({ _tag: "Release", release: text })
  return PATTERN.test(text)
    ? Either.right({ _tag: "Pattern", pattern: text })
    : Either.left(`after debian: or debian:SUITE/ ${FORMS}`)
}

/** Whether a package's name is of what the selector asks for. Debug, meta and other architectures' packages never are. */
export const selects = (selector: DebianSelector, packageName: string): boolean => {
  const release = releaseOfPackage(packageName)
  if (release === undefined) return false
  switch (selector._tag) {
    case "Package":
      return packageName === selector.name
    case "Release":
      return release === selector.release
    case "Pattern":
      return wildcard(selector.pattern, packageName) || wildcard(selector.pattern, release)
    case "Series": {
      const parts = partsOfRelease(release)
      return parts !== undefined && `${parts.version}.`.startsWith(`${selector.series}.`) &&
        parts.flavour === selector.flavour
    }
  }
}

/** Whether a shell pattern of `*`, `?` and `[…]` matches all of a text; one that a shell takes for invalid matches nothing. */
const wildcard = (pattern: string, text: string): boolean => {
  const source = pattern.replaceAll(
    /\*|\?|\[([!^]?)(\]?[^\]]*)\]|[^]/g,
    (part, not?: string, set?: string) =>
      part === "*" ? ".*" : part === "?" ? "." : set === undefined
        ? part.replace(/[\\^$.+(){}|[\]/]/, "\\$&")
        : `[${not === "" ? "" : "^"}${set.replaceAll(/[\\\]^[]/g, "\\$&")}]`
  )
  return Either.getOrElse(Either.try(() => new RegExp(`^${source}$`, "s").test(text)), () => false)
}

/** The architecture whose packages a selector asks for. */
export const architectureOf = (selector: DebianSelector): DebianArchitecture => {
  switch (selector._tag) {
    case "Package":
      return architectureOfPackage(selector.name)
    case "Release":
      return architectureOfPackage(selector.release)
    case "Pattern":
      return architectureOfPackage(selector.pattern)
    case "Series":
      return architectureOfPackage(selector.flavour)
  }
}

/** The architecture of a kernel image's package, or release. */
export const architectureOfPackage = (name: string): DebianArchitecture => /\barm64\b/.test(name) ? "arm64" : "amd64"

/** `6.1.0-56-cloud-amd64` of `linux-image-6.1.0-56-cloud-amd64-unsigned`, the same with or without the last word. */
export const releaseOfPackage = (name: string): string | undefined =>
  /^linux-image-(\d+\.\d+\.\d+[a-z0-9+.~-]*-(?:amd64|arm64(?:-16k)?))(?:-unsigned)?$/.exec(name)?.[1]

/** Version, series and flavour of a release: 7.3.4, 7.3 and cloud of `7.3.4+deb13-cloud-amd64`; cloud-arm64 of arm64's. */
export const partsOfRelease = (
  release: string
): { readonly version: string; readonly series: string; readonly flavour: string } | undefined => {
  const parts = /^((\d+\.\d+)\.\d+)[^-]*(?:-\d[^-]*)?-((?:[a-z]+-)?(?:amd64|arm64(?:-16k)?))$/.exec(release)
  return parts === null
    ? undefined
    : { version: parts[1], series: parts[2], flavour: parts[3].replace(/-?amd64$/, "") }
}

/** The selector as an error names it. */
export const describeSelector = (selector: DebianSelector): string => {
  switch (selector._tag) {
    case "Package":
      return selector.name
    case "Release":
      return `release ${selector.release}`
    case "Pattern":
      return `pattern ${selector.pattern}`
    case "Series":
      return `series ${selector.series}${selector.flavour === "" ? "" : `, flavour ${selector.flavour}`}`
  }
}
