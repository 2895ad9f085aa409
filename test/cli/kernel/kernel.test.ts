import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { KernelList, KernelReport, KernelSearch } from "../../../src/cli/kernel/kernel.ts"
import { vmlinuxOf } from "../../../src/core/image/KernelImage.ts"
import { openAptState } from "../../../src/core/kernels/debian/AptState.ts"
import { debianHost } from "../../../src/core/kernels/debian/DebianSuites.ts"
import { Host } from "../../core/kernelEntries.ts"
import { has } from "../../core/samples.ts"
import { complaints, ktstr, place } from "../../support/cli.ts"
import { debianMirrorOf, mayMount, RELEASE } from "../../support/debianMirror.ts"
import { kernelImage } from "../../support/kernels.ts"

const parseList = Schema.decodeUnknownSync(Schema.parseJson(KernelList))
const parseSearch = Schema.decodeUnknownSync(Schema.parseJson(KernelSearch))
const parseReport = Schema.decodeUnknownSync(Schema.parseJson(KernelReport))

/** A cache of its own, with a link to a real entry and some that are broken. */
const cache = Effect.gen(function*() {
  const here = yield* place
  const entry = dirname(yield* kernelImage("6.12"))
  const root = join(here.cwd, "kernels")
  mkdirSync(root)
  execFileSync("cp", ["-r", entry, root])
  const broken = (key: string, metadata: string) => {
    mkdirSync(join(root, key))
    writeFileSync(join(root, key, "metadata.json"), metadata)
  }
  broken("6.14.1-tarball-x86_64-kc01234567", "{\"format\":1,")
  broken("6.14.2-tarball-x86_64-kc01234567", "{\"format\":99}")
  return { cwd: here.cwd, env: { ...here.env, KTSTR_CACHE_DIR: root }, root, entry }
})

/** What a terminal acts on, and what would lead out of a folder. */
const HOSTILE = ["\u001b[2J", "\u001b]0;x\u0007", "\u009b1m", "\u202e", "../../../x", "/etc/x", "x".repeat(20_000)]
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const UNPRINTABLE = /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u

/** A suite's lists as apt has them, with these packages; today's, so that nothing is downloaded. */
const listsOf = (root: string, suite: string, packages: ReadonlyArray<Readonly<Record<string, string>>>) =>
  Effect.gen(function*() {
    const { directory } = yield* Effect.flatMap(debianHost, (host) => openAptState(root, host, suite))
    const [, host, path] = /^deb (?:\[.*\] )?http:\/\/([^/ ]+)(\S*) /m.exec(
      readFileSync(join(directory, "sources.list"), "utf8")
    )!
    const name = `${host}${path}/dists/${suite}/main/binary-amd64/Packages`.replaceAll("/", "_")
    const stanzas = packages.map((fields) =>
      Object.entries({
        Architecture: "amd64",
        Maintainer: "x",
        Filename: "x.deb",
        Size: "1000",
        Description: "x",
        ...fields
      })
        .map(([field, value]) => `${field}: ${value}\n`).join("")
    )
    writeFileSync(join(directory, "lists", name), stanzas.join("\n"))
    writeFileSync(join(directory, "refreshed"), String(Date.now()))
  }).pipe(Effect.provide(Host))

