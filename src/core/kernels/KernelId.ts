import * as Either from "effect/Either"
import { KernelIdInvalid } from "../Errors.ts"
import { cacheKey } from "./cache/CacheKey.ts"
import { type DebianRange } from "./debian/DebianRange.ts"
import { type DebianSelector, parseDebianSelector } from "./debian/DebianSelector.ts"
import { isSuiteName } from "./debian/DebianSuites.ts"
import { compareKernelVersions, type KernelVersion, parseKernelVersion } from "./KernelVersion.ts"

/**
 * Which kernel is meant:
 * - `Debian`: a kernel image package of Debian, of the first suite that has it or of `suite`
 * - `DebianRange`: the newest kernel of each of Debian's series from one to another
 * - `Git`: a ref (branch, tag or commit) of a repository
 * - `Range`: the newest release from `start` to `end`, both included
 * - `Path`: a kernel image, a vmlinux, or a directory that holds one; `~` is not yet expanded
 * - `Version`: a release of kernel.org, or the newest of a series
 * - `CacheKey`: an entry of the cache, whatever it holds
 *
 * @since 0.1.0
 * @category models
 */
export type KernelId =
  | { readonly _tag: "Debian"; readonly selector: DebianSelector; readonly suite?: string }
  | { readonly _tag: "DebianRange"; readonly range: DebianRange; readonly suite?: string }
  | { readonly _tag: "Git"; readonly url: string; readonly ref: string }
  | { readonly _tag: "Range"; readonly start: KernelVersion; readonly end: KernelVersion }
  | { readonly _tag: "Path"; readonly path: string }
  | { readonly _tag: "Version"; readonly version: KernelVersion }
  | { readonly _tag: "CacheKey"; readonly key: string }

/** One way to write an id. The first form that recognises a text decides: its parser's answer is final. */
interface Form {
  readonly example: string
  readonly recognises: (id: string) => boolean
  /** The id, or what is wrong with it and how to fix it. */
  readonly parse: (id: string) => KernelId | string
}

const DEBIAN = "debian:"

/** The part after `debian:`: `SELECTOR`, `SUITE/SELECTOR`, or a range `SERIES-FLAVOUR..SERIES-FLAVOUR`. */
const parseDebian = (text: string): KernelId | string => {
  const slash = text.indexOf("/")
  const suite = slash < 0 ? undefined : text.slice(0, slash)
  const rest = text.slice(slash + 1)
  if (suite !== undefined && !isSuiteName(suite)) {
    return "a suite's name is lower-case letters, digits, - and .; write it as in debian:trixie-backports/7.3-cloud"
  }
  const pin = suite === undefined ? {} : { suite }
  if (rest.includes("..")) {
    const range = parseDebianRange(rest)
    return typeof range === "string" ? range : { _tag: "DebianRange", range, ...pin }
  }
  return Either.match(parseDebianSelector(rest), {
    onLeft: (why): KernelId | string => why,
    onRight: (selector) => ({ _tag: "Debian", selector, ...pin })
  })
}

const SERIES_END = /^(\d+)\.(\d+)(?:-((?:cloud|rt)(?:-arm64)?|arm64(?:-16k)?))?$/

const parseDebianRange = (text: string): DebianRange | string => {
  const [from, to] = text.split("..").map((end) => SERIES_END.exec(end))
  const written = "write it as in debian:6.16-cloud..7.3-cloud"
  if (!from || !to) return `the ends of a Debian range are series; ${written}`
  if (from[3] !== to[3]) return `both ends of a Debian range are of one flavour; ${written}`
  if (Number(from[1]) - Number(to[1]) > 0 || (from[1] === to[1] && Number(from[2]) > Number(to[2]))) {
    return `the range ends before it starts; ${written}`
  }
  return { start: `${from[1]}.${from[2]}`, end: `${to[1]}.${to[2]}`, flavour: from[3] ?? "" }
}

const GIT = "git+"

