import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { crc32 } from "node:zlib"
import { type BuildSource, planSource, type SourceIdentity } from "../../../../src/core/kernels/build/SourceTree.ts"
import { gitKey, localKey, tarballKey } from "../../../../src/core/kernels/cache/CacheKey.ts"
import type { KernelSource } from "../../../../src/core/kernels/cache/KernelMetadata.ts"
import { parseKernelVersion } from "../../../../src/core/kernels/KernelVersion.ts"
import { sendFile, serve } from "../../httpServer.ts"
import { put, temporary, withVariables } from "../../kernelEntries.ts"
import { BuildHost, commitAll, git, tarballOf, writeTree } from "../../miniKernel.ts"
import { run } from "../../samples.ts"

/** Get sources: what was known before, what they are, what is in their directory; or the message of the failure. */
const open = (source: BuildSource, variables: Record<string, string> = {}) =>
  Effect.gen(function*() {
    const root = yield* temporary
    const scratch = yield* temporary
    const got = yield* Effect.gen(function*() {
      const plan = yield* planSource(source, root, undefined)
      const tree = yield* plan.open(scratch)
      return { before: plan.identity, ...tree, files: readdirSync(tree.directory).toSorted() }
    }).pipe(Effect.either)
    const downloads = join(root, ".downloads")
    return {
      message: got._tag === "Left" ? got.left.message : undefined,
      tree: got._tag === "Right" ? got.right : undefined,
      beside: readdirSync(scratch),
      downloads: existsSync(downloads) ? readdirSync(downloads) : []
    }
  }).pipe(withVariables(variables), Effect.provide(BuildHost))

const version = (text: string): BuildSource => {
  const parsed = parseKernelVersion(text)
  if (parsed === undefined) throw new Error(text)
  return { _tag: "Version", version: parsed }
}

const storable = (key: Either.Either<string, unknown>, source: KernelSource): SourceIdentity => ({
  _tag: "Storable",
  key: Either.getOrThrow(key),
  source
})

