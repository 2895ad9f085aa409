import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { execFileSync } from "node:child_process"
import { closeSync, mkdirSync, openSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DoctorReport } from "../../src/cli/doctor.ts"
import { escapeControls, escapeLine } from "../../src/cli/terminal/escapeControls.ts"
import { findProgram } from "../../src/core/process/Programs.ts"
import { probeKvm } from "../../src/kvm/probe/KvmProbe.ts"
import { complaints, ktstr, place } from "../support/cli.ts"

const ESC = "\x1b"

/** A command line, and what the one line on stderr says. */
const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
  [["dmup"], /no command "dmup": did you mean "dump"\?/],
  [["frobnicate"], /no command "frobnicate": the commands are dump, maps, progs, links, /],
  [["maps", "lst"], /no command "maps lst": did you mean "maps list"\?/],
  [["--image", "x"], /ktstr has no option --image/],
  [["dump", "--wizard"], /dump has no option --wizard/],
  [
    ["dump"],
    /say which kernel to read: --kernel ID \(or KTSTR_KERNEL\) boots one, --image FILE and --qemu PID read one/
  ],
  [["dump", "--kernal", "x"], /dump has no option --kernal: did you mean --kernel\?/],
  [["dump", "--JSON"], /dump has no option --JSON: did you mean --json\?/],
  [["dump", "--image"], /: --image needs a value \(/],
  [["dump", "--image", ""], /--image needs a non-empty value/],
  [["dump", "--image", "a", "--image=b"], /'--image'/],
  [["dump", "guest.mem"], /unknown argument: 'guest.mem'/],
  [["maps", "show", "--image", "x"], /Missing argument <map>/],
  [["dump", "--cpus", "0"], /--cpus needs a whole number, 1 or more/],
  [["dump", "--memory-mib", "1.5"], /--memory-mib needs a whole number, 1 or more/],
  [["dump", "--limit", "-1"], /--limit needs a whole number, 0 or more/],
  [["dump", "--limit", "99999999999999999999"], /--limit needs a whole number, 0 or more/],
  [["dump", "--timeout", "30s"], /--timeout needs a whole number, 1 or more/],
  [["dump", "--engine", "bochs"], /--engine needs one of auto, kvm, qemu/],
  [["dump", "--image", "x", "--kernel", "y"], /give --kernel, which boots one, or --image/],
  [["dump", "--image", "x", "--exec-file", "y"], /--exec-file goes with --kernel, not with --image/],
  [["dump", "--image", "x", "--cpus", "1"], /--cpus goes with --kernel/],
  [["dump", "--qemu", "1", "--image", "x"], /--image does not go with --qemu/],
  [["dump", "--qemu", "1", "--kernel", "x"], /--kernel does not go with --qemu/],
  [["dump", "--qemu", "1", "--log-level"], /--log-level needs a value/],
  [["dump", "--qemu", "1", "--live"], /--qemu does not go with --live/],
  [["dump", "--racy", "--live"], /--racy does not go with --live/],
  [["dump", "--racy", "--kernel", "x"], /--racy goes with --qemu/],
  [["dump", "--racy", "--image", "x"], /--racy goes with --qemu/],
  [["dump", "--kernel", "x", "--vmlinux", "y"], /--vmlinux goes with --image/],
  [["dump", "--kernel", "x", "--exec", "y", "--exec-file", "z"], /give --exec or --exec-file, not both/],
  [["dump", "--image", "x", "--json", "--ndjson"], /give --json or --ndjson, not both/],
  [["vm", "boot"], /no command "vm boot"/],
  [["vm", "run"], /say which kernel to boot: --kernel ID, or KTSTR_KERNEL/],
  [["vm", "run", "--kernel", "x", "--exec", "y", "--exec-file", "z"], /give --exec or --exec-file, not both/],
  [["vm", "run", "--kernel", "x", "--image", "y"], /vm run has no option --image/],
  [["vm", "shell", "--kernel", "x", "--exec", "y"], /vm shell has no option --exec/],
  [["dump", `${ESC}[31mred`], /unknown argument: 'red'/]
]

describe("wrong usage is one line on stderr and exit code 2", () => {
  for (const [args, message] of wrong) {
    it.effect(["ktstr", ...args].join(" ").replaceAll(ESC, "ESC"), () =>
      Effect.gen(function*() {
        const ran = yield* ktstr(args)
        assert.match(ran.stderr, message)
        assert.match(ran.stderr, /^ktstr: [^\n]+ \(ktstr --help shows the usage\)\n$/)
        assert.notInclude(ran.stderr, ESC)
        assert.deepStrictEqual([ran.code, ran.stdout], [2, ""])
      }))
  }
})

