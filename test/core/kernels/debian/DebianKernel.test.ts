import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import { cpSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { basename, join } from "node:path"
import { cacheRoot } from "../../../../src/core/CacheDir.ts"
import { HostLacks } from "../../../../src/core/Errors.ts"
import { readEntry, storeKernel, verifyEntry } from "../../../../src/core/kernels/cache/KernelCache.ts"
import { debianKernel, fetchDebianKernel } from "../../../../src/core/kernels/debian/DebianKernel.ts"
import { findPackage, listPackages } from "../../../../src/core/kernels/debian/DebianPackages.ts"
import { type DebianSelector, selects } from "../../../../src/core/kernels/debian/DebianSelector.ts"
import { until } from "../../../support/cli.ts"
import { Host, temporary, withVariables } from "../../kernelEntries.ts"
import { processesIn, withVariable } from "../../processes.ts"
import { has, run } from "../../samples.ts"

const hasApt = has("apt-get") && has("dpkg")
const CLOUD: DebianSelector = { _tag: "Series", series: "6.12", flavour: "cloud" }

/** The kernel of a selector from the user's own cache: at most one download, ever. */
const shared = (selector: DebianSelector) => Effect.provide(debianKernel(selector), Host)

/** The user's own package lists, at most a day old, in another cache. */
const withLists = (root: string) =>
  Effect.gen(function*() {
    yield* Effect.provide(fetchDebianKernel(CLOUD), Host)
    symlinkSync(join(yield* cacheRoot, ".apt"), join(root, ".apt"))
  })

/** The same with another cache. */
const inCache = (root: string) => withVariables({ KTSTR_CACHE_DIR: root })

const kernel = (root: string, selector: DebianSelector, suite?: string) =>
  Effect.provide(inCache(root)(debianKernel(selector, suite)), Host)

const messageOf = (root: string, selector: DebianSelector, suite?: string) =>
  Effect.map(Effect.flip(kernel(root, selector, suite)), (error) => error.message)

const withProxy = (address: string) =>
  Effect.zipRight(withVariable("http_proxy", address), withVariable("https_proxy", address))

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
    "linux-image-cloud-amd64",
    "linux-image-7.3.4+deb13-arm64",
    "linux-image-7.3.4+deb13-arm64-16k",
    "linux-image-7.3.4+deb13-cloud-arm64-unsigned",
    "linux-image-7.3.4+deb13-arm64-16k-dbg"
  ]
  const pattern = (text: string): DebianSelector => ({ _tag: "Pattern", pattern: text })
  it.each<[DebianSelector, ReadonlyArray<number>]>([
    [CLOUD, [5, 7]],
    [{ _tag: "Series", series: "6.12", flavour: "" }, [4, 9]],
    [{ _tag: "Series", series: "6.12", flavour: "rt" }, [8]],
    [{ _tag: "Series", series: "6.1", flavour: "" }, [0]],
    [{ _tag: "Series", series: "6.12.117", flavour: "cloud" }, [5, 7]],
    [{ _tag: "Series", series: "6.12.11", flavour: "cloud" }, []],
    [{ _tag: "Release", release: "6.1.0-56-cloud-amd64" }, [2]],
    [{ _tag: "Package", name: "linux-image-6.12.117+deb12-cloud-amd64" }, [5]],
    [{ _tag: "Package", name: "linux-image-6.1.0-56-amd64-dbg" }, []],
    [pattern("linux-image-6.12*-rt-amd64*"), [8]],
    [pattern("6.12.*-cloud-amd64"), [5, 7]],
    [pattern("6.12.???+deb12-[!cr]*"), [4]],
    [pattern("*"), [0, 2, 4, 5, 7, 8, 9, 11, 12, 13]],
    [{ _tag: "Series", series: "7.3", flavour: "cloud-arm64" }, [13]],
    [{ _tag: "Series", series: "7.3", flavour: "arm64" }, [11]],
    [{ _tag: "Series", series: "7.3", flavour: "arm64-16k" }, [12]],
    [{ _tag: "Series", series: "7.3", flavour: "" }, []],
    [{ _tag: "Release", release: "7.3.4+deb13-cloud-arm64" }, [13]],
    [pattern("7.3*arm64*"), [11, 12, 13]],
    [pattern("6.1?0*"), [0, 2]],
    [pattern("6.1.0"), []]
  ])("%j", (selector, expected) => {
    assert.deepStrictEqual(names.filter((name) => selects(selector, name)), expected.map((index) => names[index]))
  })

  const pieces = FastCheck.constantFrom("*", "?", "[", "]", "!", "-", "a", "m", "d6", "4", ".", "+", "1-6", "[!c]")
  const end = FastCheck.array(pieces, { maxLength: 6 }).map((parts) => `6.12.0${parts.join("")}`)
  it("of a pattern is what bash's [[ == ]] says", () => {
    const patterns = FastCheck.sample(end, { numRuns: 400, seed: 5 })
    const texts = [
      "6.12.0-amd64",
      "6.12.0a-amd64",
      "6.12.0+1-amd64",
      "6.12.0--amd64", // a package has none of [, ] and ! in its name
      "6.12.0.m-amd64",
      "6.12.06-4-amd64"
    ]
    const script =
      `while IFS= read -r pattern; do for text; do [[ $text == $pattern* ]] && printf 1 || printf 0; done; echo; done`
    const expected = run(
      "env",
      ["LC_ALL=C", "bash", "-c", script, "bash", ...texts],
      Buffer.from(`${patterns.join("\n")}\n`)
    )
    const got = patterns.map((text) =>
      texts.map((release) => Number(selects(pattern(`${text}*`), `linux-image-${release}`))).join("")
    )
    assert.deepStrictEqual(
      got.map((row, index) => `${row} ${patterns[index]}`),
      expected.toString().trimEnd().split("\n").map((row, index) => `${row} ${patterns[index]}`)
    )
    assert.isTrue(got.includes("1".repeat(texts.length)) && got.includes("0".repeat(texts.length)))
  })
})