describe("a directory", () => {
  const identify = (path: string) =>
    Effect.map(open({ _tag: "Directory", path }), ({ message, tree }) => {
      assert.isUndefined(message)
      return tree?.identity
    })

  it.scopedLive("is known by its commit while nothing in it is changed; what git ignores does not count", () =>
    Effect.gen(function*() {
      const path = writeTree(yield* temporary)
      const commit = commitAll(path)
      const clean = storable(localKey(commit, undefined), { kind: "local", path, commit })
      assert.deepStrictEqual(yield* identify(path), clean)
      put(join(path, "ignored.o"), "")
      assert.deepStrictEqual(yield* identify(path), clean)

      const dirty = (file: string): SourceIdentity => ({
        _tag: "Unstorable",
        why: `it has uncommitted changes (${file})`
      })
      put(join(path, "new.c"), "")
      assert.deepStrictEqual(yield* identify(path), dirty("new.c"))
      rmSync(join(path, "new.c"))
      put(join(path, "kernel.c"), "changed")
      assert.deepStrictEqual(yield* identify(path), dirty("kernel.c"))
      git(path, "add", "kernel.c")
      assert.deepStrictEqual(yield* identify(path), dirty("kernel.c"))
      git(path, "commit", "--quiet", "--message=changed")
      assert.notDeepEqual(yield* identify(path), clean)
      rmSync(join(path, "hook"))
      assert.deepStrictEqual(yield* identify(path), dirty("hook"))
    }))

  it.scopedLive("is not touched by the look at it", () =>
    Effect.gen(function*() {
      const path = writeTree(yield* temporary)
      commitAll(path)
      put(join(path, "kernel.c"), readFileSync(join(path, "kernel.c"))) // a date that git has not seen
      const index = readFileSync(join(path, ".git/index"))
      yield* identify(path)
      assert.isTrue(readFileSync(join(path, ".git/index")).equals(index))
    }))

  it.scopedLive("without git, or without a commit, or in a repository that does not know it, has no name", () =>
    Effect.gen(function*() {
      const path = writeTree(yield* temporary)
      const why = (identity: unknown) => JSON.stringify(identity)
      assert.include(why(yield* identify(path)), "git has no commit of it (fatal: not a git repository")
      git(path, "init", "--quiet")
      assert.include(why(yield* identify(path)), "git has no commit of it (fatal: Needed a single revision)")
      const outer = yield* temporary
      put(join(outer, ".gitignore"), "*\n!.gitignore\n")
      commitAll(outer)
      assert.include(why(yield* identify(writeTree(join(outer, "linux")))), "git does not track its Makefile")
    }))

  it.scopedLive("of a repository that holds more is judged alone", () =>
    Effect.gen(function*() {
      const outer = yield* temporary
      const path = writeTree(join(outer, "linux"))
      const commit = commitAll(outer)
      put(join(outer, "notes"), "")
      assert.deepStrictEqual(
        yield* identify(path),
        storable(localKey(commit, undefined), { kind: "local", path, commit })
      )
    }))

  it.scopedLive("must hold a kernel, and none that was built in there", () =>
    Effect.gen(function*() {
      const path = yield* temporary
      const message = () => Effect.map(open({ _tag: "Directory", path }), ({ message }) => message)
      const hint = "give the top directory of a kernel tree"
      assert.strictEqual(yield* message(), `kernel source ${path}: it has no Makefile of a kernel; ${hint}`)
      put(join(path, "Makefile"), "all:\n\ttrue\n")
      assert.strictEqual(yield* message(), `kernel source ${path}: it has no Makefile of a kernel; ${hint}`)
      // a pipe would be read until somebody writes, a device for ever, and a pattern goes over blanks again from each of them
      const wrong = [
        (file: string) => execFileSync("mkfifo", [file]),
        (file: string) => symlinkSync("/dev/zero", file),
        (file: string) => put(file, `VERSION =${" ".repeat(500_000)}6 6\nPATCHLEVEL = 1\nSUBLEVEL = 0\n`),
        (file: string) => put(file, `VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 0\n#${" ".repeat(2 ** 20)}`)
      ]
      for (const make of wrong) {
        rmSync(join(path, "Makefile"))
        make(join(path, "Makefile"))
        assert.strictEqual(yield* message(), `kernel source ${path}: it has no Makefile of a kernel; ${hint}`)
      }
      put(join(path, "Makefile"), "VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 0\n")
      assert.strictEqual(yield* message(), `kernel source ${path}: it has no Kconfig; ${hint}`)
      writeTree(path)
      assert.isUndefined(yield* message())
      put(join(path, ".gitignore"), ".config\n")
      put(join(path, ".config"), "")
      const refusal = (yield* message()) ?? "none"
      assert.match(refusal, /it has been built in \(\.config\), so git is asked .* fatal: not a git repository/)
      assert.match(refusal, /; run `make mrproper` there, which also removes its \.config$/)
    }))

  it.scopedLive("that has been built in is copied as it is now, and its .config is where ours starts", () =>
    Effect.gen(function*() {
      const path = writeTree(yield* temporary)
      put(join(path, ".gitignore"), ".config\n*.o\n")
      put(join(path, "gone"), "")
      put(join(path, "sub dir", "kept\nfile"), "1")
      const commit = commitAll(path)
      const config = "CONFIG_OWN=y\n"
      put(join(path, ".config"), config)
      put(join(path, "kernel.o"), "left by the build")
      const clean = yield* identify(path)
      const crc = crc32(config).toString(16).padStart(8, "0")
      assert.deepStrictEqual(clean, storable(localKey(commit, crc), { kind: "local", path, commit }))
      rmSync(join(path, "gone"))
      put(join(path, "sub dir", "kept\nfile"), "2")
      put(join(path, "new"), "")
      const plan = yield* planSource({ _tag: "Directory", path }, yield* temporary, undefined)
      const tree = yield* plan.open(yield* temporary)
      assert.strictEqual(tree.identity._tag, "Unstorable")
      assert.notStrictEqual(tree.directory, path)
      assert.strictEqual(readFileSync(tree.config ?? "none", "utf8"), config)
      const names = readdirSync(tree.directory)
      assert.includeMembers(names, ["Makefile", "kernel.c", "new", "sub dir"])
      for (const name of ["gone", ".config", "kernel.o", ".git"]) assert.notInclude(names, name)
      assert.strictEqual(readFileSync(join(tree.directory, "sub dir", "kept\nfile"), "utf8"), "2")
    }).pipe(Effect.provide(BuildHost)))
})

