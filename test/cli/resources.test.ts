import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { shellQuote } from "../../src/core/process/ShellQuote.ts"
import { degradedFailure, sealFailure } from "../../src/monitor/index.ts"
import { tarballOf } from "../core/miniKernel.ts"
import { complaints, KTSTR, place, type Ran } from "../support/cli.ts"
import { debianMirror, mayMount } from "../support/debianMirror.ts"
import { guestImage, IMAGE_MIB } from "../support/image.ts"
import { kernelImage } from "../support/kernels.ts"

/** A step of a script: the name of what it gives, and the words of a `ktstr`; or a line of shell. */
type Step = readonly [name: string, ...words: ReadonlyArray<string>] | string

/**
 * Run the steps one after the other in a mount namespace of their own, which takes its mounts along; what the commands did,
 * by name. In the lines, `$T` is a directory of the script's.
 */
const inNamespace = (
  steps: ReadonlyArray<Step>,
  env: Readonly<Record<string, string | undefined>> = {},
  wrap: (...words: ReadonlyArray<string>) => ReadonlyArray<string> = (...words) => words
) =>
  Effect.gen(function*() {
    const { cwd, env: own } = yield* place
    const said = join(cwd, "said")
    const top = join(cwd, "top")
    for (const directory of [said, top]) mkdirSync(directory)
    const lines = steps.map((step) => {
      if (typeof step === "string") return step
      const [name, ...words] = step
      const [before, ...after] = words[0] === "prlimit" ? [words.slice(0, 2), ...words.slice(2)] : [[], ...words]
      const command = [...before, process.execPath, KTSTR, ...after].map((word) =>
        word.startsWith("$T") ? `"${word}"` : shellQuote(word)
      )
      const file = join(said, name)
      const last = after.at(-1)
      if (last === FULL || last === SHUT) command.pop()
      const out = last === FULL ? FULL : `>${file}.out`
      const err = last === SHUT ? SHUT : `2>${file}.err`
      return `: >${file}.out; : >${file}.err; ${command.join(" ")} ${out} ${err} </dev/null; echo $? >${file}.code`
    })
    const [program, ...words] = wrap("unshare", "--mount", "sh", "-c", lines.join("\n"))
    const child = spawn(program, words, {
      cwd,
      env: { ...process.env, ...own, T: top, ...env },
      stdio: ["ignore", "inherit", "inherit"]
    })
    yield* Effect.promise(() => once(child, "close"))
    return (name: string): Ran => ({
      code: Number(readFileSync(join(said, `${name}.code`), "utf8")),
      stdout: readFileSync(join(said, `${name}.out`), "utf8"),
      stderr: readFileSync(join(said, `${name}.err`), "utf8")
    })
  })

/** In place of a last word: the answer goes to a disk that is full. */
const FULL = ">/dev/full"
/** In place of a last word: there is no stderr. */
const SHUT = "2>&-"

/** That a command said nothing but this one line, and ended with this code. */
const fails = (ran: Ran, line: RegExp, code = 1): void => {
  const [first, ...more] = complaints(ran)
  assert.match(first ?? "", line, ran.stderr)
  assert.deepStrictEqual([ran.code, more], [code, []], ran.stderr)
}

const works = (ran: Ran): void => assert.deepStrictEqual([ran.code, complaints(ran)], [0, []], ran.stderr)

/** A line that lists directories below `$T`. */
const list = (name: string, ...below: ReadonlyArray<string>) =>
  `LC_ALL=C ls -A ${
    below.map((path) => `"$T/${path}"`).join(" ")
  } >"$T/../said/${name}.out" 2>"$T/../said/${name}.err"; ` +
  `echo $? >"$T/../said/${name}.code"`

/** Bytes that leave so many KiB of a tmpfs of 64 MiB. */
const filledBut = (kib: number) => `head -c ${(65536 - kib) * 1024} /dev/zero >"$T/ballast"`
const TMPFS = `mount -t tmpfs -o size=64m tmpfs "$T"; mkdir "$T/tmp"; export TMPDIR="$T/tmp"`
const CACHE = `export KTSTR_CACHE_DIR="$T/cache"`

