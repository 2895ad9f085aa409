import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import type * as HttpClient from "@effect/platform/HttpClient"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { basename, join, resolve } from "node:path"
import { crc32 } from "node:zlib"
import { type CacheError, refused } from "../../CacheDir.ts"
import type { LockTimeout } from "../../EntryLock.ts"
import {
  type FetchFailed,
  type HostLacks,
  type KernelIdInvalid,
  type KernelNotFound,
  platformText
} from "../../Errors.ts"
import type { Native } from "../../Native.ts"
import { stage } from "../../Progress.ts"
import { gitKey, keySuffix, localKey, tarballKey } from "../cache/CacheKey.ts"
import { listEntries, type ValidEntry } from "../cache/KernelCache.ts"
import type { KernelSource } from "../cache/KernelMetadata.ts"
import type { KernelVersion } from "../KernelVersion.ts"
import { checkOut, cleanCommit, copyTree, remoteCommit } from "./GitRepository.ts"
import { fetchArchive, HINT_ARCHIVE, peekVersion, unpack } from "./KernelArchive.ts"
import { exactVersion, kernelRelease, tarballName } from "./KernelRelease.ts"
import { leftByBuild, SourceInvalid, versionOf } from "./KernelTree.ts"

/**
 * Where a kernel's sources come from:
 * - `Version`: kernel.org's tarball of a release, of a series the newest one
 * - `Directory`: a kernel tree of the user's, which is not touched; its `.config`, if it has one, is where ours starts
 * - `Git`: a branch, a tag or a commit of a repository, by its URL or path
 * - `Tarball`: an archive, by its path or its http(s) address
 *
 * @since 0.1.0
 * @category models
 */
export type BuildSource =
  | { readonly _tag: "Version"; readonly version: KernelVersion }
  | { readonly _tag: "Directory"; readonly path: string }
  | { readonly _tag: "Git"; readonly url: string; readonly ref: string }
  | { readonly _tag: "Tarball"; readonly from: string }

/** Which state of which sources: what the cache calls it, or why its kernel cannot be found again and is not stored. */
export type SourceIdentity =
  | { readonly _tag: "Storable"; readonly key: string; readonly source: KernelSource }
  | { readonly _tag: "Unstorable"; readonly why: string }

/** Sources that are there. */
interface SourceTree {
  readonly directory: string
  readonly identity: SourceIdentity
  /** The user's own configuration, from which ours starts; undefined: from the smallest there is. */
  readonly config?: string
}

/**
 * All that getting sources can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type SourceError =
  | SourceInvalid
  | FetchFailed
  | KernelNotFound
  | KernelIdInvalid
  | CacheError
  | LockTimeout
  | HostLacks

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | HttpClient.HttpClient | Native

/** How to get at sources, and what can be told of them before. */
export interface SourcePlan {
  /** Their identity, where it is known before they are fetched. */
  readonly identity: SourceIdentity | undefined
  /** Whether a cached kernel, found by its key, is made of the same sources. */
  readonly made: (entry: ValidEntry) => Effect.Effect<boolean, never, FileSystem.FileSystem>
  /** Get them, below a directory that is the caller's to remove. */
  readonly open: (temporary: string) => Effect.Effect<SourceTree, SourceError, Host>
  /** A directory that others may be working in too. */
  readonly shared: string | undefined
}

/**
 * Find out which sources are requested, with as little work as possible.
 * @param root the cache, for what is already in it and for downloads
 * @param extra the user's kconfig, which is a part of the key
 */
export const planSource = Effect.fn("SourceTree.planSource")(
  function*(
    source: BuildSource,
    root: string,
    extra: string | undefined
  ): Effect.fn.Return<SourcePlan, SourceError, Host> {
    switch (source._tag) {
      case "Version":
        return yield* planVersion(source.version, root, extra)
      case "Directory":
        return yield* planDirectory(resolve(source.path), extra)
      case "Git":
        return yield* planGit(source.url, source.ref, extra)
      case "Tarball":
        return /^[a-z][a-z0-9+.-]*:\/\//i.test(source.from)
          ? yield* planAddress(source.from, root, extra)
          : yield* planArchive(resolve(source.from), extra)
    }
  }
)