describe("a git repository", () => {
  it.scopedLive("gives a branch, a tag, HEAD or a commit, without history", () =>
    Effect.gen(function*() {
      const url = writeTree(yield* temporary)
      const first = commitAll(url)
      git(url, "tag", "--annotate", "--message=tag", "v1")
      put(join(url, "more"), "")
      git(url, "add", "more")
      git(url, "commit", "--quiet", "--message=more")
      const second = git(url, "rev-parse", "HEAD")
      git(url, "branch", "topic/v1") // also ends in v1
      for (
        const [ref, commit] of [
          ["main", second],
          ["HEAD", second],
          ["topic/v1", second],
          ["refs/heads/main", second],
          ["v1", first],
          [first, first]
        ] as const
      ) {
        const { message, tree } = yield* open({ _tag: "Git", url, ref })
        assert.isUndefined(message, ref)
        const identity = storable(gitKey(ref, commit), { kind: "git", url, ref, commit })
        assert.deepStrictEqual(tree?.identity, identity, ref)
        assert.deepStrictEqual(tree?.before, identity, ref)
        assert.strictEqual(tree?.files.includes("more"), commit === second, ref)
      }
      const { tree } = yield* open({ _tag: "Git", url: `file://${url}`, ref: "main" })
      assert.strictEqual(tree?.identity._tag === "Storable" && tree.identity.source.kind === "git", true)
    }), 60_000)

  it.scopedLive("is fetched as it is then, if a branch has moved since it was asked", () =>
    Effect.gen(function*() {
      const url = writeTree(yield* temporary)
      commitAll(url)
      const plan = yield* planSource({ _tag: "Git", url, ref: "main" }, yield* temporary, undefined)
      git(url, "commit", "--quiet", "--allow-empty", "--message=moved")
      const { directory, identity } = yield* plan.open(yield* temporary)
      assert.strictEqual(
        identity._tag === "Storable" && identity.key,
        Either.getOrThrow(gitKey("main", git(url, "rev-parse", "HEAD")))
      )
      assert.strictEqual(git(directory, "rev-list", "--count", "HEAD"), "1")
    }).pipe(Effect.provide(BuildHost)))

  it.scopedLive("says what it does not have", () =>
    Effect.gen(function*() {
      const url = yield* temporary
      put(join(url, "README"), "no kernel")
      commitAll(url)
      const message = (ref: string, repository = url) =>
        Effect.map(open({ _tag: "Git", url: repository, ref }), ({ message }) => message)
      const hint = "give a branch, a tag, or a commit id with all of its 40 digits"
      assert.strictEqual(
        yield* message("v9"),
        `cannot fetch git repository ${url}: it has no branch or tag v9; ${hint}`
      )
      for (const ref of ["", "--upload-pack=touch x", "main:refs/heads/x", "ma*", "a b", "HEAD~1", "a\nb"]) {
        assert.strictEqual(
          yield* message(ref),
          `cannot fetch git repository ${url}: ${JSON.stringify(ref)} is not a ref; ${hint}`
        )
      }
      assert.match(
        (yield* message("0".repeat(40))) ?? "",
        /^cannot fetch git repository .*; check the URL, the network and the disk$/
      )
      assert.match(
        (yield* message("main", "/no/such")) ?? "",
        /^cannot fetch git repository \/no\/such: fatal: .*; check the URL$/
      )
      assert.match((yield* message("main", "ext::touch /tmp/x")) ?? "", /transport 'ext' not allowed/)
      assert.match((yield* message("main")) ?? "", /it has no Makefile of a kernel; give a repository of Linux$/)
    }))
})