/** Every command that needs no guest, as it ends well: of an image, of documents made of it, of a kernel, of the cache. */
const commandsOn = (image: string, kernel: string): Readonly<Record<string, ReadonlyArray<string>>> => {
  const of = ["--image", image, "--allow-partial"]
  return {
    "dump": ["dump", ...of],
    "maps-list": ["maps", "list", ...of],
    "maps-show": ["maps", "show", "array_struct", ...of],
    "progs-list": ["progs", "list", ...of],
    "links": ["links", ...of],
    "sched-show": ["sched", "show", ...of],
    "sched-tasks": ["sched", "tasks", ...of],
    "sched-dsqs": ["sched", "dsqs", ...of],
    "sched-domains": ["sched", "domains", ...of],
    "diff": ["diff", "dump.json", "dump.json"],
    "sched-diff": ["sched", "diff", "sched.json", "sched.json"],
    "show": ["show", "failure.json"],
    "btf-show": ["btf", "show", "task_struct", "--kernel", kernel],
    "btf-offsets": ["btf", "offsets", "--kernel", kernel],
    "btf-header": ["btf", "header", "--kernel", kernel],
    "btf-diff": ["btf", "diff", kernel, kernel, "task_struct"],
    "kernel-list": ["kernel", "list"],
    "kernel-show": ["kernel", "show", kernel],
    "kernel-path": ["kernel", "path", kernel],
    "kernel-clean": ["kernel", "clean", "--corrupt-only"],
    "list": ["list", "--kernel", kernel],
    "run-plan": ["run", "--plan", "--kernel", kernel, "--mode", "emulated"]
  }
}

/** A document for `ktstr show`. */
const failure = () => {
  const why = { kind: "unreadable", text: "the guest did not stop" } as const
  const { pieces } = degradedFailure(
    { kind: "panic", text: "Kernel panic", seenIn: "console", at: "2026-11-29T11:00:00.000Z" },
    { kind: "vm", engine: "qemu", kernel: "made" },
    why,
    []
  )
  const text = Buffer.concat([...sealFailure({ pieces, log: { lines: [], exits: [], problem: why } })]).toString()
  return shellQuote(text)
}

/** What each command did, its words wrapped, after the documents that some of them read were made and `first` was done. */
const everyCommand = (
  wrapped: (words: ReadonlyArray<string>) => ReadonlyArray<string>,
  ...first: ReadonlyArray<string>
) =>
  Effect.gen(function*() {
    const commands = commandsOn(yield* guestImage, yield* kernelImage("6.12"))
    const { dump, "sched-show": sched } = commands
    const said = yield* inNamespace([
      ["dump.json", ...dump, "--json", "--out", "dump.json"],
      ["sched.json", ...sched, "--json"],
      "cp said/sched.json.out sched.json",
      `printf %s ${failure()} >failure.json`,
      ...first,
      ...Object.entries(commands).map(([name, words]): Step => [name, ...wrapped(words)])
    ])
    return Object.keys(commands).map((name) => ({ name, ran: said(name) }))
  })

describe.skipIf(!mayMount)("every command that needs no guest (needs root)", () => {
  const under = (...limit: ReadonlyArray<string>) => (words: ReadonlyArray<string>) => [...limit, ...words]
  const enough: ReadonlyArray<readonly [string, (words: ReadonlyArray<string>) => ReadonlyArray<string>, string]> = [
    ["64 descriptors", under("prlimit", "--nofile=64"), ":"],
    ["no /dev/shm", under(), "umount -l /dev/shm"],
    ["no /proc", under(), "umount -l /proc"],
    ["a full disk for temporary files and the cache", under(), `${TMPFS}; ${CACHE}; mkdir "$T/cache"; ${filledBut(0)}`]
  ]
  for (const [what, wrapped, first] of enough) {
    it.scopedLive(`needs no more than ${what}`, () =>
      Effect.gen(function*() {
        for (const { name, ran } of yield* everyCommand(wrapped, first)) {
          assert.deepStrictEqual([name, ran.code, complaints(ran)], [name, 0, []], ran.stderr)
          assert.notStrictEqual(ran.stdout, "", name)
        }
      }), 240_000)
  }

  it.scopedLive("says that the address space is limited", () =>
    Effect.gen(function*() {
      for (const { ran } of yield* everyCommand(under("prlimit", `--as=${1200 * 2 ** 20}`))) {
        fails(ran, /^ktstr: the address space is limited to 1200 MiB; .* raise the limit \(ulimit -v\)$/, 3)
      }
    }), 240_000)

  it.scopedLive("says that the disk that takes its answer is full", () =>
    Effect.gen(function*() {
      for (const { ran } of yield* everyCommand((words) => [...words, FULL])) {
        fails(ran, /^ktstr: cannot write to stdout: ENOSPC; is the disk full\?$/)
      }
    }), 240_000)

  it.scopedLive("answers without a stderr", () =>
    Effect.gen(function*() {
      for (const { name, ran } of yield* everyCommand((words) => [...words, SHUT])) {
        assert.deepStrictEqual([name, ran.code, ran.stdout === ""], [name, 0, false])
      }
    }), 240_000)
})

