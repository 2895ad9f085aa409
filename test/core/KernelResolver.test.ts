import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { createHash } from "node:crypto"
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { gzipSync } from "node:zlib"
import { cacheRoot } from "../../src/core/CacheDir.ts"
import { selects } from "../../src/core/DebianKernel.ts"
import { HostLacks } from "../../src/core/Errors.ts"
import type { DebianSelector } from "../../src/core/KernelId.ts"
import { KernelResolver, layer as layerKernelResolver } from "../../src/core/KernelResolver.ts"
import { bzImage, has, run } from "./samples.ts"

const hasApt = has("apt-get") && has("apt-cache") && has("dpkg")
if (!hasApt) process.stderr.write("skipping the tests of debian: kernels: this host has no apt\n")

const Live = Layer.provide(layerKernelResolver, NodeContext.layer)

const resolve = (id: string, variables?: Record<string, string>) =>
  Effect.flatMap(KernelResolver, (resolver) => resolver.resolve(id)).pipe(
    Effect.provide(Live),
    variables === undefined
      ? (same) => same
      : Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables))))
  )

const messageOf = (id: string, variables?: Record<string, string>) =>
  Effect.map(Effect.flip(resolve(id, variables)), (error) => error.message)

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-resolver-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** Set a variable of this process, which programs that it starts inherit, for the scope's life. */
const withVariable = (name: string, value: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const before = process.env[name]
      process.env[name] = value
      return before
    }),
    (before) =>
      Effect.sync(() => {
        if (before === undefined) delete process.env[name]
        else process.env[name] = before
      })
  )

/** Processes whose working directory is in `path`. */
const processesIn = (path: string) =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readlinkSync(`/proc/${pid}/cwd`).startsWith(path)
    } catch {
      return false // it ended meanwhile
    }
  })

const image = bzImage(gzipSync(Buffer.from("kernel")), "6.99.0-test")

describe("a path", () => {
  it.scoped("to a bzImage gives it with the release of its header", () =>
    Effect.gen(function*() {
      const file = join(yield* temporary, "my-kernel")
      writeFileSync(file, image)
      assert.deepStrictEqual(yield* resolve(file), { release: "6.99.0-test", image: file, source: file })
    }))

  it.scoped("to a build tree gives its image, vmlinux and config; ~ is HOME", () =>
    Effect.gen(function*() {
      const home = yield* temporary
      const tree = join(home, "linux")
      mkdirSync(join(tree, "arch/x86/boot"), { recursive: true })
      writeFileSync(join(tree, "arch/x86/boot/bzImage"), image)
      writeFileSync(join(tree, "vmlinux"), "")
      writeFileSync(join(tree, ".config"), "")
      assert.deepStrictEqual(yield* resolve("~/linux", { HOME: home }), {
        release: "6.99.0-test",
        image: join(tree, "arch/x86/boot/bzImage"),
        vmlinux: join(tree, "vmlinux"),
        config: join(tree, ".config"),
        source: tree
      })
    }))

  it.scoped("to a vmlinux finds the banner wherever it is, also across two reads", () =>
    Effect.gen(function*() {
      const file = join(yield* temporary, "vmlinux")
      for (const at of [100, 4 * 2 ** 20 - 7, 11 * 2 ** 20]) {
        const bytes = Buffer.alloc(12 * 2 ** 20)
        bytes.set([0x7f, 0x45, 0x4c, 0x46])
        bytes.write("Linux version 6.98.1 (x@y)", at)
        writeFileSync(file, bytes)
        assert.strictEqual((yield* resolve(file)).release, "6.98.1", `at ${at}`)
      }
    }))

  it.scoped("to anything else is one clear line", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const mend = "give a bzImage, a vmlinux, or a directory that holds one"
      assert.strictEqual(
        yield* messageOf("/no/such"),
        `no kernel at /no/such: there is no such file or directory; ${mend}`
      )
      assert.strictEqual(
        yield* messageOf(directory),
        `no kernel at ${directory}: the directory holds none of arch/x86/boot/bzImage, bzImage, vmlinuz, vmlinux; ${mend}`
      )
      assert.strictEqual(
        yield* messageOf("/etc/passwd"),
        `no kernel at /etc/passwd: the file is neither a bzImage nor an ELF vmlinux; ${mend}`
      )
      assert.strictEqual(
        yield* messageOf("/bin/busybox"),
        `no kernel at /bin/busybox: the ELF file holds no "Linux version" banner, so it is no kernel; ${mend}`
      )
      assert.strictEqual(yield* messageOf("~/x", {}), `no kernel at ~/x: HOME is not set, so ~ means nothing; ${mend}`)
      writeFileSync(join(directory, "empty"), "")
      assert.include(yield* messageOf(join(directory, "empty")), "neither a bzImage nor an ELF vmlinux")
      assert.include(yield* messageOf("/dev/null"), "neither a file nor a directory")
    }))
})