/** The state of a user's tree as it is now. */
export const directoryIdentity = (
  path: string,
  extra: string | undefined
): Effect.Effect<
  SourceIdentity,
  HostLacks | KernelIdInvalid,
  CommandExecutor.CommandExecutor | FileSystem.FileSystem
> =>
  Effect.gen(function*() {
    const found = yield* cleanCommit(path)
    if ("why" in found) return { _tag: "Unstorable", why: found.why }
    const { commit } = found
    const config = yield* ownConfig(path)
    const configCrc = config === undefined ? undefined : crc32(config).toString(16).padStart(8, "0")
    return { _tag: "Storable", key: yield* localKey(commit, configCrc, extra), source: { kind: "local", path, commit } }
  })

/** The `.config` of a user's tree. */
const ownConfig = (path: string): Effect.Effect<Uint8Array | undefined, never, FileSystem.FileSystem> =>
  Effect.flatMap(
    FileSystem.FileSystem,
    (fs) => Effect.orElseSucceed(fs.readFile(join(path, ".config")), () => undefined)
  )

const planDirectory = (path: string, extra: string | undefined) =>
  Effect.gen(function*() {
    yield* versionOf(path, "give the top directory of a kernel tree")
    const identity = yield* directoryIdentity(path, extra)
    const plan: SourcePlan = {
      identity,
      made: ({ metadata: { source } }) => Effect.succeed(source.kind === "local" && isCommit(identity, source.commit)),
      open: (temporary) => Effect.map(openDirectory(path, temporary), (tree) => ({ ...tree, identity })),
      shared: path
    }
    return plan
  })

/** The tree itself where kbuild can build it elsewhere, else a copy of it without what its builds left. */
const openDirectory = (path: string, temporary: string) =>
  Effect.gen(function*() {
    const left = yield* leftByBuild(path)
    if (left === undefined) return { directory: path }
    const directory = join(temporary, "source")
    const copied = Effect.flatMap(copyTree(path, directory), (why) =>
      why === undefined ? Effect.void : new SourceInvalid({
        source: path,
        why: `it has been built in (${left}), so git is asked for its own files, and says: ${why}`,
        hint: "run `make mrproper` there, which also removes its .config"
      }))
    yield* stage(`copy ${path}, which has been built in`, "SourceTree.copy", { path })(copied)
    yield* versionOf(directory, "add its files to git")
    const config = yield* ownConfig(path)
    if (config === undefined) {
      return { directory }
    }
    const file = join(temporary, "user.config")
    const fs = yield* FileSystem.FileSystem
    yield* Effect.mapError(fs.writeFile(file, config), refused(file))
    return { directory, config: file }
  })

const isCommit = (identity: SourceIdentity, commit: string): boolean =>
  identity._tag === "Storable" && "commit" in identity.source && identity.source.commit === commit

const planGit = (url: string, ref: string, extra: string | undefined) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    // a path is meant from here, not from where git will run
    const here = yield* Effect.orElseSucceed(fs.exists(url), () => false)
    const address = here ? resolve(url) : url
    const identityOf = (commit: string) =>
      Either.map(gitKey(ref, commit, extra), (key): SourceIdentity => ({
        _tag: "Storable",
        key,
        source: { kind: "git", url: address, ref, commit }
      }))
    const remote = yield* remoteCommit(address, ref)
    const identity = yield* identityOf(remote.commit)
    const plan: SourcePlan = {
      identity,
      made: ({ metadata: { source } }) =>
        Effect.succeed(source.kind === "git" && source.url === address && isCommit(identity, source.commit)),
      open: (temporary) =>
        Effect.gen(function*() {
          const directory = join(temporary, "source")
          const commit = yield* checkOut(address, remote.name, directory)
          yield* versionOf(directory, "give a repository of Linux")
          return { directory, identity: yield* identityOf(commit) }
        }),
      shared: undefined
    }
    return plan
  })