describe("escapeControls", () => {
  it("spells out what a terminal would act on, and nothing else", () => {
    assert.strictEqual(escapeControls("a\x1b]0;t\x07\n\x9b\u202eé→\t\r"), "a\\x1b]0;t\\x07\n\\x9b\\u202eé→\\x09\\x0d")
    assert.strictEqual(escapeLine(" a\n  b\n"), "a b")
  })
})

describe("what needs no kernel", () => {
  for (
    const [args, ...parts] of [
      [
        [],
        "Print a kernel's BPF maps",
        "ktstr vm shell --kernel debian:6.12-cloud",
        "Check this host",
        "--completions bash|zsh|fish"
      ],
      [["dump"], "--memory-mib", "(default 512)", "/include-files/NAME", "--schema"],
      [["maps", "show"], "show [OPTION…] MAP", "--limit"],
      [["vm", "run"], "and exit with", "--dmesg", "--exec-file"],
      [["vm", "shell"], "Ctrl-A x", "--topology", "--engine"],
      [["doctor"], "--json"]
    ] as const
  ) {
    it.effect(["ktstr", ...args, "--help"].join(" "), () =>
      Effect.gen(function*() {
        const ran = yield* ktstr([...args, "--help"])
        for (const part of parts) assert.include(ran.stdout, part)
        assert.notInclude(ran.stdout, ESC)
        assert.deepStrictEqual([ran.code, ran.stderr], [0, ""])
      }))
  }

  it.effect("--version", () =>
    Effect.gen(function*() {
      const ran = yield* ktstr(["--version"])
      assert.match(ran.stdout, /^\d+\.\d+\.\d+\n$/)
      assert.strictEqual(ran.code, 0)
    }))

  it.effect("completions that bash takes, with every option of dump", () =>
    Effect.gen(function*() {
      const bash = yield* ktstr(["--completions", "bash"])
      const words = "COMP_WORDS=(ktstr dump --); COMP_CWORD=2; _ktstr_bash_completions ktstr; echo \"${COMPREPLY[@]}\""
      const completed = execFileSync("bash", ["-c", `${bash.stdout}\n${words}`], { encoding: "utf8" }).trim().split(" ")
      const help = yield* ktstr(["dump", "--help"])
      const options = [...help.stdout.matchAll(/^  (--[a-z-]+)/gm)].map(([, option]) => option)
      assert.isAbove(options.length, 15)
      for (const option of options) assert.include(completed, option)
      for (const shell of ["fish", "zsh", "sh"]) {
        const ran = yield* ktstr(["--completions", shell])
        assert.include(ran.stdout, "exec-file", shell)
        assert.strictEqual(ran.code, 0)
      }
    }))

  it.effect("says that a full disk took no answer", () =>
    Effect.acquireUseRelease(
      Effect.sync(() => openSync("/dev/full", "w")),
      (full) =>
        Effect.gen(function*() {
          for (const args of [["doctor"], ["dump", "--schema"]]) {
            const ran = yield* ktstr(args, { stdout: full })
            assert.match(ran.stderr, /^ktstr: cannot write to stdout: ENOSPC; is the disk full\?\n$/)
            assert.strictEqual(ran.code, 1)
          }
        }),
      (full) => Effect.sync(() => closeSync(full))
    ))
})