describe("a tarball", () => {
  it.scopedLive("of any compression is known by the version in it, before it is unpacked", () =>
    Effect.gen(function*() {
      const scratch = yield* temporary
      for (const name of ["a.tar", "a.tar.gz", "a.tar.xz", "a:b.tar.zst"]) {
        const path = tarballOf(scratch, join(scratch, name.replace(":", "-")), "6.12.3")
        const { message, tree } = yield* open({ _tag: "Tarball", from: path })
        assert.isUndefined(message)
        const identity = storable(tarballKey("6.12.3"), { kind: "tarball", version: "6.12.3", from: path })
        assert.deepStrictEqual(tree?.before, identity)
        assert.deepStrictEqual(tree?.identity, identity)
        assert.include(tree?.files ?? [], "kernel.c")
      }
    }))

  it.scopedLive("that is none, is cut off, or holds no kernel, is refused", () =>
    Effect.gen(function*() {
      const scratch = yield* temporary
      const message = (from: string) =>
        Effect.map(open({ _tag: "Tarball", from }), ({ message }) => message?.replaceAll(scratch, "S") ?? "")
      const hint = "give the archive of a kernel tree, as kernel.org and linux-source packages have it"
      assert.match(
        yield* message(put(join(scratch, "text"), "text")),
        /text: it cannot be unpacked \(tar: .*\); give the arch/
      )
      const cut = tarballOf(scratch, join(scratch, "cut.tar.xz"))
      truncateSync(cut, 500)
      assert.match(yield* message(cut), /cut\.tar\.xz: it cannot be unpacked \(.*\); give the archive of a kernel tree/)
      // a small archive whose Makefile is larger than what a program may print to us
      mkdirSync(join(scratch, "big"))
      truncateSync(put(join(scratch, "big/Makefile"), "VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 2\n"), 70 * 2 ** 20)
      run("tar", ["-czf", join(scratch, "big.tar.gz"), "-C", scratch, "big"])
      assert.match(yield* message(join(scratch, "big.tar.gz")), /: it has no Makefile of a kernel; give the archive/)
      assert.include(yield* message(join(scratch, "absent")), "ENOENT: no such file")
      assert.include(
        yield* message("/dev/zero"),
        "kernel source /dev/zero: not a file; give the directory of a source tree"
      )
      assert.include(yield* message("ftp://example.org/x.tar"), "not an http or https URL")

      const pack = (name: string, ...args: ReadonlyArray<string>) => {
        run("tar", ["-cf", join(scratch, name), "-C", scratch, ...args])
        return join(scratch, name)
      }
      writeTree(join(scratch, "one"))
      writeTree(join(scratch, "two"))
      assert.strictEqual(
        yield* message(pack("both.tar", "one", "two")),
        `kernel source S/both.tar: it holds 2 things at its top, not one directory; ${hint}`
      )
      assert.include(yield* message(pack("empty.tar", "--files-from=/dev/null")), "it holds 0 things at its top")
      symlinkSync("one", join(scratch, "link"))
      assert.include(yield* message(pack("link.tar", "link")), "it holds 1 things at its top, not one directory")
      mkdirSync(join(scratch, "plain"))
      writeFileSync(join(scratch, "plain/README"), "")
      assert.include(yield* message(pack("plain.tar", "plain")), "it has no Makefile of a kernel")
    }))

  it.scopedLive("writes nothing outside of its directory", () =>
    Effect.gen(function*() {
      const scratch = yield* temporary
      const outside = join(yield* temporary, "outside")
      writeTree(join(scratch, "linux"))
      const pack = (name: string, ...args: ReadonlyArray<string>) => {
        run("tar", ["-cPf", join(scratch, name), "-C", scratch, ...args])
        return join(scratch, name)
      }
      put(join(scratch, "evil"), "evil")
      const up = pack("up.tar", "--transform=s,^evil$,linux/../../../evil,", "linux", "evil")
      assert.include(run("tar", ["-Ptf", up]).toString(), "linux/../../../evil")
      assert.deepStrictEqual((yield* open({ _tag: "Tarball", from: up })).beside, ["source"])
      const absolute = pack("absolute.tar", `--transform=s,^evil$,${outside},`, "linux", "evil")
      assert.include(run("tar", ["-Ptf", absolute]).toString(), outside)
      assert.deepStrictEqual((yield* open({ _tag: "Tarball", from: absolute })).beside, ["source"])
      assert.isFalse(existsSync(outside))
      // a link out of the archive, and a file that would go through it
      mkdirSync(outside)
      mkdirSync(join(scratch, "a"))
      symlinkSync(outside, join(scratch, "a/door"))
      mkdirSync(join(scratch, "b/door"), { recursive: true })
      put(join(scratch, "b/door/evil"), "evil")
      // GNU tar makes such a link only when all else is written
      const through = pack("through.tar", "--transform=s,^[ab]/,linux/,", "linux", "a/door", "b/door/evil")
      yield* open({ _tag: "Tarball", from: through })
      assert.deepStrictEqual(readdirSync(outside), [])
    }))

  it.scopedLive("from an address is downloaded, unpacked and forgotten", () =>
    Effect.gen(function*() {
      const scratch = yield* temporary
      const bytes = readFileSync(tarballOf(scratch, join(scratch, "x.tar.gz"), "6.13.1"))
      const server = yield* serve((request, response) => sendFile(request, response, bytes, {}))
      const from = `${server.url}/some/where/linux.tar.gz?token=1`
      const { downloads, message, tree } = yield* open({ _tag: "Tarball", from })
      assert.isUndefined(message)
      assert.isUndefined(tree?.before)
      assert.deepStrictEqual(
        tree?.identity,
        storable(tarballKey("6.13.1"), { kind: "tarball", version: "6.13.1", from })
      )
      assert.deepStrictEqual(downloads, [])
    }))
})