const parseGit = (id: string): KernelId | string => {
  const hash = id.lastIndexOf("#")
  if (hash < 0) return "it names no ref; write git+URL#REF"
  const [url, ref] = [id.slice(GIT.length, hash), id.slice(hash + 1)]
  if (url === "" || ref === "") return "the URL and the ref must not be empty; write git+URL#REF"
  if (/[\s\0]/.test(url + ref)) return "a URL and a ref hold no blanks; write git+URL#REF"
  // git would take it for an option
  if (url.startsWith("-") || ref.startsWith("-")) {
    return "neither the URL nor the ref can start with -; write git+URL#REF"
  }
  return { _tag: "Git", url, ref }
}

const parseRange = (id: string): KernelId | string => {
  const [, from, separator, to] = /^(.*?)(\.\.=?)(.*)$/s.exec(id) ?? []
  const [start, end] = [parseKernelVersion(from), parseKernelVersion(to)]
  if (start === undefined || end === undefined) return "the ends of a range are versions; write it as in 6.12..6.14"
  return compareKernelVersions(start, end) > 0
    ? `the range ends before it starts; swap the ends: ${to}${separator}${from}`
    : { _tag: "Range", start, end }
}

const parseVersion = (id: string): KernelId | string => {
  const version = parseKernelVersion(id)
  if (version !== undefined) return { _tag: "Version", version }
  return id.startsWith("v") && parseKernelVersion(id.slice(1)) !== undefined
    ? `write ${id.slice(1)} for the release, or git+URL#${id} for the tag of a repository`
    : "a version has two or three numbers; write it as in 6.14, 6.14.2 or 6.15-rc3"
}

const forms: ReadonlyArray<Form> = [
  {
    example: "debian:[SUITE/]SERIES, RELEASE, PACKAGE or PATTERN (debian:6.12-cloud)",
    recognises: (id) => id.startsWith(DEBIAN),
    parse: (id) => parseDebian(id.slice(DEBIAN.length))
  },
  {
    example: "git+URL#REF",
    recognises: (id) => id.startsWith(GIT),
    parse: parseGit
  },
  {
    example: "a range (6.12..6.14)",
    recognises: (id) => /^v?\d[^/]*\.\./.test(id),
    parse: parseRange
  },
  {
    example: "a path (./bzImage, /boot/vmlinuz-6.12, ~/linux)",
    recognises: (id) => /^[.~]|\//.test(id),
    parse: (path) => {
      if (path.includes("\0")) return "a path holds no NUL"
      return /^~[^/]/.test(path)
        ? "only your own ~/ is expanded; write the directory in full, or ./~NAME for a file of that name"
        : { _tag: "Path", path }
    }
  },
  {
    example: "a version (6.14, 6.14.2, 6.15-rc3)",
    recognises: (id) => /^v?\d+(\.\d*)*(-rc\d*)?$/.test(id),
    parse: parseVersion
  },
  {
    example: "a cache key (`ktstr kernel list`)",
    recognises: (id) => id !== "",
    parse: (id) =>
      Either.match(cacheKey(id), {
        onLeft: () => `not a kernel id; write ${examples()}`,
        onRight: (key) => ({ _tag: "CacheKey" as const, key })
      })
  }
]

const examples = (): string => {
  const all = forms.map((form) => form.example)
  return `${all.slice(0, -1).join(", ")}, or ${all.at(-1)}`
}

/**
 * Parse one kernel id; see `KernelId` for the forms. Blanks around it are ignored.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseKernelId = (text: string): Either.Either<KernelId, KernelIdInvalid> => {
  const id = text.trim()
  const parsed = forms.find((form) => form.recognises(id))?.parse(id) ?? `it is empty; write ${examples()}`
  return typeof parsed === "string"
    ? Either.left(new KernelIdInvalid({ given: "kernel id", id, why: parsed }))
    : Either.right(parsed)
}

/**
 * Parse ids with commas between them, in order and with their duplicates; blank ones are skipped. The first bad one fails.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseKernelIds = (text: string): Either.Either<ReadonlyArray<KernelId>, KernelIdInvalid> =>
  Either.all(text.split(",").filter((id) => id.trim() !== "").map(parseKernelId))
