import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import { createHash } from "node:crypto"
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { requireBuildTools } from "../../../../src/core/kernels/build/BuildTools.ts"
import { buildKernel, type BuildRequest } from "../../../../src/core/kernels/build/KernelBuild.ts"
import { extraKconfigHash, kconfigHash, localKey } from "../../../../src/core/kernels/cache/CacheKey.ts"
import { verifyEntry } from "../../../../src/core/kernels/cache/KernelCache.ts"
import { parseConfig } from "../../../../src/core/kernels/config/Kconfig.ts"
import { kernelAtPath } from "../../../../src/core/kernels/KernelPath.ts"
import { parseKernelVersion } from "../../../../src/core/kernels/KernelVersion.ts"
import { sendFile, serve } from "../../httpServer.ts"
import { put, temporary, withVariables } from "../../kernelEntries.ts"
import { BuildHost, commitAll, git, makefile, tarballOf, writeTree } from "../../miniKernel.ts"
import { processesIn, withVariable } from "../../processes.ts"
import { run } from "../../samples.ts"

/** Build into the cache `root`; the message of a failure instead of failing. */
const build = (root: string, request: BuildRequest, variables: Record<string, string> = {}) =>
  buildKernel(request).pipe(
    Effect.catchAll((error) => Effect.succeed({ _tag: "Failed" as const, message: error.message, error })),
    withVariables({ KTSTR_CACHE_DIR: root, ...variables }),
    Effect.provide(BuildHost)
  )

const directory = (path: string): BuildRequest => ({ source: { _tag: "Directory", path } })

/** What a build left in the cache besides locks. */
const leftIn = (root: string) =>
  readdirSync(root).filter((name) => name !== ".locks").flatMap((name) =>
    name === ".logs" || name === ".downloads"
      ? readdirSync(join(root, name)).map((log) => `${name}/${log}`)
      : [name]
  )

/** The names of an ELF file's sections, from readelf. */
const sections = (file: string): ReadonlyArray<string> =>
  Array.from(run("readelf", ["-SW", file]).toString().matchAll(/^ +\[ *\d+\] (\.\S+)/gm), ([, name]) => name)

/** The words that a mini kernel says about its build. */
const said = (vmlinux: string) => /said: ([^\0]*)/.exec(readFileSync(vmlinux, "latin1"))?.[1].trim()

const cleanTree = (changes: Record<string, string> = {}) =>
  Effect.map(temporary, (scratch) => {
    const path = writeTree(join(scratch, "linux"), "6.12.3", changes)
    return { path, commit: commitAll(path) }
  })

const lacks = await Effect.runPromise(
  requireBuildTools.pipe(
    Effect.as(undefined),
    Effect.catchAll((error) => Effect.succeed(error.message)),
    Effect.provide(BuildHost)
  )
)
if (lacks !== undefined) process.stderr.write(`skipping the tests of kernel builds: ${lacks}\n`)