/** What each command that boots a guest did, its words wrapped, after `first` and before `last` was done. */
const everyBoot = (
  wrapped: (words: ReadonlyArray<string>) => ReadonlyArray<string>,
  first = ":",
  ...last: ReadonlyArray<Step>
) =>
  Effect.gen(function*() {
    const kernel = yield* kernelImage("6.12")
    const vm = ["--kernel", kernel, "--memory-mib", "192", "--engine", "qemu"]
    const commands = {
      "vm-run": ["vm", "run", ...vm, "--exec", "echo ran"],
      "dump": ["dump", ...vm, "--exec", "true"],
      "maps-list": ["maps", "list", ...vm],
      "sched-show": ["sched", "show", ...vm, "--exec", "true"],
      "monitor": ["monitor", ...vm, "--exec", "sleep 1", "--every", "200ms"],
      "run": ["run", "short.json", "--kernel", kernel, "--memory-mib", "192", "--mode", "emulated"]
    }
    const said = yield* inNamespace([
      `printf %s ${shellQuote(JSON.stringify(SHORT))} >short.json`,
      first,
      ...Object.entries(commands).map(([name, words]): Step => [name, ...wrapped(words)]),
      ...last
    ])
    return { said, ran: Object.keys(commands).map((name) => ({ name, ran: said(name) })) }
  })

/** A workload for `ktstr run`. */
const SHORT = {
  version: 1,
  name: "short",
  groups: { spin: { workers: { perCpu: 1 }, work: { type: "spin" } } },
  steps: [{ name: "run", hold: "200 millis" }]
}

describe.skipIf(!mayMount)("every command that boots a guest (needs root)", () => {
  it.scopedLive(
    "needs no more than 64 descriptors, no /dev/shm, and no room for temporary files and the cache, and leaves none",
    () =>
      Effect.gen(function*() {
        const few = (words: ReadonlyArray<string>) => ["prlimit", "--nofile=64", ...words]
        const poor = `umount -l /dev/shm; ${TMPFS}; ${CACHE}; mkdir "$T/cache"; ${filledBut(0)}`
        const { ran, said } = yield* everyBoot(few, poor, list("left", "cache", "tmp"))
        for (const { name, ran: one } of ran) {
          assert.deepStrictEqual([name, one.code, complaints(one)], [name, 0, []], one.stderr)
          assert.notStrictEqual(one.stdout, "", name)
        }
        assert.match(said("left").stdout, /^\S+\/cache:\n\n\S+\/tmp:\n$/)
      }),
    240_000
  )

  it.scopedLive("says that the disk that takes its answer is full", () =>
    Effect.gen(function*() {
      for (const { ran } of (yield* everyBoot((words) => [...words, FULL])).ran) {
        fails(ran, /^ktstr: cannot write to stdout: ENOSPC; is the disk full\?$/)
      }
    }), 240_000)

  it.scopedLive("answers without a stderr", () =>
    Effect.gen(function*() {
      for (const { name, ran } of (yield* everyBoot((words) => [...words, SHUT])).ran) {
        assert.deepStrictEqual([name, ran.code, ran.stdout === ""], [name, 0, false])
      }
    }), 240_000)

  it.scopedLive("says that the address space is limited", () =>
    Effect.gen(function*() {
      for (const { ran } of (yield* everyBoot((words) => ["prlimit", `--as=${1200 * 2 ** 20}`, ...words])).ran) {
        fails(ran, /^ktstr: the address space is limited to 1200 MiB; .* raise the limit \(ulimit -v\)$/, 3)
      }
    }), 60_000)

  it.scopedLive("lacks /proc", () =>
    Effect.gen(function*() {
      for (const { ran } of (yield* everyBoot((words) => words, "umount -l /proc")).ran) {
        fails(ran, /^ktstr: \/proc\/self\/fd: not there; .*; mount -t proc proc \/proc$/, 3)
      }
    }), 60_000)
})

