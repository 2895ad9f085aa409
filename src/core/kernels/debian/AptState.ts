import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { join } from "node:path"
import { type CacheError, makeDirectories, refused } from "../../CacheDir.ts"
import { type LockTimeout, withLock } from "../../EntryLock.ts"
import { FetchFailed, HostLacks } from "../../Errors.ts"
import type { Native } from "../../Native.ts"
import { type Ended, lastLine, runToEnd, type Surroundings } from "../../process/Subprocess.ts"
import { stage } from "../../Progress.ts"
import type { DebianArchitecture } from "./DebianSelector.ts"
import { APT_HINT, type DebianHost, KEYRING, sourcesOf } from "./DebianSuites.ts"

/**
 * A private apt for one suite and architecture, in `<cache>/.apt/SUITE` (`SUITE_arm64`): its own sources, lists and index. It reads the machine's
 * configuration of proxies and the like, and writes nothing of the machine's.
 */
export interface AptState {
  readonly suite: string
  readonly directory: string
  /** When its lists were last brought up to date, in ms since 1970; undefined: never, or from another mirror. */
  readonly refreshedAt: number | undefined
}

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native

/** How long another process' download of the lists is waited for. */
const LISTS_WAIT = "5 minutes"

/** Of a state: apt's temporary files, which it leaves where it is killed. */
const TEMPORARY = "tmp"
/** Files of a state. The last one holds the time of the last update. */
const [SOURCES, CONFIGURATION, REFRESHED] = ["sources.list", "apt.conf", "refreshed"]

/** In place of what the machine says: see apt.conf(5). Hooks of the machine's would run on the machine's own files. */
const configurationFor = (architecture: DebianArchitecture): string =>
  `#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
#clear APT::Default-Release;
#clear Acquire::IndexTargets::deb;
Acquire::IndexTargets::deb::Packages { MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
  flatMetaKey "Packages"; ShortDescription "Packages";
  Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages"; Optional "no"; };
APT::Architecture "${architecture}";
APT::Architectures { "${architecture}"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "1";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::status "/dev/null";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
`

/** The arguments that have one of apt's programs use the state in a directory. */
const argumentsFor = (directory: string): ReadonlyArray<string> => [
  "-c",
  join(directory, CONFIGURATION),
  ...[
    `Dir::Etc::sourcelist=${join(directory, SOURCES)}`,
    `Dir::State::lists=${join(directory, "lists")}`,
    `Dir::State::extended_states=${join(directory, "extended_states")}`,
    `Dir::Cache=${join(directory, "cache")}`
  ].flatMap((setting) => ["-o", setting])
]

const surroundings = (state: string, directory?: string): Surroundings => ({
  directory,
  environment: { TMPDIR: join(state, TEMPORARY) }
})

const locked = (directory: string, mode: "shared" | "exclusive") =>
<A, E, R>(
  work: Effect.Effect<A, E, R>
): Effect.Effect<A, E | CacheError | LockTimeout, R | FileSystem.FileSystem | Native> =>
  withLock(join(directory, "lock"), mode, LISTS_WAIT)(Effect.either(work)).pipe(
    Effect.mapError((error) => error._tag === "LockTimeout" ? error : refused(directory)(error)),
    Effect.flatten
  )

/** The state of a suite, as it is in the cache. Nothing is downloaded. */
export const openAptState = Effect.fn("AptState.openAptState")(
  function*(
    root: string,
    host: DebianHost,
    suite: string,
    architecture: DebianArchitecture = "amd64"
  ): Effect.fn.Return<AptState, CacheError | LockTimeout, Host> {
    const fs = yield* FileSystem.FileSystem
    const directory = join(root, ".apt", architecture === "amd64" ? suite : `${suite}_${architecture}`)
    const configuration = configurationFor(architecture)
    const prepare = Effect.gen(function*() {
      yield* fs.remove(join(directory, TEMPORARY), { recursive: true, force: true })
      for (const name of [TEMPORARY, "lists/partial", "cache/archives/partial"]) {
        yield* makeDirectories(join(directory, name))
      }
      const read = (name: string) => Effect.orElseSucceed(fs.readFileString(join(directory, name)), () => "")
      const sources = sourcesOf(host, suite)
      if ((yield* read(SOURCES)) !== sources || (yield* read(CONFIGURATION)) !== configuration) {
        yield* fs.remove(join(directory, REFRESHED), { force: true })
        yield* fs.writeFileString(join(directory, CONFIGURATION), configuration)
        yield* fs.writeFileString(join(directory, SOURCES), sources)
      }
      const text = yield* read(REFRESHED)
      return { suite, directory, refreshedAt: /^\d{1,15}$/.test(text) ? Number(text) : undefined }
    })
    yield* Effect.mapError(makeDirectories(directory), refused(directory))
    return yield* locked(directory, "exclusive")(Effect.mapError(prepare, refused(directory)))
  }
)

