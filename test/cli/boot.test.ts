import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { findProgram } from "../../src/core/process/Programs.ts"
import { probeKvm } from "../../src/kvm/probe/KvmProbe.ts"
import { complaints, ktstr, place, processesWith, type RunOptions, until } from "../support/cli.ts"
import { kernelImage } from "../support/kernels.ts"

/** `ktstr dump --json` of a guest, in a place that must be as it was when the command has ended. */
const dump = (args: ReadonlyArray<string>, options: (mark: string) => RunOptions = () => ({})) =>
  Effect.gen(function*() {
    const kernel = yield* kernelImage("6.12")
    const { cwd, env, leftovers, mark } = yield* place
    const { env: more, ...rest } = options(mark)
    const engine = args.includes("--engine") ? [] : ["--engine", "qemu"] // whatever else this host has
    const all = ["dump", "--json", "--kernel", kernel, "--memory-mib", "192", ...engine, ...args]
    const cmdline = args.includes("--cmdline") ? [] : ["--cmdline", mark]
    const ran = yield* ktstr([...all, ...cmdline], { cwd, env: { ...env, ...more }, ...rest })
    // the kernel reaps a killed QEMU a moment after us
    yield* Effect.promise(() => until("everything is gone", () => leftovers().length === 0, 5))
    return ran
  }).pipe(Effect.scoped)