describe.skipIf(!mayMount)("a disk of 64 MiB that is full (needs root)", () => {
  it.scopedLive(
    "as cache: kernel fetch and build say so, and work once there is room; what is there stays valid",
    () =>
      Effect.gen(function*() {
        const { env, id, wrap } = yield* debianMirror
        const { cwd } = yield* place
        const tarball = tarballOf(cwd, join(cwd, "linux-6.99.3.tar.xz"), "6.99.3")
        const said = yield* inNamespace(
          [
            TMPFS,
            CACHE,
            filledBut(9000),
            ["download", "kernel", "fetch", id],
            ["empty", "kernel", "list"],
            filledBut(20_000),
            ["unpack", "kernel", "fetch", id],
            filledBut(16),
            ["build", "kernel", "build", "--tarball", tarball],
            "rm \"$T/ballast\"",
            ["fetched", "kernel", "fetch", id],
            filledBut(0),
            ["again", "kernel", "fetch", id],
            ["list", "kernel", "list", "--json"],
            ["corrupt", "kernel", "clean", "--corrupt-only"],
            ["clean", "kernel", "clean", "--all"],
            ["cleaned", "kernel", "list"],
            list("left", "cache", "tmp")
          ],
          env,
          wrap
        )
        fails(
          said("download"),
          /^ktstr: cannot (download|unpack) linux-image-6\.99\.1\S+ \S+: .*No space left.*; check /i
        )
        assert.match(said("empty").stdout, /^no kernels in /)
        fails(
          said("unpack"),
          /^ktstr: cannot (unpack|store) linux-image-6\.99\.1\S+ \S+: .*(No space left|ENOSPC).*; check the free/i
        )
        fails(said("build"), /^ktstr: .*(no space left|ENOSPC).*; /i)
        works(said("fetched"))
        assert.strictEqual(said("again").stdout, said("fetched").stdout)
        const { entries } = JSON.parse(said("list").stdout)
        assert.deepStrictEqual(entries.map(({ state }: { readonly state: string }) => state), ["valid"])
        assert.strictEqual(said("corrupt").stdout, "nothing to remove\n")
        assert.match(said("clean").stdout, /^removed debian-linux-image-6\.99\.1\S+\n$/)
        assert.match(said("cleaned").stdout, /^no kernels in /)
        assert.match(said("left").stdout, /^\S+\/cache:\n\.apt\n\.locks\n\n\S+\/tmp:\n$/)
      }),
    120_000
  )

  it.scopedLive(
    "as output, console and TMPDIR: nothing half-written stays, and nothing else is the worse for it",
    () =>
      Effect.gen(function*() {
        const image = yield* guestImage
        const vm = ["--kernel", yield* kernelImage("6.12"), "--memory-mib", "192", "--engine", "qemu"]
        const said = yield* inNamespace([
          TMPFS,
          filledBut(512),
          ["out", "dump", "--image", image, "--out", "$T/dump.json"],
          filledBut(0),
          ["none", "dump", "--image", image, "--out", "$T/dump.json"],
          list("files", "."),
          ["stdout", "dump", "--image", image, "--json"],
          ["guest", "dump", ...vm, "--json", "--exec", "true", "--console", "$T/console"],
          ["run", "vm", "run", ...vm, "--exec", "echo ran"],
          "rm \"$T/console\"",
          ["kept", "run", "--kernel", ...vm.slice(1, 4), "--mode", "emulated", "--runs-dir", "$T/runs"],
          ["core", "vm", "core", ...vm, "--exec", "true", "--out", "$T/core"],
          ["failure", "vm", "run", ...vm, "--exec", "exit 3", "--on-failure", "$T/failure.json"],
          list("after", ".", "runs")
        ])
        for (const name of ["out", "none"]) {
          fails(said(name), /^ktstr: cannot write \S+dump\.json: .*ENOSPC.*; give a writable path/)
        }
        fails(said("kept"), /^ktstr: the run's folder \S+: ENOSPC: no space left on device, write; name a directory /)
        fails(said("core"), /^ktstr: cannot write \S+core: ENOSPC: .*; give a writable path on a disk with free space$/)
        fails(said("failure"), /^ktstr: cannot write \S+failure\.json: ENOSPC: .*; give a writable path/)
        assert.match(said("after").stdout, /^\S+\.:\nballast\nruns\ntmp\n\n\S+\/runs:\n$/)
        assert.match(said("files").stdout, /^ballast\ntmp\n$/)
        works(said("stdout"))
        assert.strictEqual(said("run").stdout, "ran\n")
        const guest = said("guest")
        assert.strictEqual(JSON.parse(guest.stdout).schema, "single", guest.stderr)
        const [incomplete, ...more] = complaints(guest)
        assert.match(
          incomplete ?? "",
          /^ktstr: warn: \S+\/console is incomplete: ENOSPC: no space left on device, write$/
        )
        assert.deepStrictEqual(more, [])
      }),
    120_000
  )
})

describe.skipIf(!mayMount)("a limit (needs root)", () => {
  it.scopedLive(
    "of 64 descriptors is enough to clean up; with 24 no guest boots, and that is said",
    () =>
      Effect.gen(function*() {
        const said = yield* inNamespace([
          ["clean", "prlimit", "--nofile=64", "kernel", "clean", "--all"],
          ["fewer", "prlimit", "--nofile=24", "dump", "--kernel", yield* kernelImage("6.12"), "--engine", "qemu"]
        ])
        works(said("clean"))
        fails(
          said("fewer"),
          /^ktstr: cannot boot \S+: \S+: EMFILE: too many files are open; raise the limit \(ulimit -n\)/
        )
      }),
    60_000
  )

  it.scopedLive("of data is no limit of what is mapped", () =>
    Effect.gen(function*() {
      const image = yield* guestImage
      const said = yield* inNamespace([
        ["image", "prlimit", `--data=${IMAGE_MIB * 2 ** 20}`, "dump", "--image", image, "--out", "dump.json"]
      ])
      works(said("image"))
    }), 60_000)

  it.scopedLive("of the address space is said, as far as Node starts", () =>
    Effect.gen(function*() {
      const image = yield* guestImage
      const vm = ["--kernel", yield* kernelImage("6.12"), "--memory-mib", "192", "--engine", "qemu"]
      const limits = [800, 1200, 1500, 1540]
      const said = yield* inNamespace(limits.flatMap((mib): ReadonlyArray<Step> => [
        [`image${mib}`, "prlimit", `--as=${mib * 2 ** 20}`, "dump", "--image", image, "--json"],
        [`guest${mib}`, "prlimit", `--as=${mib * 2 ** 20}`, "dump", ...vm, "--json"]
      ]))
      for (const mib of limits.slice(0, 3)) {
        const line = new RegExp(
          `^ktstr: the address space is limited to ${mib} MiB; .* raise the limit \\(ulimit -v\\)$`
        )
        for (const name of [`image${mib}`, `guest${mib}`]) fails(said(name), line, 3)
      }
      // how much Node has taken by then is Node's matter
      for (const name of ["image1540", "guest1540"]) {
        if (said(name).code === 0) works(said(name))
        else fails(said(name), /^ktstr: cannot (map|boot) .*(ENOMEM|no memory|Cannot allocate memory).*; is /)
      }
    }), 120_000)
})

describe.skipIf(!mayMount)("a host without /proc (needs root)", () => {
  it.scopedLive("fetches and removes kernels", () =>
    Effect.gen(function*() {
      const { env, id, wrap } = yield* debianMirror
      const said = yield* inNamespace(
        [
          "umount -l /proc",
          ["fetch", "kernel", "fetch", id],
          ["clean", "kernel", "clean", "--all"]
        ],
        env,
        wrap
      )
      for (const name of ["fetch", "clean"]) works(said(name))
    }), 120_000)
})