/** The lists as new as they can be had: where they cannot be brought up to date, those that are there. */
export const newestAptState = (
  state: AptState
): Effect.Effect<AptState, CacheError | LockTimeout | HostLacks | FetchFailed, Host> =>
  Effect.catchAll(
    refreshAptState(state),
    (error) => state.refreshedAt === undefined ? Effect.fail(error) : Effect.succeed(state)
  )

/** Bring the lists up to date. apt checks their signatures; where it fails the lists are what they were. */
export const refreshAptState = Effect.fn("AptState.refreshAptState")(
  function*(
    state: AptState
  ): Effect.fn.Return<AptState, CacheError | LockTimeout | HostLacks | FetchFailed, Host> {
    const fs = yield* FileSystem.FileSystem
    const { directory, suite } = state
    const hasKeyring = yield* Effect.orElseSucceed(fs.exists(KEYRING), () => false)
    if (!hasKeyring) {
      return yield* new HostLacks({
        what: KEYRING,
        why: "it holds the keys that Debian's package lists are signed with",
        hint: "run `apt-get install debian-archive-keyring`"
      })
    }
    const update = runToEnd(
      "apt-get",
      [...argumentsFor(directory), "-q", "--error-on=any", "update"],
      APT_HINT,
      surroundings(directory)
    )
    return yield* locked(directory, "exclusive")(Effect.gen(function*() {
      const ended = yield* stage(`get the package lists of ${suite}`, "AptState.update", { suite })(
        Effect.filterOrElse(
          update,
          ({ code }) => code === 0,
          (ended) => Effect.flatMap(listsFailed(suite, ended), Effect.fail)
        )
      )
      yield* Effect.logDebug(lastLine(ended.stdout))
      const refreshedAt = yield* Clock.currentTimeMillis
      yield* Effect.mapError(
        fs.writeFileString(join(directory, REFRESHED), String(refreshedAt)),
        refused(directory)
      )
      return { ...state, refreshedAt }
    }))
  }
)

/** The error that apt's output stands for: its first complaint says most. */
const listsFailed = (suite: string, { stderr, stdout }: Ended): Effect.Effect<HostLacks | FetchFailed> =>
  Effect.sync(() => {
    const key = /NO_PUBKEY ([0-9A-F]+)/.exec(stdout + stderr)?.[1]
    if (key !== undefined) {
      return new HostLacks({
        what: KEYRING,
        why: `it has no key ${key}, which the package lists of Debian's suite ${suite} are signed with`,
        hint: "install a newer debian-archive-keyring, the one of that suite or later"
      })
    }
    const complaint = (/^(?:E|W): (.*)$/m.exec(stderr)?.[1] ?? lastLine(stderr)).trim()
    const why = (/^Failed to fetch \S+\s+(.*)$/.exec(complaint)?.[1] ?? complaint).replaceAll(/\p{C}+/gu, " ").slice(
      0,
      300
    )
    const reason = /does not have a Release file/.test(stderr) && /\b404\b/.test(stdout)
      ? "absent" as const
      : /not signed|signature|clearsigned|GPG/i.test(stderr)
      ? "untrusted" as const
      : "unreachable" as const
    return new FetchFailed({
      step: "get",
      subject: `the package lists of Debian's suite ${suite}`,
      reason,
      why,
      hint: {
        absent: "name one that the mirror has, as in bookworm, trixie-backports or sid",
        untrusted: "use another mirror in the machine's apt sources",
        unreachable: "check the network and the mirror in the machine's apt sources"
      }[reason]
    })
  })

/** Run one of apt's programs on the suite's lists. */
export const aptOf = (
  { directory }: AptState,
  program: "apt-cache" | "apt-get",
  args: ReadonlyArray<string>,
  workingDirectory?: string
): Effect.Effect<Ended, HostLacks | CacheError | LockTimeout, Host> =>
  locked(directory, "shared")(
    runToEnd(program, [...argumentsFor(directory), ...args], APT_HINT, surroundings(directory, workingDirectory))
  )