describe.skipIf(lacks !== undefined)("a build", () => {
  it.scopedLive("of a clean tree is stored, is found the second time, and leaves the tree as it was", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const { commit, path } = yield* cleanTree()
      const built = yield* build(root, { ...directory(path), cpuCap: 3 })
      if (built._tag !== "Stored") return assert.fail(JSON.stringify(built))
      const { entry } = built
      const key = `local-${commit.slice(0, 7)}-x86_64-kc${kconfigHash()}`
      assert.isTrue(built.fresh)
      assert.strictEqual(entry.key, key)
      assert.deepInclude(entry.metadata, {
        source: { kind: "local", path, commit },
        release: "6.12.3",
        config: "config",
        kconfigHash: kconfigHash(),
        extraKconfigHash: null
      })
      const config = parseConfig(readFileSync(join(entry.directory, "config"), "utf8"))
      assert.strictEqual(config.get("CONFIG_TINY"), "y")
      assert.strictEqual(config.get("CONFIG_64BIT"), "y")
      const vmlinux = join(entry.directory, "vmlinux")
      assert.includeMembers([...sections(vmlinux)], [".symtab", ".strtab", ".BTF", ".rodata", ".data"])
      assert.notIncludeMembers([...sections(vmlinux)], [".debug_info"])
      assert.include(run("bpftool", ["btf", "dump", "file", vmlinux]).toString(), "STRUCT 'rq'")
      assert.strictEqual(
        said(vmlinux),
        "ARCH= USER=ktstr AT=Thu Jan  1 00:00:00 UTC 1970 LANG=C -j3"
      )
      assert.strictEqual((yield* Effect.provide(verifyEntry(root, key), BuildHost))._tag, "Some")
      assert.strictEqual(git(path, "status", "--porcelain", "--ignored"), "")
      assert.deepStrictEqual(leftIn(root), [key])

      const again = yield* build(root, directory(path))
      assert.deepStrictEqual(again, { ...built, fresh: false })
      const forced = yield* build(root, { ...directory(path), force: true })
      assert.isTrue(forced._tag === "Stored" && forced.fresh && forced.entry.key === key)
    }))

  it.scopedLive("does not hear what the surroundings say", () =>
    Effect.gen(function*() {
      const { path } = yield* cleanTree()
      yield* withVariable("ARCH", "arm64")
      yield* withVariable("KBUILD_BUILD_USER", "somebody")
      yield* withVariable("MAKEFLAGS", "--silent -j77")
      yield* withVariable("LC_ALL", "de_DE.UTF-8")
      const built = yield* build(yield* temporary, { ...directory(path), cpuCap: 2 })
      if (built._tag !== "Stored") return assert.fail(JSON.stringify(built))
      assert.strictEqual(
        said(join(built.entry.directory, "vmlinux")),
        "ARCH= USER=ktstr AT=Thu Jan  1 00:00:00 UTC 1970 LANG=C -j2"
      )
    }))

  it.scopedLive("with an extra fragment is another kernel", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const { commit, path } = yield* cleanTree()
      const extraKconfig = "# mine\r\nCONFIG_MINE=y\r\n# CONFIG_SMP is not set\r\nCONFIG_NR_CPUS=8"
      const built = yield* build(root, { ...directory(path), extraKconfig })
      if (built._tag !== "Stored") return assert.fail(JSON.stringify(built))
      assert.strictEqual(built.entry.key, localKeyOf(commit, extraKconfig))
      assert.strictEqual(built.entry.metadata.extraKconfigHash, extraKconfigHash(extraKconfig))
      const config = parseConfig(readFileSync(join(built.entry.directory, "config"), "utf8"))
      assert.deepStrictEqual(
        ["CONFIG_MINE", "CONFIG_SMP", "CONFIG_NR_CPUS", "CONFIG_NUMA"].map((name) => config.get(name)),
        ["y", undefined, "8", "y"]
      )
    }))

  it.scopedLive("of a tree with changes is not stored, but is there", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const output = join(yield* temporary, "to/here")
      const { path } = yield* cleanTree()
      put(join(path, "new.c"), "")
      const built = yield* build(root, { ...directory(path), output })
      assert.deepStrictEqual(built, {
        _tag: "NotStored",
        directory: output,
        release: "6.12.3",
        why: "it has uncommitted changes (new.c)"
      })
      assert.deepStrictEqual(readdirSync(output).toSorted(), [".config", "bzImage", "vmlinux"])
      assert.deepStrictEqual(leftIn(root), [])
      assert.deepStrictEqual(yield* Effect.provide(kernelAtPath(output), BuildHost), {
        release: "6.12.3",
        image: join(output, "bzImage"),
        vmlinux: join(output, "vmlinux"),
        config: join(output, ".config"),
        source: output
      })
      const blocked = yield* build(root, { ...directory(path), output: join(path, "Kconfig") })
      assert.match(
        blocked._tag === "Failed" ? blocked.message : "",
        /^cannot store the kernel: .*; name another directory/
      )
    }))

  it.scopedLive("of a tree that changes meanwhile is not stored either", () =>
    Effect.gen(function*() {
      for (
        const [hook, why] of [
          ["touch surprise.c", "it has uncommitted changes (surprise.c)"],
          [
            "git -c user.name=T -c user.email=t@example.org commit --quiet --allow-empty --message=new",
            "another commit of it was checked out during the build"
          ]
        ]
      ) {
        const root = yield* temporary
        const { path } = yield* cleanTree({ hook })
        const built = yield* build(root, { ...directory(path), output: join(yield* temporary, "out") })
        assert.strictEqual(built._tag === "NotStored" && built.why, why)
        assert.deepStrictEqual(leftIn(root), [])
      }
    }))

  it.scopedLive("of one tree by two at once happens once", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const { path } = yield* cleanTree({ hook: "sleep 0.3" })
      const both = yield* Effect.all([build(root, directory(path)), build(root, directory(path))], { concurrency: 2 })
      assert.sameMembers(both.map((built) => built._tag === "Stored" ? built.fresh : built._tag), [true, false])
    }))

  it.scopedLive("of a git branch is found again until the branch moves", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const { path } = yield* cleanTree()
      const request: BuildRequest = { source: { _tag: "Git", url: path, ref: "main" } }
      const fresh = () =>
        Effect.map(build(root, request), (built) => built._tag === "Stored" ? built.fresh : JSON.stringify(built))
      assert.isTrue(yield* fresh())
      assert.isFalse(yield* fresh())
      git(path, "commit", "--quiet", "--allow-empty", "--message=new")
      assert.isTrue(yield* fresh())
      assert.strictEqual(leftIn(root).length, 2)
    }))

  it.scopedLive("of a tarball is found again until the tarball is another one", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const scratch = yield* temporary
      const from = tarballOf(scratch, join(scratch, "linux.tar.gz"), "6.12.7")
      const fresh = (from: string) =>
        Effect.map(
          build(root, { source: { _tag: "Tarball", from } }),
          (built) => built._tag === "Stored" ? [built.entry.key, built.fresh] : JSON.stringify(built)
        )
      const key = `6.12.7-tarball-x86_64-kc${kconfigHash()}`
      assert.deepStrictEqual(yield* fresh(from), [key, true])
      assert.deepStrictEqual(yield* fresh(from), [key, false])
      tarballOf(scratch, from, "6.12.7", { Kconfig: "mainmenu \"Another\"\n" })
      assert.deepStrictEqual(yield* fresh(from), [key, true])
      const other = tarballOf(scratch, join(scratch, "other.tar.gz"), "6.12.7")
      assert.deepStrictEqual(yield* fresh(other), [key, true])

      const bytes = readFileSync(from)
      const server = yield* serve((request, response) => sendFile(request, response, bytes, {}))
      assert.deepStrictEqual(yield* fresh(`${server.url}/x.tar.gz`), [key, true])
      assert.deepStrictEqual(yield* fresh(`${server.url}/x.tar.gz`), [key, false])
      assert.strictEqual(server.asked.length, 1)
    }))

  it.scopedLive("of a version asks the mirror once, and for a series which release is the newest", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const scratch = yield* temporary
      const bytes = readFileSync(tarballOf(scratch, join(scratch, "x.tar.xz"), "6.14.3"))
      const list = `${createHash("sha256").update(bytes).digest("hex")}  linux-6.14.3.tar.xz\n`
      const server = yield* serve((request, response) =>
        request.url === "/v6.x/sha256sums.asc"
          ? void response.writeHead(200).end(list)
          : sendFile(request, response, bytes, {})
      )
      const fresh = (text: string) =>
        Effect.gen(function*() {
          const version = parseKernelVersion(text)
          if (version === undefined) return assert.fail(text)
          const request: BuildRequest = { source: { _tag: "Version", version } }
          const built = yield* build(root, request, { KTSTR_KERNEL_MIRROR: server.url })
          return built._tag === "Stored" ? [built.entry.key, built.fresh] : JSON.stringify(built)
        })
      const key = `6.14.3-tarball-x86_64-kc${kconfigHash()}`
      assert.deepStrictEqual(yield* fresh("6.14.3"), [key, true])
      assert.strictEqual(server.asked.length, 2)
      assert.deepStrictEqual(yield* fresh("6.14.3"), [key, false])
      assert.strictEqual(server.asked.length, 2)
      assert.deepStrictEqual(yield* fresh("6.14"), [key, false])
      assert.strictEqual(server.asked.length, 3)
    }))
})

