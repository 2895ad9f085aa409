import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import type { HostLacks } from "../../Errors.ts"
import { runToEnd } from "../../process/Subprocess.ts"

/** Debian's releases with kernels that we can read, the oldest first; each has backports of newer kernels. */
const RELEASES = ["bullseye", "bookworm", "trixie"]
/** Where new kernels come to first. */
const UNSTABLE = "sid"
/** Releases whose backports have been closed and left the mirrors. */
const WITHOUT_BACKPORTS = ["bullseye"]

const MIRROR = "http://deb.debian.org/debian"
export const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

export const APT_HINT = "use a Debian host (apt and dpkg), or give the path of a kernel image"

/** The name of a suite, as in a mirror's `dists/`. */
export const isSuiteName = (text: string): boolean => /^[a-z][a-z0-9.-]{0,63}$/.test(text)

/** The machine's own Debian: the release that it runs, and where its packages come from. */
export interface DebianHost {
  /** `bookworm`; undefined on another distribution. */
  readonly codename: string | undefined
  readonly mirror: string
  /** The mirror of security updates. */
  readonly security: string
}

/**
 * Debian as the machine's own apt is configured. The mirror is the one that its release comes from; without one, it is
 * Debian's own.
 * @see apt-get(8) `--print-uris`: a line begins with the address in single quotes
 */
export const debianHost: Effect.Effect<
  DebianHost,
  HostLacks,
  CommandExecutor.CommandExecutor | FileSystem.FileSystem
> = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const release = yield* Effect.orElseSucceed(fs.readFileString("/etc/os-release"), () => "")
  const codename = /^ID="?debian"?$/m.test(release)
    ? /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(release)?.[1] ?? UNSTABLE
    : undefined
  const { stdout } = yield* runToEnd("apt-get", ["update", "--print-uris"], APT_HINT)
  const places = Array.from(stdout.matchAll(/^'([a-z+]+:[^\s'\]]+?)\/+dists\/([^\s']+?)\/(?:In)?Release' /gm))
  const mirrorOf = (suite: RegExp) => places.find(([, , name]) => suite.test(name))?.[1]
  const mirror = mirrorOf(new RegExp(`^(?:${codename ?? "none"}|stable|oldstable|testing|unstable|sid)$`)) ?? MIRROR
  return {
    codename,
    mirror,
    security: mirrorOf(/(?:-security|\/updates)$/) ??
      (mirror.endsWith("/debian") ? `${mirror}-security` : `${MIRROR}-security`)
  }
})

/** Suites in the order in which a kernel is looked for: the machine's, its backports, newer ones, then older ones. */
export const suitesOf = ({ codename }: DebianHost): ReadonlyArray<string> => {
  const own = codename === undefined ? 1 : RELEASES.indexOf(codename)
  const from = own < 0 ? RELEASES.length : own
  const withBackports = (release: string) =>
    WITHOUT_BACKPORTS.includes(release) ? [release] : [release, `${release}-backports`]
  const unknown = own < 0 && codename !== undefined && codename !== UNSTABLE ? [codename] : []
  return [
    ...unknown,
    ...RELEASES.slice(from).flatMap(withBackports),
    UNSTABLE,
    ...RELEASES.slice(0, from).toReversed().flatMap(withBackports)
  ]
}

/** The `sources.list` of a suite; that of a release has its security updates too. */
export const sourcesOf = ({ mirror, security }: DebianHost, suite: string): string =>
  [
    [mirror, suite],
    ...(RELEASES.includes(suite) ? [[security, `${suite}-security`]] : [])
  ].map(([place, name]) => `deb [signed-by=${KEYRING}] ${place} ${name} main\n`).join("")