describe("a version", () => {
  /** A mirror that has 6.14.2 and 6.14.3; the latter's tarball holds `holds`. */
  const mirror = (holds = "6.14.3", checksum?: string) =>
    Effect.gen(function*() {
      const scratch = yield* temporary
      const bytes = readFileSync(tarballOf(scratch, join(scratch, "x.tar.xz"), holds))
      const sum = checksum ?? createHash("sha256").update(bytes).digest("hex")
      const list = `${"0".repeat(64)}  linux-6.14.2.tar.xz\n${sum}  linux-6.14.3.tar.xz\n`
      return yield* serve((request, response) =>
        request.url === "/v6.x/sha256sums.asc"
          ? void response.writeHead(200, { "content-type": "text/plain" }).end(list)
          : request.url === "/v6.x/linux-6.14.3.tar.xz"
          ? sendFile(request, response, bytes, { etag: "\"a\"" })
          : void response.writeHead(404).end()
      )
    })

  it.scopedLive("is the mirror's tarball, checked", () =>
    Effect.gen(function*() {
      for (const text of ["6.14", "6.14.3"]) {
        const server = yield* mirror()
        const { downloads, message, tree } = yield* open(version(text), { KTSTR_KERNEL_MIRROR: server.url })
        assert.isUndefined(message)
        const key = tarballKey("6.14.3")
        assert.strictEqual(tree?.before?._tag === "Storable" && tree.before.key, Either.getOrThrow(key))
        const from = `${server.url}/v6.x/linux-6.14.3.tar.xz`
        assert.deepStrictEqual(tree?.identity, storable(key, { kind: "tarball", version: "6.14.3", from }))
        assert.deepStrictEqual(downloads, [])
      }
    }))

  it.scopedLive("is not taken from a tarball of another checksum or of another version", () =>
    Effect.gen(function*() {
      const forged = yield* mirror("6.14.3", "f".repeat(64))
      const { downloads, message } = yield* open(version("6.14"), { KTSTR_KERNEL_MIRROR: forged.url })
      assert.match(message ?? "", /linux-6\.14\.3\.tar\.xz: its sha256 is [0-9a-f]{64}, not f{64}; /)
      assert.deepStrictEqual(downloads, [])
      const other = yield* mirror("6.14.1")
      const found = yield* open(version("6.14"), { KTSTR_KERNEL_MIRROR: other.url })
      assert.strictEqual(
        found.message,
        `kernel source ${other.url}/v6.x/linux-6.14.3.tar.xz: it holds the sources of 6.14.1; use another mirror`
      )
    }))
})