const failing: ReadonlyArray<readonly [what: string, args: ReadonlyArray<string>, message: RegExp]> = [
  [
    "a script that fails",
    ["--exec", "echo first; printf '\\033[31mlast\\n'; exit 3"],
    /^ktstr: the script in the guest failed with exit status 3; it last said: .*first \| \\x1b\[31mlast/
  ],
  [
    "a guest that panics",
    ["--exec", "echo c > /proc/sysrq-trigger; sleep 60"],
    /^ktstr: the guest panicked: .*sysrq triggered crash; keep its console with --console FILE/
  ],
  [
    "a guest without an init",
    ["--cmdline", "rdinit=/nope init=/nope"],
    /^ktstr: the guest panicked: .*Kernel panic - not syncing: .*; keep its console/
  ],
  [
    "a guest that switches itself off",
    ["--exec", "poweroff -f"],
    /^ktstr: the guest has ended \(status 0\); its console .*$/
  ],
  [
    "a guest that does not get ready",
    ["--timeout", "1"],
    /^ktstr: the guest did not report ready within 1 s .*; raise --timeout, or keep its console with --console FILE$/
  ],
  [
    "an include that is not there",
    ["--include", "/missing"],
    /^ktstr: cannot include \/missing: no such file/
  ],
  [
    "two includes of one name",
    ["--include", "/bin/ls", "--include", "/usr/bin/../bin/ls"],
    /^ktstr: cannot include .*: another include is also called ls; rename one of them$/
  ],
  [
    "a script that is not there",
    ["--exec-file", "missing"],
    /^ktstr: cannot read the script missing: ENOENT.*; give --exec-file/
  ],
  [
    "a script that is a directory",
    ["--exec-file", "/"],
    /^ktstr: cannot read the script \/: EISDIR.*; give --exec-file/
  ],
  [
    "a console that cannot be kept",
    ["--console", "/missing/console"],
    /its console cannot be kept in \/missing\/console: ENOENT; set --console FILE to a writable path/
  ]
]

describe("what goes wrong with a guest is one line, exit code 1, and nothing left behind", () => {
  for (const [what, args, message] of failing) {
    it.effect(what, () =>
      Effect.gen(function*() {
        const ran = yield* dump(args)
        const [line, ...more] = complaints(ran)
        assert.match(line, message)
        assert.deepStrictEqual([ran.code, ran.stdout, more], [1, "", []])
      }), 60_000)
  }
})

describe("a host that lacks a program", () => {
  for (
    const [name, ...there] of [["busybox", "setpriv"], ["qemu-system-x86_64", "busybox", "setpriv"], [
      "setpriv",
      "busybox",
      "qemu-system-x86_64"
    ]]
  ) {
    it.scoped(`${name}: is told the package; exit code 3`, () =>
      Effect.gen(function*() {
        const { cwd } = yield* place
        for (const each of there) symlinkSync(findProgram(each)!, join(cwd, each))
        const ran = yield* dump([], () => ({ env: { PATH: cwd } }))
        const [line, ...more] = complaints(ran)
        assert.match(line, new RegExp(`^ktstr: ${name}: not on PATH; .*; apt-get install \\S+$`))
        assert.deepStrictEqual([ran.code, ran.stdout, more], [3, "", []])
      }))
  }
})

describe("--engine kvm", () => {
  it.effect(
    "boots where the probe guest ran on hardware; elsewhere it is refused, with why, exit code 3",
    () =>
      Effect.gen(function*() {
        const verdict = yield* probeKvm
        const ran = yield* dump(["--engine", "kvm"])
        if (verdict.kind === "hardware") {
          assert.deepStrictEqual([complaints(ran), ran.code], [[], 0])
          assert.strictEqual(JSON.parse(ran.stdout).source.engine, "kvm")
        } else {
          const [line, ...more] = complaints(ran)
          assert.match(line, /^ktstr: the kvm engine: \/dev\/kvm.*; use the engine auto or qemu: .*$/)
          assert.deepStrictEqual([ran.code, ran.stdout, more], [3, "", []])
        }
      }),
    60_000
  )
})

describe("an interruption leaves nothing behind", () => {
  /** Send a signal some time after the moment. */
  const at =
    (moment: "QEMU" | "script" | number, signal: NodeJS.Signals, thenMillis = 0) => (mark: string): RunOptions => ({
      meanwhile: async (child) => {
        if (moment === "QEMU") await until("QEMU runs", () => processesWith(mark).length > 1)
        const wait = typeof moment === "number" ? moment : thenMillis
        await new Promise((resolve) => setTimeout(resolve, wait))
        child.kill(signal)
      }
    })
  const cases: ReadonlyArray<readonly [what: string, options: (mark: string) => RunOptions, code: number]> = [
    ...[60, 100, 140, 180, 220, 260, 300].map((millis) =>
      [`SIGINT after ${millis} ms`, at(millis, "SIGINT"), 130] as const
    ),
    ["SIGTERM as QEMU starts", at("QEMU", "SIGTERM"), 130],
    ["SIGINT while the guest boots", at("QEMU", "SIGINT", 700), 130],
    ["SIGHUP while the guest boots", at("QEMU", "SIGHUP", 300), 130],
    ["SIGINT while the script runs", at("QEMU", "SIGINT", 6000), 130],
    ["SIGKILL while the guest boots", at("QEMU", "SIGKILL", 300), 137]
  ]
  for (const [what, options, code] of cases) {
    it.effect(what, () =>
      Effect.gen(function*() {
        const ran = yield* dump(["--exec", "sleep 100"], options)
        assert.deepStrictEqual([ran.code, ran.stdout, complaints(ran)], [code, "", []])
      }), 60_000)
  }
})

describe("a guest that works", () => {
  it.scoped(
    "is frozen and read after its script, which may be a file; its console is kept",
    () =>
      Effect.gen(function*() {
        const kernel = yield* kernelImage("6.12")
        const { cwd, env, leftovers } = yield* place
        mkdirSync(join(cwd, "in"))
        const script = join(cwd, "in", "script")
        writeFileSync(
          script,
          "#!/bin/busybox sh\nbpftool map create /sys/fs/bpf/m type array key 4 value 8 entries 2 name made_here\n"
        )
        const ran = yield* ktstr(
          [
            "dump",
            "--json",
            "--kernel",
            kernel,
            "--include",
            "/usr/sbin/bpftool",
            "--exec-file",
            script,
            "--console",
            "console"
          ],
          { cwd, env }
        )
        assert.deepStrictEqual(complaints(ran), [])
        assert.deepStrictEqual(ran.stderr.split("\n").map((line) => /^ {2}([a-z]+)/.exec(line)?.[1]), [
          "kernel",
          "initramfs",
          "boot",
          "freeze",
          "attach",
          "read",
          undefined
        ])
        const { freeze, maps, source } = JSON.parse(ran.stdout)
        assert.deepStrictEqual(
          maps.map(({ entries, name }: { entries: unknown; name: string }) => ({ entries, name })),
          [
            { name: "made_here", entries: [0, 1].map((key) => ({ key, value: "0".repeat(16) })) }
          ]
        )
        assert.deepStrictEqual([source.kind, source.kernel, freeze.cpus, ran.code], ["vm", kernel, 1, 0])
        const hardware = (yield* probeKvm).kind === "hardware"
        assert.strictEqual(source.engine, hardware ? "kvm" : "qemu (emulation)", "what auto takes")
        assert.deepStrictEqual(leftovers().sort(), ["console", "in"])
        rmSync(join(cwd, "console"))
      }),
    90_000
  )
})