const tarballIdentity = (version: string, from: string, extra: string | undefined) =>
  Either.map(tarballKey(version, extra), (key): SourceIdentity => ({
    _tag: "Storable",
    key,
    source: { kind: "tarball", version, from }
  }))

const planVersion = (asked: KernelVersion, root: string, extra: string | undefined) =>
  Effect.gen(function*() {
    // one release has its key without a look at the network
    const isSeries = asked.patch === undefined && asked.rc === undefined
    const chosen = isSeries
      ? yield* stage(`find ${asked.text}`, "SourceTree.find", { version: asked.text })(kernelRelease(asked, root))
      : undefined
    const version = chosen?.version ?? exactVersion(asked)
    const name = chosen === undefined ? tarballName(asked) : basename(chosen.url)
    const plan: SourcePlan = {
      identity: yield* tarballIdentity(version, name, extra),
      made: ({ metadata: { source } }) => Effect.succeed(source.kind === "tarball" && basename(source.from) === name),
      open: (temporary) =>
        Effect.gen(function*() {
          const release = chosen ??
            (yield* stage(`find ${asked.text}`, "SourceTree.find", { version: asked.text })(kernelRelease(asked, root)))
          const directory = yield* fetchArchive(release.url, root, temporary, release.sha256)
          const found = yield* versionOf(directory, "use another mirror")
          if (found === version) return { directory, identity: yield* tarballIdentity(version, release.url, extra) }
          return yield* new SourceInvalid({
            source: release.url,
            why: `it holds the sources of ${found}`,
            hint: "use another mirror"
          })
        }),
      shared: undefined
    }
    return plan
  })

const planArchive = (path: string, extra: string | undefined) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const info = yield* Effect.mapError(
      fs.stat(path),
      (error) => new SourceInvalid({ source: path, why: platformText(error), hint: "check the path" })
    )
    if (info.type !== "File") {
      return yield* new SourceInvalid({ source: path, why: "not a file", hint: "give the directory of a source tree" })
    }
    const peeked = yield* stage(`look into ${basename(path)}`, "SourceTree.peek", { path })(peekVersion(path))
    const plan: SourcePlan = {
      identity: peeked === undefined ? undefined : yield* tarballIdentity(peeked, path, extra),
      // an archive that was written since then may hold other sources of that version
      made: ({ metadata: { source, storedAt } }) =>
        Effect.succeed(
          source.kind === "tarball" && source.from === path &&
            Option.exists(info.mtime, (time) => time.getTime() <= Date.parse(storedAt))
        ),
      open: (temporary) =>
        Effect.gen(function*() {
          const directory = yield* unpack(path, path, temporary)
          return { directory, identity: yield* tarballIdentity(yield* versionOf(directory, HINT_ARCHIVE), path, extra) }
        }),
      shared: undefined
    }
    return plan
  })

const planAddress = (url: string, root: string, extra: string | undefined) =>
  Effect.gen(function*() {
    if (!/^https?:\/\//i.test(url)) {
      return yield* new SourceInvalid({ source: url, why: "not an http or https URL", hint: "or give a path" })
    }
    // the content of a URL is only known from when it was built
    const entries = yield* listEntries(root)
    const before = entries.flatMap((entry) =>
      entry._tag === "Valid" && entry.metadata.source.kind === "tarball" && entry.metadata.source.from === url &&
        entry.key.endsWith(`-kc${keySuffix(extra)}`)
        ? [entry.metadata.source.version]
        : []
    ).at(0)
    const plan: SourcePlan = {
      identity: before === undefined ? undefined : yield* tarballIdentity(before, url, extra),
      made: ({ metadata: { source } }) => Effect.succeed(source.kind === "tarball" && source.from === url),
      open: (temporary) =>
        Effect.gen(function*() {
          const directory = yield* fetchArchive(url, root, temporary)
          return { directory, identity: yield* tarballIdentity(yield* versionOf(directory, HINT_ARCHIVE), url, extra) }
        }),
      shared: undefined
    }
    return plan
  })