describe("ktstr kernel", () => {
  it.scopedLive.skipIf(!has("apt-cache"))(
    "search offers no package whose name, version or size is not of Debian's form",
    () =>
      Effect.gen(function*() {
        const { cwd, env } = yield* place
        const root = join(cwd, "kernels")
        mkdirSync(root)
        const good = { Package: "linux-image-6.12.1-cloud-amd64", Version: "6.12.1-1" }
        yield* listsOf(root, "bookworm", [
          good,
          ...HOSTILE.flatMap((text, n) => [
            { ...good, Package: `linux-image-6.12.${n + 2}${text}-amd64` },
            { Package: `linux-image-6.12.${n + 20}-amd64`, Version: `1${text}` },
            { Package: `linux-image-6.12.${n + 30}-amd64`, Version: text }
          ]),
          ...["abc", "-5", "1e308", "99999999999999999999999"].map((Size, n) => ({
            Package: `linux-image-6.12.${n + 40}-amd64`,
            Version: "1",
            Size
          }))
        ])
        const options = { cwd, env: { ...env, KTSTR_CACHE_DIR: root } }
        const json = yield* ktstr(["kernel", "search", "bookworm/6.12*", "--json"], options)
        assert.strictEqual(json.code, 0, json.stderr)
        assert.deepStrictEqual(parseSearch(json.stdout).kernels.map(({ release }) => release), ["6.12.1-cloud-amd64"])
        const text = yield* ktstr(["kernel", "search", "bookworm/6.12*"], options)
        assert.notMatch(text.stdout + text.stderr, UNPRINTABLE)
        assert.strictEqual(text.stdout.split("\n").length, 3, text.stdout)
      }),
    120_000
  )

  it.scopedLive.skipIf(!has("apt-get") || !mayMount)(
    "fetch takes nothing that a package's links lead to outside of it",
    () =>
      Effect.gen(function*() {
        const outside = (yield* place).cwd
        for (const folder of ["kernel", "boot"]) mkdirSync(join(outside, folder))
        const files = ["kernel/m.ko", "modules.builtin", `boot/vmlinuz-${RELEASE}`, "vmlinuz"]
        for (const file of files) writeFileSync(join(outside, file), "precious")
        const links: ReadonlyArray<readonly [path: string, target: string, lacks: string]> = [
          [`lib/modules/${RELEASE}`, outside, "modules"],
          [`boot/vmlinuz-${RELEASE}`, join(outside, "vmlinuz"), "vmlinuz"],
          ["boot", join(outside, "boot"), "vmlinuz"]
        ]
        for (const [path, target, lacks] of links) {
          const { env, id, wrap } = yield* debianMirrorOf((files) => {
            rmSync(join(files, path), { recursive: true })
            symlinkSync(target, join(files, path))
          })
          const { cwd, ...here } = yield* place
          const ran = yield* ktstr(["kernel", "fetch", id], { cwd, env: { ...here.env, ...env }, under: wrap() })
          const said = `ktstr: cannot unpack \\S+ \\S+: the package holds no ${lacks} of ${RELEASE}; `
          assert.match(complaints(ran).join("\n"), new RegExp(`^${said}`), path)
          assert.deepStrictEqual([ran.code, ran.stdout], [1, ""], path)
          for (const file of files) assert.strictEqual(readFileSync(join(outside, file), "utf8"), "precious", path)
        }
      }),
    240_000
  )

  it.scoped("list shows what metadata says as text, and takes no name in it for a path", () =>
    Effect.gen(function*() {
      const { cwd, env, root } = yield* cache
      const [good] = parseList((yield* ktstr(["kernel", "list", "--json"], { cwd, env })).stdout).entries
      assert(good.state === "valid")
      const original = JSON.parse(readFileSync(join(root, good.key, "metadata.json"), "utf8"))
      const changes = HOSTILE.flatMap((text) => [
        { release: text },
        { source: { ...original.source, package: text, version: text } },
        { source: { kind: "git", url: text, ref: text, commit: text } },
        { image: { ...original.image, name: text } },
        { config: text },
        { modules: text }
      ])
      for (const [n, change] of changes.entries()) {
        const entry = join(root, `changed-${n}`)
        mkdirSync(entry)
        for (const name of readdirSync(join(root, good.key))) {
          if (name !== "metadata.json") symlinkSync(join(root, good.key, name), join(entry, name))
        }
        writeFileSync(join(entry, "metadata.json"), JSON.stringify({ ...original, ...change }))
      }
      mkdirSync(join(root, "\u001b[2J\u202ename"))
      writeFileSync(join(root, "\u001b[2J\u202ename", "metadata.json"), "{\"format\":1")
      const text = yield* ktstr(["kernel", "list"], { cwd, env })
      const json = yield* ktstr(["kernel", "list", "--json"], { cwd, env })
      assert.deepStrictEqual([text.code, json.code], [0, 0], text.stderr)
      for (const out of [text.stdout, json.stdout]) assert.notMatch(out, UNPRINTABLE)
      const { entries } = parseList(json.stdout)
      const stateOf = (n: number) => entries.find(({ key }) => key === `changed-${n}`)
      for (const [n, change] of changes.entries()) {
        const named = ["image", "config", "modules"].some((name) => name in change)
        assert.strictEqual(stateOf(n)?.state, named ? "corrupt" : "valid", JSON.stringify(change).slice(0, 100))
      }
      assert.strictEqual(text.stdout.trimEnd().split("\n").length, entries.length + 1)
    }), 120_000)

  it.scopedLive(
    "searches the suites: in dpkg's order, what is cached with what its config says of sched_ext",
    () =>
      Effect.gen(function*() {
        const image = yield* kernelImage("6.12")
        const searched = yield* ktstr(["kernel", "search", "6.12-cloud", "--json"])
        assert.strictEqual(searched.code, 0, searched.stderr)
        const { kernels } = parseSearch(searched.stdout)
        assert.isAbove(kernels.length, 1)
        for (const { bytes, flavour, release } of kernels) {
          assert.match(release, /^6\.12\.\d+\S*-cloud-amd64$/)
          assert.strictEqual(flavour, "cloud")
          assert.isAbove(bytes, 2 ** 20)
        }
        for (const [index, { release }] of kernels.slice(1).entries()) {
          execFileSync("dpkg", ["--compare-versions", kernels[index].release, "ge", release])
        }
        const key = dirname(image).slice(dirname(dirname(image)).length + 1)
        const cached = kernels.filter((kernel) => kernel.cached === key)
        assert.strictEqual(cached.length, 1)
        const config = readFileSync(join(dirname(image), "config"), "latin1")
        assert.strictEqual(cached[0].schedExt, /^CONFIG_SCHED_CLASS_EXT=y$/m.test(config))
        const old = parseSearch((yield* ktstr(["kernel", "search", "debian:6.1", "--json"])).stdout)
        assert.isTrue(old.kernels.length > 0 && old.kernels.every(({ schedExt }) => schedExt === false))

        const text = yield* ktstr(["kernel", "search", cached[0].release])
        assert.match(
          text.stdout,
          /^RELEASE +VERSION +SUITE +FLAVOUR +SIZE +SCHED_EXT\n6\.12\.\S+ +\S+ +\S+ +cloud +\d+ MiB +(yes|no) +cached\n$/
        )
      }),
    300_000
  )

  it.scopedLive("lists what is in the cache, broken entries with what is wrong, and cleans these alone", () =>
    Effect.gen(function*() {
      const { cwd, entry, env, root } = yield* cache
      const key = entry.slice(dirname(entry).length + 1)
      const json = yield* ktstr(["kernel", "list", "--json"], { cwd, env })
      assert.deepStrictEqual([json.code, json.stderr], [0, ""])
      const { entries, root: said } = parseList(json.stdout)
      assert.strictEqual(said, root)
      assert.deepStrictEqual(
        entries.map((each) => [each.key, each.state === "valid" ? each.metadata.source.kind : each.kind]),
        [
          [key, "debian"],
          ["6.14.1-tarball-x86_64-kc01234567", "truncated"],
          ["6.14.2-tarball-x86_64-kc01234567", "schema_drift"]
        ]
      )
      const text = yield* ktstr(["kernel", "list"], { cwd, env })
      const lines = text.stdout.trimEnd().split("\n")
      assert.match(lines[0], /^KEY +STATE +RELEASE +SIZE +SOURCE$/)
      assert.match(lines[1], /^debian-linux-image-6\.12\S+ +ok +6\.12\S+ +\d+ MiB +Debian package linux-image-6\.12/)
      assert.match(lines[2], /^6\.14\.1-\S+ +truncated +metadata\.json ends before its closing brace$/)
      assert.strictEqual(lines.length, 4)

      const cleaned = yield* ktstr(["kernel", "clean", "--corrupt-only"], { cwd, env })
      assert.deepStrictEqual([cleaned.code, cleaned.stderr], [0, ""])
      assert.sameMembers(cleaned.stdout.trimEnd().split("\n"), [
        "removed 6.14.1-tarball-x86_64-kc01234567",
        "removed 6.14.2-tarball-x86_64-kc01234567"
      ])
      const kept = yield* ktstr(["kernel", "clean", "--keep", "1"], { cwd, env })
      assert.strictEqual(kept.stdout, "nothing to remove\n")
      const path = yield* ktstr(["kernel", "path", key], { cwd, env })
      assert.deepStrictEqual([path.code, path.stdout, path.stderr], [0, `${join(root, key, "vmlinuz")}\n`, ""])
      const all = yield* ktstr(["kernel", "clean", "--all"], { cwd, env })
      assert.strictEqual(all.stdout, `removed ${key}\n`)
      const empty = yield* ktstr(["kernel", "list"], { cwd, env })
      assert.strictEqual(empty.stdout, `no kernels in ${root}\n`)
      assert.deepStrictEqual(readdirSync(root).filter((name) => !name.startsWith(".")), [])
    }))

  it.scopedLive("leaves alone what is no entry of its own, and links", () =>
    Effect.gen(function*() {
      const { cwd, env, root } = yield* cache
      mkdirSync(join(root, "Documents"))
      writeFileSync(join(root, "Documents", "letter"), "")
      const outside = join(cwd, "outside")
      mkdirSync(outside)
      writeFileSync(join(outside, "metadata.json"), "{")
      symlinkSync(outside, join(root, "6.14.3-tarball-x86_64-kc01234567"))
      const cleaned = yield* ktstr(["kernel", "clean", "--all"], { cwd, env })
      assert.strictEqual(cleaned.code, 0)
      assert.match(complaints(cleaned).join("\n"), /Documents stays: it does not look like a kernel of ktstr's/)
      assert.isTrue(existsSync(join(root, "Documents", "letter")))
      assert.isTrue(existsSync(join(outside, "metadata.json")))
    }))

  it.scopedLive("shows a kernel as readelf and its config say", () =>
    Effect.gen(function*() {
      const { cwd, entry, env } = yield* cache
      const image = join(entry, "vmlinuz")
      const vmlinux = join(cwd, "vmlinux")
      writeFileSync(vmlinux, yield* vmlinuxOf(readFileSync(image), image))
      const readelf = (...args: ReadonlyArray<string>) => execFileSync("readelf", [...args, vmlinux]).toString()
      const json = yield* ktstr(["kernel", "show", "debian:6.12-cloud", "--json"], { cwd, env })
      assert.strictEqual(json.code, 0, json.stderr)
      const report = parseReport(json.stdout)
      assert.strictEqual(report.buildId, /Build ID: (\w+)/.exec(readelf("-n"))?.[1] ?? "readelf found none")
      const btf = / \.BTF +PROGBITS +\w+ \w+ (\w+)/.exec(readelf("-SW"))?.[1] ?? "none"
      assert.strictEqual(report.btfBytes, parseInt(btf, 16))
      const config = readFileSync(join(entry, "config"), "utf8")
      const set = config.split("\n").filter((line) => /^CONFIG_\w+=/.test(line))
      assert.deepStrictEqual(Object.entries(report.config ?? {}).map(([name, value]) => `${name}=${value}`), set)
      const whole = yield* ktstr(["kernel", "show", "debian:6.12-cloud", "--config"], { cwd, env })
      assert.strictEqual(whole.stdout, config)
      const text = yield* ktstr(["kernel", "show", vmlinux], { cwd, env })
      assert.strictEqual(/^release +(.*)$/m.exec(text.stdout)?.[1], report.release)
      assert.match(text.stdout, new RegExp(`^build id +${report.buildId}$`, "m"))
      assert.match(text.stdout, /^config +not known$/m)
    }))

  const usage: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
    [["build"], /say what to build, by one of: a VERSION, --source DIR, --git URL --ref REF, --tarball/],
    [["build", "6.14", "--source", "."], /say what to build, by one of/],
    [["build", "--git", "."], /--git URL and --ref REF go together/],
    [["build", "--ref", "main", "6.14"], /--git URL and --ref REF go together/],
    [["build", "debian:6.12"], /debian:6.12 is not a version; write 6.14/],
    [["build", "6.14", "--cpu-cap", "0"], /--cpu-cap needs a whole number, 1 or more/],
    [["clean"], /say what to remove, by one of/],
    [["clean", "--all", "--keep", "1"], /say what to remove, by one of/],
    [["fetch", "6.14"], /fetch gets Debian's kernels/],
    [["path", "6.14..6.12"], /swap the ends: 6\.12\.\.6\.14/],
    [["show", "--json", "--config"], /give --config or --json, not both/]
  ]
  for (const [args, message] of usage) {
    it.effect(`kernel ${args.join(" ")}: wrong usage`, () =>
      Effect.gen(function*() {
        const ran = yield* ktstr(["kernel", ...args])
        assert.match(ran.stderr, message)
        assert.deepStrictEqual([ran.code, ran.stdout, ran.stderr.split("\n").length], [2, "", 2])
      }))
  }

  it.scopedLive("takes KTSTR_KERNEL for the kernel that is not named", () =>
    Effect.gen(function*() {
      const { cwd, entry, env } = yield* cache
      const image = join(entry, "vmlinuz")
      const path = yield* ktstr(["kernel", "path"], { cwd, env: { ...env, KTSTR_KERNEL: ` ${image} ` } })
      assert.deepStrictEqual([path.code, path.stdout], [0, `${image}\n`])
      const range = yield* ktstr(["kernel", "path"], { cwd, env: { ...env, KTSTR_KERNEL: "6.12..6.14" } })
      assert.match(range.stderr, /^ktstr: KTSTR_KERNEL="6.12..6.14": the variable names one kernel/)
      assert.strictEqual(range.code, 2)
      const dump = yield* ktstr(["dump"], { cwd, env: { ...env, KTSTR_KERNEL: "9.99.1" } })
      assert.match(dump.stderr, /^ktstr: kernel 9\.99\.1: it is not in the cache; run `ktstr kernel build 9\.99\.1`\n$/)
      assert.strictEqual(dump.code, 1)
    }))
})