describe("ktstr doctor", () => {
  it.effect("says the same to people and to programs", () =>
    Effect.gen(function*() {
      const [text, json] = yield* Effect.all([ktstr(["doctor"]), ktstr(["doctor", "--json"])])
      const report = yield* Schema.decode(Schema.parseJson(DoctorReport), { onExcessProperty: "error" })(json.stdout)
      const rows = [...text.stdout.matchAll(/^(ok|limited|lacking) +(\S.*?)  /gm)].map((
        [, state, name]
      ) => [state, name])
      assert.deepStrictEqual(rows, report.checks.map(({ name, state }) => [state, name]))
      const columns = text.stdout.split("\n").flatMap((line) =>
        /^[a-z]+ +(?:\S+ )*?\S+ {2,}/.exec(line)?.[0].length ?? []
      )
      assert.strictEqual(columns.length, rows.length)
      assert.strictEqual(new Set(columns).size, 1, "one column for what was found")
      assert.isTrue(report.canBoot)
      const hardware = report.checks.some(({ name, state }) => name === "kvm" && state === "ok")
      assert.strictEqual(report.engine, hardware ? "kvm" : "qemu")
      assert.match(
        text.stdout,
        /^This host can boot guests: --engine auto takes (kvm|qemu, by software emulation), because \/dev\/kvm/m
      )
      assert.deepStrictEqual([text.code, json.code, text.stderr, json.stderr], [0, 0, "", ""])
      assert.match(report.checks[0].found, /^\/.*qemu-system-x86_64, version \d+\.\d+/)
    }))

  it.scoped("finds what is lacking, and how to fix it; exit code 3", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      const PATH = join(cwd, "bin")
      mkdirSync(PATH)
      symlinkSync(findProgram("setpriv")!, join(PATH, "setpriv"))
      const ran = yield* ktstr(["doctor"], { env: { ...env, PATH } })
      // who has KVM can do without QEMU
      const hardware = (yield* probeKvm).kind === "hardware"
      const qemu = hardware
        ? /^limited  qemu-system-x86_64 +not on the PATH\n +guests are booted on \/dev\/kvm; --engine qemu does not work\n/
        : /^lacking  qemu-system-x86_64 +not on the PATH\n +no guest can be booted; --image still works\n/
      assert.match(ran.stdout, qemu)
      assert.match(ran.stdout, /^limited  apt-get +not on the PATH\n/m)
      assert.match(
        ran.stdout,
        /^limited  qemu-system-aarch64 +not on the PATH\n +no arm64 kernel can be booted\n +fix: apt-get install qemu-system-arm\n/m
      )
      const lacking = hardware ? "busybox" : "qemu-system-x86_64, busybox"
      const hint = hardware ? "" : "apt-get install qemu-system-x86 && "
      assert.strictEqual(
        ran.stderr,
        `ktstr: ${lacking}: missing, so no guest can be booted; --image still works; ${hint}apt-get install busybox-static\n`
      )
      assert.strictEqual(ran.code, 3)
    }))
})

describe("a kernel that is none", () => {
  it.scoped("is one line with what to do, and exit code 1", () =>
    Effect.gen(function*() {
      const { cwd, env, leftovers } = yield* place
      writeFileSync(join(cwd, "text"), "no kernel\n")
      writeFileSync(join(cwd, "empty"), "")
      mkdirSync(join(cwd, "directory"))
      const before = leftovers()
      const cases = [
        ["./missing", /no kernel at .*missing: no such file or directory; give a bzImage/],
        ["./text", /neither a bzImage nor an ELF vmlinux nor an arm64 Image; give/],
        ["./empty", /neither a bzImage nor an ELF vmlinux nor an arm64 Image; give/],
        ["./directory", /the directory holds none of .*; give/],
        ["/dev/zero", /no kernel at \/dev\/zero: .*; give/],
        ["/bin/ls", /so it is not a kernel; give/],
        ["nonsense", /kernel nonsense: the cache has .*ktstr kernel list/],
        ["9.99", /kernel 9\.99: it is not in the cache; run `ktstr kernel build 9\.99`/],
        [`./${ESC}[31m`, /no kernel at .*\\x1b\[31m: no such/]
      ] as const
      for (const [id, message] of cases) {
        const ran = yield* ktstr(["dump", "--kernel", id], { cwd, env })
        assert.match(ran.stderr, message)
        assert.match(ran.stderr, /^ktstr: [^\n]+\n$/)
        assert.deepStrictEqual([ran.code, ran.stdout], [1, ""], id)
      }
      assert.deepStrictEqual(leftovers(), before)
    }))
})

describe("a cache that cannot be", () => {
  it.scoped("names the variable that fixes it", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      writeFileSync(join(cwd, "file"), "")
      for (
        const [settings, message] of [
          [{ KTSTR_CACHE_DIR: join(cwd, "file") }, /file: ENOTDIR/],
          [{ KTSTR_CACHE_DIR: join(cwd, "file", "below") }, /below: ENOTDIR/],
          [{ HOME: undefined }, /HOME is not set, so the cache has no directory/],
          [{ HOME: "" }, /HOME is set but empty/]
        ] as const
      ) {
        const ran = yield* ktstr(["dump", "--kernel", "debian:6.12-cloud"], { cwd, env: { ...env, ...settings } })
        const [line, ...more] = complaints(ran)
        assert.match(line, message)
        assert.match(line, /^ktstr: kernel cache.*; set KTSTR_CACHE_DIR to a directory that you can write$/)
        assert.deepStrictEqual([ran.code, ran.stdout, more], [1, "", []])
      }
    }))
})