const localKeyOf = (commit: string, extra: string) => {
  const key = localKey(commit, undefined, extra)
  return key._tag === "Right" ? key.right : undefined
}

describe.skipIf(lacks !== undefined)("a build that fails", () => {
  it.scopedLive("for the user's options names each that the kernel did not take", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const { path } = yield* cleanTree({ unknown: "CONFIG_MINE CONFIG_OTHER" })
      const built = yield* build(root, {
        ...directory(path),
        extraKconfig: "CONFIG_MINE=y\nCONFIG_TAKEN=m\nCONFIG_OTHER=\"x\"\n"
      })
      assert.strictEqual(
        built._tag === "Failed" && built.message,
        "this kernel's configuration did not take CONFIG_MINE=y (it is n), CONFIG_OTHER=\"x\" (it is n); " +
          "set the options they depend on too, or leave them out: this kernel may not have them"
      )
      assert.deepStrictEqual(leftIn(root), [])
      const garbled = yield* build(root, { ...directory(path), extraKconfig: "MINE=y" })
      assert.match(
        garbled._tag === "Failed" ? garbled.message : "",
        /^kconfig fragment, line 1: "MINE=y" is not an option; /
      )
    }))

  it.scopedLive("for ours does so only for those without which nothing works, and warns of the others", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const warnings: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => {
        if (logLevel._tag === "Warning") warnings.push(String(message))
      })
      const { path } = yield* cleanTree({ unknown: "CONFIG_SCHED_CLASS_EXT CONFIG_PVH" })
      const built = yield* build(root, directory(path)).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, logger))
      )
      assert.strictEqual(built._tag, "Stored")
      assert.strictEqual(warnings.length, 1)
      assert.match(
        warnings[0],
        /^this kernel's configuration did not take CONFIG_PVH=y \(it is n\), CONFIG_SCHED_CLASS_EXT=y \(it is n\)$/
      )
      const blind = yield* cleanTree({ unknown: "CONFIG_PVH CONFIG_DEBUG_INFO_BTF" })
      const failed = yield* build(root, directory(blind.path))
      assert.strictEqual(
        failed._tag === "Failed" && failed.message,
        "this kernel's configuration did not take CONFIG_DEBUG_INFO_BTF=y (it is n); " +
          "ktstr cannot read a kernel without them: build a newer kernel, or update pahole"
      )
    }))

  it.scopedLive("in the compiler says its first error and where all of it is, and leaves nothing else", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const { commit, path } = yield* cleanTree({ "kernel.c": "int fine;\nint broken = unknown_name;\n" })
      const built = yield* build(root, directory(path))
      const log = `.logs/${`local-${commit.slice(0, 7)}-x86_64-kc${kconfigHash()}`}.log`
      assert.match(
        built._tag === "Failed" ? built.message : "",
        /^cannot compile the kernel: kernel\.c:2:14: error: .unknown_name. undeclared here.*; make's full output is in /
      )
      assert.isTrue(built._tag === "Failed" && built.message.endsWith(join(root, log)))
      assert.deepStrictEqual(leftIn(root), [log])
      assert.include(readFileSync(join(root, log), "utf8"), "kernel.c:2:14: error:")
    }))

  it.scopedLive("in a tool, in make and in the configuration says so too", () =>
    Effect.gen(function*() {
      const message = (changes: Record<string, string>) =>
        Effect.gen(function*() {
          const { path } = yield* cleanTree(changes)
          const built = yield* build(yield* temporary, directory(path))
          return built._tag === "Failed" ? built.message : JSON.stringify(built)
        })
      assert.match(
        yield* message({ hook: "no-such-tool" }),
        /^cannot compile the kernel: hook: 1: no-such-tool: not found;/
      )
      assert.match(
        yield* message({ hook: "exit 3" }),
        /^cannot compile the kernel: make: \*\*\* \[Makefile:\d+: vmlinux\] Error 3;/
      )
      assert.match(
        yield* message({ "config.awk": "syntax error(" }),
        /^cannot configure the kernel: .*; make's full output is in /
      )
      assert.match(
        yield* message({ Makefile: makefile("6.12.3").replace("\tpahole -J", "\ttrue") }),
        /^cannot strip the kernel: the vmlinux that was built has no \.BTF; build it with/
      )
    }))

  it.scopedLive("for missing programs names them and their packages before it gets any sources", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const bin = yield* temporary
      for (const name of ["sh", "tar", "gzip", "make", "ld", "strip", "bc", "lz4"]) {
        symlinkSync(run("which", [name]).toString().trim(), join(bin, name))
      }
      const scratch = yield* temporary
      const from = tarballOf(scratch, join(scratch, "linux.tar.gz"))
      yield* withVariable("PATH", bin)
      const built = yield* build(root, { source: { _tag: "Tarball", from } })
      assert.strictEqual(
        built._tag === "Failed" && built.message,
        "gcc, flex, bison, pahole, python3, gelf.h: needed to build a kernel; " +
          "run `apt-get install gcc flex bison dwarves python3-minimal libelf-dev`"
      )
      assert.strictEqual(built._tag === "Failed" && built.error._tag, "HostLacks")
      assert.deepStrictEqual(leftIn(root), [])
    }))

  it.scopedLive("because it is interrupted ends every process and leaves nothing", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const signs = yield* temporary
      const started = join(signs, "started")
      const { path } = yield* cleanTree({ hook: `sleep 1000 & sh -c 'touch ${started}; sleep 1000; true'` })
      const fiber = yield* Effect.fork(build(root, directory(path)))
      while (!existsSync(started)) yield* Effect.sleep("10 millis")
      assert.isAbove(processesIn(path).length, 2)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(processesIn(path), [])
      assert.deepStrictEqual(leftIn(root), [])
      writeFileSync(join(path, "hook"), "")
      assert.strictEqual(git(path, "status", "--porcelain"), "M hook")
    }))

  it.scopedLive("for want of a place says so", () =>
    Effect.gen(function*() {
      const { path } = yield* cleanTree()
      const built = yield* build("/sys/ktstr", directory(path))
      assert.match(
        built._tag === "Failed" ? built.message : "",
        /^kernel cache \/sys\/ktstr: .*; set KTSTR_CACHE_DIR to /
      )
    }))
})