describe.skipIf(!hasApt)("a Debian kernel", () => {
  it.scopedLive(
    "is fetched once, whole, and then comes from the cache without apt, dpkg or the network",
    () =>
      Effect.gen(function*() {
        const fetched = yield* shared(CLOUD)
        const { directory, key, metadata } = fetched
        const image = join(directory, metadata.image.name)
        assert.match(metadata.release, /^6\.12\.\d+.*-cloud-amd64$/)
        if (metadata.source.kind !== "debian") return assert.fail(metadata.source.kind)
        const { package: name, version } = metadata.source
        assert.strictEqual(key, `debian-${name}_${version}`)
        assert.strictEqual(name, `linux-image-${metadata.release}-unsigned`)
        assert.deepStrictEqual([metadata.kconfigHash, metadata.extraKconfigHash, metadata.vmlinux], [null, null, null])
        assert.include(readFileSync(join(directory, metadata.config!), "utf8"), "CONFIG_DEBUG_INFO_BTF=y")
        assert.include(run("file", ["-b", image]).toString(), `bzImage, version ${metadata.release} `)
        assert.include(run("sha256sum", [image]).toString(), metadata.image.sha256)

        yield* withVariable("PATH", yield* temporary)
        const others: ReadonlyArray<DebianSelector> = [
          CLOUD,
          { _tag: "Release", release: metadata.release },
          { _tag: "Package", name },
          { _tag: "Pattern", pattern: "6.12.*-cloud-amd64" }
        ]
        for (const selector of others) assert.deepStrictEqual(yield* shared(selector), fetched)
      }),
    240_000
  )

  it.scopedLive("that apt has no newer one of is not downloaded again", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* withLists(root)
      const { directory, metadata } = yield* Effect.provide(fetchDebianKernel(CLOUD), Host)
      cpSync(directory, join(root, basename(directory)), { recursive: true })
      yield* withProxy("http://127.0.0.1:9")
      const again = yield* Effect.provide(inCache(root)(fetchDebianKernel(CLOUD)), Host)
      assert.deepStrictEqual(again.metadata, metadata)
      assert.deepStrictEqual(readdirSync(root).toSorted(), [".apt", basename(directory)])
    }), 240_000)

  it.scopedLive("is the newest cached one that matches, and none that is broken", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const stored = (version: string) => {
        const name = `linux-image-${version}+deb12-cloud-amd64-unsigned`
        const source = { kind: "debian" as const, package: name, version: `${version}-1` }
        return Effect.provide(
          storeKernel(root, `debian-${name}_${version}-1`, (directory) =>
            Effect.sync(() => {
              writeFileSync(join(directory, "vmlinuz"), version)
              const none = { vmlinux: null, config: null, kconfigHash: null, extraKconfigHash: null }
              return { source, release: `${version}+deb12-cloud-amd64`, image: "vmlinuz", ...none }
            }), { replace: false }),
          Host
        )
      }
      const newest = yield* stored("6.12.20")
      yield* stored("6.12.9") // stored later, and yet older
      truncateSync(join((yield* stored("6.12.30")).directory, "vmlinuz"), 1)
      writeFileSync(join((yield* stored("6.12.40")).directory, "metadata.json"), "{")
      rmSync(join((yield* stored("6.12.50")).directory, "vmlinuz"))
      yield* withVariable("PATH", root)
      assert.deepStrictEqual(yield* kernel(root, CLOUD), newest)
      assert.deepStrictEqual(yield* kernel(root, { _tag: "Pattern", pattern: "6.12.*" }), newest)
    }))

  it.scopedLive("replaces an entry of an earlier format, or one that is broken", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* withLists(root)
      const { directory, key, metadata } = yield* shared(CLOUD)
      if (metadata.source.kind !== "debian") return assert.fail(metadata.source.kind)
      const { package: name, version } = metadata.source
      cpSync(directory, join(root, key), { recursive: true })
      const { bytes, sha256 } = metadata.image
      writeFileSync(
        join(root, key, "metadata.json"),
        JSON.stringify({
          source: "debian",
          package: name,
          version,
          release: metadata.release,
          imageBytes: bytes,
          imageSha256: sha256
        })
      )
      yield* Effect.scoped(Effect.gen(function*() {
        yield* withProxy("http://127.0.0.1:9")
        assert.match(
          yield* messageOf(root, CLOUD),
          /^cannot download linux-image-6\.12\S+ \S+: E: .*; check the network/
        )
        const there = yield* Effect.provide(readEntry(root, key), Host)
        assert.include(there.pipe((entry) => JSON.stringify(entry)), "schema_drift", "what was there is still there")
      }))
      const fetched = yield* kernel(root, { _tag: "Release", release: metadata.release })
      assert.strictEqual(fetched.metadata.image.sha256, sha256)
      assert.strictEqual(
        (yield* Effect.provide(verifyEntry(root, key), Host)).pipe((entry) => JSON.stringify(entry)).includes("Valid"),
        true
      )
      assert.deepStrictEqual(readdirSync(root).toSorted(), [".apt", ".locks", key])
    }), 240_000)

  it.scopedLive("cannot be had without apt: that is what the host lacks", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* withVariable("PATH", root)
      const error = yield* Effect.flip(kernel(root, CLOUD))
      assert.instanceOf(error, HostLacks)
      assert.strictEqual(
        error.message,
        "apt-get: the program is not on the PATH; use a Debian host (apt and dpkg), or give the path of a kernel image"
      )
    }))

  it.scopedLive("that does not exist is told with the close ones that do", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* withLists(root)
      // none of a suite's packages is it, so its lists are asked for again
      yield* withProxy("http://127.0.0.1:9")
      const close = String
        .raw`: no such package in Debian's bookworm; the closest are (\S+), (\S+), (\S+); ask for one of those$`
      const cases: ReadonlyArray<readonly [DebianSelector, string, RegExp]> = [
        [
          { _tag: "Series", series: "6.12.99999", flavour: "cloud" },
          "series 6.12.99999, flavour cloud",
          /^linux-image-6\.12\..*-cloud-amd64$/
        ],
        [{ _tag: "Release", release: "9.9.9-1-amd64" }, "release 9.9.9-1-amd64", /^linux-image-6\.12\./],
        [{ _tag: "Pattern", pattern: "6.12.*-hurd-*" }, String.raw`pattern 6\.12\.\*-hurd-\*`, /^linux-image-6\.12\./]
      ]
      for (const [selector, wanted, nearest] of cases) {
        const message = yield* messageOf(root, selector, "bookworm")
        const names = new RegExp(`^kernel ${wanted}${close}`).exec(message)?.slice(1) ?? [message]
        for (const name of names) assert.match(name, nearest)
      }
      assert.deepStrictEqual(readdirSync(root), [".apt"])
    }), 60_000)

  it.scopedLive("that the mirror does not have any more is passed over", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* withLists(root)
      const find = (gone: ReadonlyArray<string>) =>
        Effect.provide(inCache(root)(findPackage(CLOUD, undefined, "recent", gone)), Host)
      const newest = yield* find([])
      const other = yield* find([`${newest.name}=${newest.version}`])
      assert.notStrictEqual(`${other.name}=${other.version}`, `${newest.name}=${newest.version}`)
      assert.isTrue(selects(CLOUD, other.name))
      assert.strictEqual(other.suite, newest.suite)
    }), 60_000)

  it.scopedLive(
    "is offered with those of its packages that the suite has, and their size",
    () =>
      Effect.gen(function*() {
        const root = yield* temporary
        yield* withLists(root)
        const suite = "trixie-backports"
        const offered = yield* Effect.provide(
          inCache(root)(listPackages(suite, (name) => name.includes("-cloud-"))),
          Host
        )
        assert.isAbove(offered.length, 0)
        const state = join(root, ".apt", suite)
        const settings = [
          `Dir::Etc::sourcelist=${join(state, "sources.list")}`,
          `Dir::State::lists=${join(state, "lists")}`,
          `Dir::Cache=${join(state, "cache")}`
        ].flatMap((setting) => ["-o", setting])
        const shown = run("apt-cache", ["-c", join(state, "apt.conf"), ...settings, "dumpavail"]).toString()
        const sizes = new Map(
          shown.split("\n\n").map((stanza) => {
            const field = (name: string) => new RegExp(`^${name}: (.+)$`, "m").exec(stanza)?.[1]
            return [`${field("Package")}=${field("Version")}`, Number(field("Size"))]
          })
        )
        for (const { bytes, missing, parts, version } of offered) {
          const known = parts.map((part) => sizes.get(`${part}=${version}`) ?? NaN)
          assert.strictEqual(bytes, known.reduce((sum, size) => sum + size, 0), parts.join(" "))
          for (const part of missing) assert.isFalse(sizes.has(`${part}=${version}`), part)
        }
      }),
    120_000
  )

  it.scopedLive("whose download fails leaves nothing but apt's last word", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* withLists(root)
      yield* withProxy("http://127.0.0.1:9")
      const message = yield* messageOf(root, CLOUD)
      assert.match(message, /^cannot download linux-image-6\.12\S+ \S+: E: .*; check the network/)
      assert.deepStrictEqual(readdirSync(root), [".apt"])
    }), 240_000)

  it.scopedLive(
    "whose suite cannot be reached, or does not exist, says which lists are not to be had, and why",
    () =>
      Effect.gen(function*() {
        const root = yield* temporary
        assert.match(
          yield* messageOf(root, CLOUD, "nosuchsuite"),
          /^cannot get the package lists of Debian's suite nosuchsuite: .*; name one that the mirror has, as in bookworm/
        )
        yield* withProxy("http://127.0.0.1:9")
        assert.match(
          yield* messageOf(root, CLOUD),
          /^cannot get the package lists of Debian's suite \S+: .*onnect.*; check the network and the mirror/
        )
        assert.deepStrictEqual(readdirSync(root), [".apt"])
      }),
    60_000
  )

  it.scopedLive("whose download is interrupted leaves no process and no file", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* withLists(root)
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
      yield* withProxy(`http://127.0.0.1:${port}`)
      const fiber = yield* Effect.fork(kernel(root, CLOUD))
      yield* Effect.promise(() => asked)
      assert.isAbove(processesIn(root).length, 0)
      yield* Fiber.interrupt(fiber)
      // apt-get has ended; its helpers have the same signal, and end when they get to it
      yield* Effect.promise(() => until("apt's helpers end", () => processesIn(root).length === 0))
      assert.deepStrictEqual(readdirSync(root), [".apt"])
    }), 60_000)

  it.scopedLive("is not downloaded for a cache that cannot be written", () =>
    Effect.gen(function*() {
      assert.match(
        yield* messageOf("/sys/ktstr", CLOUD),
        /^kernel cache \/sys\/ktstr\/\.apt\/\S+: .*; set KTSTR_CACHE_DIR to a directory that you can write$/
      )
    }), 60_000)
})