describe("which package a selector means", () => {
  const names = [
    "linux-image-6.1.0-56-amd64",
    "linux-image-6.1.0-56-amd64-dbg",
    "linux-image-6.1.0-56-cloud-amd64-unsigned",
    "linux-image-6.12-cloud-amd64",
    "linux-image-6.12.117+deb12-amd64-unsigned",
    "linux-image-6.12.117+deb12-cloud-amd64",
    "linux-image-6.12.117+deb12-cloud-amd64-dbg",
    "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
    "linux-image-6.12.117+deb12-rt-amd64-unsigned",
    "linux-image-6.12.43+bpo-amd64-unsigned",
    "linux-image-cloud-amd64"
  ]
  it.each<[DebianSelector, ReadonlyArray<number>]>([
    [{ _tag: "Series", series: "6.12", flavour: "cloud" }, [5, 7]],
    [{ _tag: "Series", series: "6.12", flavour: "" }, [4, 9]],
    [{ _tag: "Series", series: "6.12", flavour: "rt" }, [8]],
    [{ _tag: "Series", series: "6.1", flavour: "" }, [0]],
    [{ _tag: "Series", series: "6.12.117", flavour: "cloud" }, [5, 7]],
    [{ _tag: "Series", series: "6.12.11", flavour: "cloud" }, []],
    [{ _tag: "Release", release: "6.1.0-56-cloud-amd64" }, [2]],
    [{ _tag: "Package", name: "linux-image-6.12.117+deb12-cloud-amd64" }, [5]],
    [{ _tag: "Package", name: "linux-image-6.1.0-56-amd64-dbg" }, []]
  ])("%j", (selector, expected) => {
    assert.deepStrictEqual(names.filter((name) => selects(selector, name)), expected.map((index) => names[index]))
  })
})

