import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { type CacheError, cacheRoot } from "../../CacheDir.ts"
import type { LockTimeout } from "../../EntryLock.ts"
import { type FetchFailed, type HostLacks, KernelNotFound } from "../../Errors.ts"
import type { Native } from "../../Native.ts"
import { aptOf, type AptState, openAptState, refreshAptState } from "./AptState.ts"
import {
  architectureOf,
  type DebianArchitecture,
  type DebianSelector,
  describeSelector,
  partsOfRelease,
  releaseOfPackage,
  selects
} from "./DebianSelector.ts"
import { type DebianHost, debianHost, suitesOf } from "./DebianSuites.ts"
import { compareDebianVersions } from "./DebianVersion.ts"

/**
 * A kernel that a suite offers.
 *
 * @since 0.1.0
 * @category models
 */
export interface DebianPackage {
  readonly suite: string
  /** `linux-image-…` */
  readonly name: string
  readonly version: string
  /** `uname -r` of it. */
  readonly release: string
  /**
   * The packages that hold its files. Since 6.19 the image package only depends on others: `linux-binary-` has vmlinuz,
   * `linux-base-` the config, `linux-modules-` the modules; before, it has all of them itself.
   */
  readonly parts: ReadonlyArray<string>
  /** Packages of that kind that the suite does not offer: without `linux-modules-` the kernel has no modules. */
  readonly missing: ReadonlyArray<string>
  /** The download size of `parts` together, in bytes. */
  readonly bytes: number
}

/**
 * All that reading Debian's package lists can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type PackageListError = CacheError | LockTimeout | HostLacks | FetchFailed

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native

const CLOSE_NAMES = 3
const DAY = 24 * 60 * 60 * 1000

/**
 * The newest kernel that a selector asks for, of the first suite that has one: of `suite`, or in the order of `suitesOf`.
 * Lists older than a day are brought up to date, and all of them where none of them has it. Where that cannot be done,
 * those of before are used, with a warning that says how old they are.
 * @param lists `newest`: bring them up to date in any case, as one does where a package has left the mirror
 * @param gone packages not to choose, as `NAME=VERSION`: those that the mirror lists and does not have
 * @since 0.1.0
 * @category reading
 */
export const findPackage = Effect.fn("DebianPackages.findPackage")(
  function*(
    selector: DebianSelector,
    suite: string | undefined,
    lists: "recent" | "newest",
    gone: ReadonlyArray<string> = []
  ): Effect.fn.Return<DebianPackage, PackageListError | KernelNotFound, Host> {
    const reader = yield* makeReader(suite, architectureOf(selector))
    const close: Array<string> = []
    for (const wanted of lists === "newest" ? ["newest"] as const : ["recent", "newest"] as const) {
      close.length = 0
      if (wanted === "newest") yield* openAll(reader, wanted)
      for (const name of reader.suites) {
        const state = yield* reader.open(name, wanted)
        if (state === undefined) continue
        const images = yield* imageNames(state)
        const found = yield* newest(state, images.filter((image) => selects(selector, image)), gone)
        if (found !== undefined) return found
        close.push(...images)
      }
    }
    return yield* missing(reader, selector, close)
  }
)

/**
 * The newest kernel of each series that a suite has, by the same rules, out of all suites; see `findPackage`.
 *
 * @since 0.1.0
 * @category reading
 */
export const listPackages = Effect.fn("DebianPackages.listPackages")(
  function*(
    suite: string | undefined,
    matches: (name: string) => boolean,
    architecture: DebianArchitecture = "amd64"
  ): Effect.fn.Return<ReadonlyArray<DebianPackage>, PackageListError, Host> {
    const reader = yield* makeReader(suite, architecture)
    const found: Array<DebianPackage> = []
    yield* openAll(reader, "recent")
    for (const name of reader.suites) {
      const state = yield* reader.open(name, "recent")
      if (state === undefined) continue
      found.push(...yield* describePackages(state, (yield* imageNames(state)).filter(matches)))
    }
    if (found.length === 0 && reader.failures.length > 0) return yield* Effect.fail(reader.failures[0])
    for (const { message } of reader.failures) yield* Effect.logWarning(message)
    return found
  }
)

