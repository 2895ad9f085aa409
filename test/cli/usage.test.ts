import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { execFileSync } from "node:child_process"
import { closeSync, mkdirSync, openSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DoctorReport } from "../../src/cli/doctor.ts"
import { suggestion, understand } from "../../src/cli/usage.ts"
import { visible, visibleLine } from "../../src/cli/visible.ts"
import { findProgram } from "../../src/kvm/Programs.ts"
import { complaints, ktstr, place } from "../support/cli.ts"

const ESC = "\x1b"

/** A command line, and what the one line on stderr says. */
const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
  [[], /^ktstr: say what to do: ktstr dump, ktstr maps, ktstr doctor \(ktstr --help/],
  [["maps"], /say what to do: ktstr maps list, ktstr maps show \(ktstr maps --help/],
  [["dmup"], /there is no command "dmup"; did you mean dump\?/],
  [["maps", "lst"], /there is no command "lst"; did you mean list\?/],
  [["--image", "x"], /there is no option "--image" \(ktstr --help/],
  [["dump"], /say which kernel to read: --kernel ID boots one, --image FILE reads one/],
  [["dump", "--kernal", "x"], /there is no option "--kernal"; did you mean --kernel\? \(ktstr dump --help/],
  [["dump", "--JSON"], /there is no option "--JSON"; did you mean --json\?/],
  [["dump", "--image"], /--image wants a value: --image FILE/],
  [["dump", "--image", ""], /--image wants a value, not an empty one/],
  [["dump", "--image", "a", "--image=b"], /--image is given twice/],
  [["dump", "--json=yes"], /--json takes no value/],
  [["dump", "guest.mem"], /"guest.mem" is one word too many/],
  [["maps", "show", "--image", "x"], /say which map: ktstr maps show MAP/],
  [["dump", "--cpus", "0"], /--cpus "0": a whole number is wanted, 1 or more/],
  [["dump", "--memory-mib", "1.5"], /--memory-mib "1.5": a whole number/],
  [["dump", "--limit", "-1"], /--limit "-1": a whole number is wanted, 0 or more/],
  [["dump", "--limit", "99999999999999999999"], /--limit "9+": a whole number/],
  [["dump", "--engine", "bochs"], /--engine "bochs": it is one of auto, qemu/],
  [["--completions", "csh"], /--completions "csh": it is one of bash, fish, zsh, sh/],
  [["dump", "--image", "x", "--kernel", "y"], /give --kernel, which boots one, or --image/],
  [["dump", "--image", "x", "--exec-file", "y"], /--exec-file goes with --kernel, not with --image/],
  [["dump", "--image", "x", "--cpus", "1"], /--cpus goes with --kernel/],
  [["dump", "--kernel", "x", "--vmlinux", "y"], /--vmlinux goes with --image/],
  [["dump", "--kernel", "x", "--exec", "y", "--exec-file", "z"], /give --exec or --exec-file, not both/],
  [["dump", "--image", "x", "--json", "--ndjson"], /give --json or --ndjson, not both/],
  [[`${ESC}[31mred`], /there is no command "\\x1b\[31mred"/]
]

describe("wrong usage is one line on stderr and exit code 2", () => {
  for (const [args, message] of wrong) {
    it.effect(["ktstr", ...args].join(" ").replaceAll(ESC, "ESC"), () =>
      Effect.gen(function*() {
        const ran = yield* ktstr(args)
        assert.match(ran.stderr, message)
        assert.match(ran.stderr, /^ktstr: [^\n]+\n$/)
        assert.deepStrictEqual([ran.code, ran.stdout], [2, ""])
      }))
  }
})

describe("understand", () => {
  it("parts --name=value at the first =, and leaves what follows -- alone", () => {
    assert.deepStrictEqual(understand(["maps", "show", "--image=a=b", "--limit", "0", "--", "-x"]), {
      kind: "run",
      argv: ["maps", "show", "--image", "a=b", "--limit", "0", "--", "-x"]
    })
  })

  it("takes what follows an option for its value, whatever it looks like", () => {
    const understood = understand(["dump", "--exec", "--help", "--map", "--json", "--map", "dump"])
    assert.deepStrictEqual(understood.kind === "run" && understood.argv.slice(1), [
      "--exec",
      "--help",
      "--map",
      "--json",
      "--map",
      "dump"
    ])
  })

  it("suggests only what is near", () => {
    assert.strictEqual(suggestion("hahs", ["hash", "array"]), "; did you mean hash?")
    assert.strictEqual(suggestion("nope", ["hash", "array"]), "")
  })
})

describe("visible", () => {
  it("spells out what a terminal would act on, and nothing else", () => {
    assert.strictEqual(visible("a\x1b]0;t\x07\n\x9b\u202eé→\t\r"), "a\\x1b]0;t\\x07\n\\x9b\\u202eé→\\x09\\x0d")
    assert.strictEqual(visibleLine(" a\n  b\n"), "a b")
  })
})

describe("what needs no kernel", () => {
  for (
    const [args, ...parts] of [
      [[], "Usage: ktstr COMMAND", "maps show", "--completions bash|fish|zsh|sh"],
      [["dump"], "Usage: ktstr dump [OPTIONS]", "--memory-mib N", "(default: 512)", "/include-files/NAME (repeatable)"],
      [["maps", "show"], "Usage: ktstr maps show [OPTIONS] MAP", "--limit N"],
      [["doctor"], "Usage: ktstr doctor [OPTIONS]", "--json"]
    ] as const
  ) {
    it.effect(["ktstr", ...args, "--help"].join(" "), () =>
      Effect.gen(function*() {
        const ran = yield* ktstr([...args, "--help"])
        for (const part of parts) assert.include(ran.stdout, part)
        assert.isTrue(ran.stdout.split("\n").every((line) => line.length <= 100), "lines of 100 columns at most")
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
      const options = [...help.stdout.matchAll(/^ {2}(--[a-z-]+)/gm)].map(([, option]) => option)
      assert.isAbove(options.length, 15)
      for (const option of options) assert.include(completed, option)
      for (const shell of ["fish", "zsh", "sh"]) {
        const ran = yield* ktstr(["--completions", shell])
        assert.include(ran.stdout, "exec-file", shell)
        assert.strictEqual(ran.code, 0)
      }
    }))

  it.effect("says that a full disk took no help text", () =>
    Effect.acquireUseRelease(
      Effect.sync(() => openSync("/dev/full", "w")),
      (full) =>
        Effect.gen(function*() {
          for (const args of [["--help"], ["dump", "--schema"]]) {
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
      assert.deepStrictEqual([text.code, json.code, text.stderr, json.stderr], [0, 0, "", ""])
      assert.match(report.checks[0].found, /^\/.*qemu-system-x86_64, version \d+\.\d+/)
    }))

  it.scoped("finds what is lacking, and how to mend it; exit code 3", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      const PATH = join(cwd, "bin")
      mkdirSync(PATH)
      symlinkSync(findProgram("setpriv")!, join(PATH, "setpriv"))
      const ran = yield* ktstr(["doctor"], { env: { ...env, PATH } })
      assert.match(
        ran.stdout,
        /^lacking  qemu-system-x86_64  not on the PATH\n +no guest can be booted; --image still works\n/
      )
      assert.match(ran.stdout, /^limited  apt-get +not on the PATH\n/m)
      assert.strictEqual(
        ran.stderr,
        "ktstr: qemu-system-x86_64, busybox: missing, so no guest can be booted; --image still works; "
          + "apt-get install qemu-system-x86 && apt-get install busybox-static\n"
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
        ["./missing", /no kernel at .*missing: there is no such file or directory; give a bzImage/],
        ["./text", /neither a bzImage nor an ELF vmlinux; give/],
        ["./empty", /neither a bzImage nor an ELF vmlinux; give/],
        ["./directory", /the directory holds none of .*; give/],
        ["/dev/zero", /no kernel at \/dev\/zero: .*; give/],
        ["/bin/ls", /so it is no kernel; give/],
        ["nonsense", /kernel id "nonsense": this is no form of id that is known; write debian:/],
        ["debian:nonsense", /kernel id "debian:nonsense": .*; write/],
        [`./${ESC}[31m`, /no kernel at .*\\x1b\[31m: there is no such/]
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
  it.scoped("names the variable that mends it", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      writeFileSync(join(cwd, "file"), "")
      for (
        const [settings, message] of [
          [{ KTSTR_CACHE_DIR: join(cwd, "file") }, /file: ENOTDIR/],
          [{ KTSTR_CACHE_DIR: join(cwd, "file", "below") }, /below: ENOTDIR/],
          [{ HOME: undefined }, /HOME is not set, so there is no place for it/],
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