describe.skipIf(!hasApt)("debian:", () => {
  it.scoped(
    "fetches once, and then answers from the cache without apt, dpkg or the network",
    () =>
      Effect.gen(function*() {
        const fetched = yield* resolve("debian:6.12-cloud") // the shared cache: at most one download, ever
        assert.match(fetched.release, /^6\.12\.\d+.*-cloud-amd64$/)
        assert.match(fetched.source, /^Debian package linux-image-6\.12\.\S+-cloud-amd64-unsigned 6\.12\.\S+$/)
        assert.include(readFileSync(fetched.config!, "utf8"), "CONFIG_DEBUG_INFO_BTF=y")
        const directory = dirname(fetched.image)
        const bytes = readFileSync(fetched.image)
        assert.include(run("file", ["-b", fetched.image]).toString(), `bzImage, version ${fetched.release} `)
        const metadata = JSON.parse(readFileSync(join(directory, "metadata.json"), "utf8"))
        assert.strictEqual(metadata.imageSha256, createHash("sha256").update(bytes).digest("hex"))
        assert.strictEqual(metadata.imageBytes, bytes.length)

        yield* withVariable("PATH", yield* temporary)
        assert.deepStrictEqual(yield* resolve("debian:6.12-cloud"), fetched)
        assert.deepStrictEqual(yield* resolve(`debian:${fetched.release}`), fetched)
        assert.deepStrictEqual(yield* resolve(`debian:${metadata.package}`), fetched)
      }),
    240_000
  )

  it.scoped("takes the newest cached kernel that matches, and none that is broken", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const entry = (version: string, bytes: number) => {
        const name = `linux-image-${version}+deb12-cloud-amd64-unsigned`
        const directory = join(root, `debian-${name}_${version}-1`)
        mkdirSync(directory)
        writeFileSync(join(directory, "vmlinuz"), image)
        writeFileSync(
          join(directory, "metadata.json"),
          JSON.stringify({
            source: "debian",
            package: name,
            version: `${version}-1`,
            release: `${version}+deb12-cloud-amd64`,
            imageBytes: bytes,
            imageSha256: "0".repeat(64)
          })
        )
        return directory
      }
      entry("6.12.9", image.length)
      const newest = entry("6.12.20", image.length)
      entry("6.12.30", image.length + 1) // truncated since
      writeFileSync(join(entry("6.12.40", image.length), "metadata.json"), "{") // corrupt
      rmSync(join(entry("6.12.50", image.length), "vmlinuz"))
      mkdirSync(join(root, "something-else"))
      yield* withVariable("PATH", root)
      const found = yield* resolve("debian:6.12-cloud", { KTSTR_CACHE_DIR: root })
      assert.strictEqual(found.image, join(newest, "vmlinuz"))
      assert.isUndefined(found.config)
    }))

  it.scoped("says what the host lacks without apt", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* withVariable("PATH", root)
      const error = yield* Effect.flip(resolve("debian:6.12-cloud", { KTSTR_CACHE_DIR: root }))
      assert.instanceOf(error, HostLacks)
      assert.strictEqual(
        error.message,
        "apt-cache: the program is not on the PATH; use a Debian host (apt and dpkg), or give the path of a kernel image"
      )
    }))

  it.scoped("names close packages where none matches", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const message = yield* messageOf("debian:6.12.99999-cloud", { KTSTR_CACHE_DIR: root })
      assert.match(
        message,
        /^no Debian package for series 6.12.99999, flavour cloud: the closest that apt knows are linux-image-6\.12\.\S+, linux-image-\S+, linux-image-\S+; run `apt-get update`, or ask for one of those$/
      )
      assert.match(
        yield* messageOf("debian:9.9.9-1-amd64", { KTSTR_CACHE_DIR: root }),
        /^no Debian package for release /
      )
      assert.deepStrictEqual(readdirSync(root), [])
    }), 60_000)

  it.scoped("says apt's last word where the download fails, and leaves nothing", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* withVariable("http_proxy", "http://127.0.0.1:9")
      yield* withVariable("https_proxy", "http://127.0.0.1:9")
      const message = yield* messageOf("debian:6.12-cloud", { KTSTR_CACHE_DIR: root })
      assert.match(message, /^cannot download linux-image-6\.12\S+ \S+: E: .*; check the network/)
      assert.deepStrictEqual(readdirSync(root), [])
    }), 60_000)

  it.scoped("interrupted during the download leaves no process and no file", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const silent = createServer()
      yield* Effect.acquireRelease(
        Effect.async<void>((done) => void silent.listen(0, "127.0.0.1", () => done(Effect.void))),
        () => Effect.sync(() => silent.close())
      )
      const address = silent.address()
      const port = typeof address === "object" ? address?.port : undefined
      const asked = new Promise((connected) =>
        silent.once("connection", (socket) => {
          socket.on("error", () => undefined)
          socket.resume()
          connected(undefined)
        })
      )
      yield* withVariable("http_proxy", `http://127.0.0.1:${port}`)
      yield* withVariable("https_proxy", `http://127.0.0.1:${port}`)
      const fiber = yield* Effect.fork(resolve("debian:6.12-cloud", { KTSTR_CACHE_DIR: root }))
      yield* Effect.promise(() => asked)
      assert.isAbove(processesIn(root).length, 0)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(processesIn(root), [])
      assert.deepStrictEqual(readdirSync(root), [])
    }), 60_000)

  it.scoped("fails for a read-only cache before it downloads", () =>
    Effect.gen(function*() {
      const message = yield* messageOf("debian:6.12-cloud", { KTSTR_CACHE_DIR: "/sys/ktstr" })
      assert.match(message, /^kernel cache \/sys\/ktstr: .*; set KTSTR_CACHE_DIR to a directory that you can write$/)
    }), 60_000)

  it.scoped("fetches anew what is broken in the cache", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const shared = yield* resolve("debian:6.12-cloud")
      const key = dirname(shared.image).slice((yield* cacheRoot).length + 1)
      mkdirSync(join(root, key))
      for (const name of ["vmlinuz", "metadata.json"]) {
        copyFileSync(join(dirname(shared.image), name), join(root, key, name))
      }
      truncateSync(join(root, key, "vmlinuz"), 1000)
      yield* withVariable("http_proxy", "http://127.0.0.1:9")
      yield* withVariable("https_proxy", "http://127.0.0.1:9")
      assert.match(yield* messageOf(`debian:${shared.release}`, { KTSTR_CACHE_DIR: root }), /^cannot download /)
    }), 240_000)
})