/** Opens suites one after the other, and remembers which could not be read. */
interface Reader {
  readonly suites: ReadonlyArray<string>
  readonly failures: ReadonlyArray<FetchFailed | HostLacks>
  /** Suites without any lists. */
  readonly unread: ReadonlySet<string>
  /** None where there are no lists, neither of now nor of before. */
  readonly open: (
    suite: string,
    lists: "recent" | "newest"
  ) => Effect.Effect<AptState | undefined, CacheError | LockTimeout, Host>
}

const makeReader = (
  pinned: string | undefined,
  architecture: DebianArchitecture
): Effect.Effect<Reader, CacheError | HostLacks, Host> =>
  Effect.gen(function*() {
    const root = yield* cacheRoot
    const host: DebianHost = yield* debianHost
    const failures: Array<FetchFailed | HostLacks> = []
    const done = new Set<string>()
    const unread = new Set<string>()
    let reachable = true
    const open: Reader["open"] = (suite, lists) =>
      Effect.gen(function*() {
        const state = yield* openAptState(root, host, suite, architecture)
        const had = state.refreshedAt === undefined ? undefined : state
        const age = (yield* Clock.currentTimeMillis) - (state.refreshedAt ?? 0)
        if (done.has(suite) || (had !== undefined && lists === "recent" && age < DAY)) return had
        done.add(suite)
        // one attempt says whether there is a network: each costs its time-out
        if (reachable) {
          const tried = yield* tryRefresh(state)
          if (!("failure" in tried)) return tried
          failures.push(tried.failure)
          reachable = tried.failure._tag !== "FetchFailed" || tried.failure.reason !== "unreachable"
        }
        if (had === undefined) {
          unread.add(suite)
          return undefined
        }
        const why = failures.at(-1)?.message
        yield* Effect.logWarning(`${why}; using the lists of ${suite} that were downloaded ${describeAge(age)} ago`)
        return had
      })
    return { suites: pinned === undefined ? suitesOf(host) : [pinned], failures, unread, open }
  })

/** Bring the lists of all suites up to date, the first alone: it says whether there is a network. */
const openAll = ({ open, suites }: Reader, lists: "recent" | "newest") =>
  Effect.zipRight(
    Effect.forEach(suites.slice(0, 1), (suite) => open(suite, lists), { discard: true }),
    Effect.forEach(suites.slice(1), (suite) => open(suite, lists), { discard: true, concurrency: 4 })
  )

/** Of what can go wrong here, only that the cache cannot be used concerns other suites too. */
const tryRefresh = (state: AptState) =>
  refreshAptState(state).pipe(
    Effect.catchTags({
      FetchFailed: (failure) => Effect.succeed({ failure }),
      HostLacks: (failure) => Effect.succeed({ failure })
    })
  )

const describeAge = (millis: number): string => {
  const hours = Math.round(millis / 3_600_000)
  return hours < 1 ? "less than an hour" : hours < 48 ? `${hours} hours` : `${Math.round(hours / 24)} days`
}

const missing = (
  { failures, suites, unread }: Reader,
  selector: DebianSelector,
  images: ReadonlyArray<string>
): Effect.Effect<never, FetchFailed | HostLacks | KernelNotFound> =>
  images.length === 0 && failures.length > 0
    ? Effect.fail(failures[0])
    : Effect.suspend(() => {
      const close = closest(images, selector)
      const offered = close.length === 0
        ? "they have no kernel image package at all"
        : `the closest are ${close.join(", ")}`
      const skipped = unread.size === 0 ? "" : ` (without the lists of ${Array.from(unread).join(", ")})`
      return new KernelNotFound({
        where: "debian",
        kernel: describeSelector(selector),
        why: `no such package in Debian's ${suites.join(", ")}${skipped}`,
        hint: `${offered}; ask for one of those`,
        close
      })
    })

const imageNames = (state: AptState) =>
  Effect.map(
    aptOf(state, "apt-cache", ["pkgnames", "linux-image-"]),
    ({ stdout }) => stdout.split("\n").filter((name) => releaseOfPackage(name) !== undefined)
  )

/** The newest of these packages. The same kernel comes signed and unsigned: unsigned ones are built for more of them. */
const newest = (state: AptState, names: ReadonlyArray<string>, gone: ReadonlyArray<string>) =>
  Effect.map(
    describePackages(state, names),
    (packages) =>
      packages.filter(({ name, version }) => !gone.includes(`${name}=${version}`)).toSorted((a, b) =>
        compareDebianVersions(b.version, a.version) ||
        Number(b.name.endsWith("-unsigned")) - Number(a.name.endsWith("-unsigned"))
      ).at(0)
  )

/** The entries of these packages in the lists. A name may be known only because another package mentions it. */
const describePackages = (
  state: AptState,
  names: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<DebianPackage>, CacheError | LockTimeout | HostLacks, Host> =>
  Effect.gen(function*() {
    const images = yield* stanzasOf(state, names)
    const wanted = new Map(images.map((image) => [image.name, partsOf(image)]))
    const others = yield* stanzasOf(state, Array.from(wanted.values()).flat())
    const sizes = new Map([...images, ...others].map(({ bytes, name, version }) => [`${name}=${version}`, bytes]))
    return images.flatMap(({ name, version }): ReadonlyArray<DebianPackage> => {
      const sizeOf = (part: string): number | undefined => sizes.get(`${part}=${version}`)
      const all = wanted.get(name) ?? [name]
      const parts = all.filter((part) => sizeOf(part) !== undefined)
      // the image itself may have left the suite before the package that depends on it
      return parts.some((part) => part === name || part.startsWith("linux-binary-"))
        ? [{
          suite: state.suite,
          name,
          version,
          release: releaseOfPackage(name) ?? name,
          parts,
          missing: all.filter((part) => sizeOf(part) === undefined),
          bytes: parts.reduce((sum, part) => sum + (sizeOf(part) ?? 0), 0)
        }]
        : []
    })
  })

interface Stanza {
  readonly name: string
  readonly version: string
  readonly depends: string
  readonly bytes: number
}

/**
 * The forms of Debian Policy 5.6.1 and 5.6.12, at lengths that a file's name may have, since they become one: what has another
 * is not a package.
 */
const [NAME, VERSION] = [/^[a-z0-9][a-z0-9+.-]{1,120}$/, /^\d[A-Za-z0-9.+~:-]{0,80}$/]
const SIZE = /^\d{1,12}$/

const stanzasOf = (state: AptState, names: ReadonlyArray<string>) =>
  names.length === 0
    ? Effect.succeed<ReadonlyArray<Stanza>>([])
    : Effect.map(
      aptOf(state, "apt-cache", ["show", "--no-all-versions", ...names]),
      ({ stdout }): ReadonlyArray<Stanza> =>
        stdout.split(/\n\n+/).flatMap((stanza) => {
          const field = (name: string) => new RegExp(`^${name}: (.+)$`, "m").exec(stanza)?.[1] ?? ""
          const [name, version, bytes] = [field("Package"), field("Version"), field("Size")]
          return !NAME.test(name) || !VERSION.test(version) || !SIZE.test(bytes)
            ? []
            : [{ name, version, depends: field("Depends"), bytes: Number(bytes) }]
        })
    )

/** The packages with its files that an image package depends on, in its own version; itself where there are none. */
const partsOf = ({ depends, name, version }: Stanza): ReadonlyArray<string> => {
  const parts = depends.split(/,\s*/).flatMap((dependency) => {
    const [, part, exactly] = /^(linux-(?:binary|base|modules)-[a-z0-9.+-]+) \(= (\S+)\)$/.exec(dependency) ?? []
    return part !== undefined && exactly === version ? [part] : []
  })
  return parts.some((part) => part.startsWith("linux-binary-")) ? parts : [name]
}

/** The names that are most like what was asked for: of its flavour, with the longest start in common, then the newest. */
const closest = (names: ReadonlyArray<string>, selector: DebianSelector): ReadonlyArray<string> => {
  const wanted = packageLike(selector)
  const shared = (name: string): number => {
    let length = 0
    while (length < name.length && name[length] === wanted[length]) length++
    return length
  }
  const flavour = (name: string): number =>
    selector._tag === "Series" && partsOfRelease(releaseOfPackage(name) ?? "")?.flavour === selector.flavour ? 1 : 0
  return Array.from(new Set(names.map((name) => name.replace(/-unsigned$/, ""))))
    .toSorted((a, b) => flavour(b) - flavour(a) || shared(b) - shared(a) || compareDebianVersions(b, a))
    .slice(0, CLOSE_NAMES)
}

const packageLike = (selector: DebianSelector): string => {
  switch (selector._tag) {
    case "Package":
      return selector.name
    case "Release":
      return `linux-image-${selector.release}`
    case "Pattern":
      return `linux-image-${/^(?:linux-image-)?([^*?[]*)/.exec(selector.pattern)?.[1]}`
    case "Series":
      return `linux-image-${selector.series}.`
  }
}
