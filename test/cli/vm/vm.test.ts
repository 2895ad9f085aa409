import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync, spawn } from "node:child_process"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { stripVTControlCharacters } from "node:util"
import { makeEscapes } from "../../../src/cli/vm/vmTerminal.ts"
import { complaints, KTSTR, ktstr, place, processesWith, until } from "../../support/cli.ts"
import { kernelImage } from "../../support/kernels.ts"
import { needsScx, scx } from "../../support/scx.ts"

const SECONDS = 150

/** `ktstr vm run` in a place that must be as it was when the command has ended. */
const run = (...args: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const kernel = yield* kernelImage("6.12")
    const { cwd, env, leftovers, mark } = yield* place
    const all = ["vm", "run", "--kernel", kernel, "--memory-mib", "192", "--cmdline", mark, ...args]
    const ran = yield* ktstr(all, { cwd, env })
    yield* Effect.promise(() => until("everything is gone", () => leftovers().length === 0, 5))
    return ran
  }).pipe(Effect.scoped)

describe("ktstr vm run", () => {
  it.live("prints what the commands print, byte for byte, and ends with their status", () =>
    Effect.gen(function*() {
      const script =
        "printf 'a\\tb\\r\\n\\001\\377'; echo wrong >&2; id -u; seq 1 2000 | md5sum; printf 'no newline'; exit 7"
      const ran = yield* run("--exec", script)
      const sum = execFileSync("sh", ["-c", "seq 1 2000 | md5sum"], { encoding: "utf8" })
      const bytes = Buffer.concat([
        Buffer.from("a\tb\r\n\x01"),
        Buffer.of(0xff),
        Buffer.from(`wrong\n0\n${sum}no newline`)
      ])
      assert.deepStrictEqual([ran.stdout, complaints(ran), ran.code], [bytes.toString(), [], 7])
    }), SECONDS * 1000)

  it.scopedLive(
    "runs on several kernels one after the other; the first that failed gives the exit code",
    () =>
      Effect.gen(function*() {
        const old = yield* kernelImage("6.1")
        const script = "uname -r | cut -c-4; [ $(uname -r | cut -c-4) = 6.12 ] || exit 7"
        const ran = yield* run("--kernel", old, "--kernel", "/there/is/none", "--exec", script)
        assert.deepStrictEqual([ran.stdout, ran.code], ["6.12\n6.1.\n", 7])
        const lines = ran.stderr.split("\n")
        const why = lines.findIndex((line) => /^ktstr: no kernel at \/there\/is\/none: .*; /.test(line))
        assert.isTrue(why > 0, ran.stderr)
        assert.deepStrictEqual(lines.slice(why + 1).map((line) => line.split(/ +/)), [
          ["kernel", "exit", "code"],
          [yield* kernelImage("6.12"), "0"],
          [old, "7"],
          ["/there/is/none", "1"],
          [""]
        ])
        const kept = yield* run("--kernel", old, "--console", "/dev/null", "--exec", "true")
        assert.match(complaints(kept).join("\n"), /^ktstr: .*--console keeps one guest's console/)
        assert.strictEqual(kept.code, 2)
        const twice = yield* run("--kernel", old, "--exec", "true", "--exec-file", "/there/is/none")
        assert.deepStrictEqual([complaints(twice).length, twice.code], [1, 2], "said once, and nothing is booted")
      }),
    SECONDS * 1000
  )

  it.scopedLive("takes the commands from a file; --dmesg adds the kernel's messages", () =>
    Effect.gen(function*() {
      const { cwd } = yield* place
      const file = join(cwd, "script")
      writeFileSync(file, "#!/bin/busybox sh\necho \"from a file: $0\"\n")
      const ran = yield* run("--exec-file", file, "--dmesg")
      rmSync(file)
      assert.match(ran.stdout, /^\[ +0\.0+\] Linux version 6\.12/)
      assert.match(ran.stdout, /^from a file: \/ktstr\/script$/m)
      assert.deepStrictEqual([complaints(ran), ran.code], [[], 0])
    }), SECONDS * 1000)

  it.live(
    "tells a panic, and a guest that switched itself off, from commands that failed",
    () =>
      Effect.gen(function*() {
        const panicked = yield* run("--exec", "echo before; echo c > /proc/sysrq-trigger; sleep 60")
        assert.match(panicked.stdout, /^before\n[^]*Kernel panic - not syncing: sysrq triggered crash/)
        assert.match(
          complaints(panicked).join("\n"),
          /^ktstr: the guest panicked: .*sysrq triggered crash; keep its console.*$/
        )
        const off = yield* run("--exec", "poweroff -f")
        assert.match(complaints(off).join("\n"), /^ktstr: the guest has ended .*$/)
        const endless = yield* run("--timeout", "10", "--exec", "while :; do echo y; done")
        assert.match(
          complaints(endless).join("\n"),
          /^ktstr: the guest did not report ready within 10 s .*; .*raise --timeout/
        )
        assert.deepStrictEqual([panicked.code, off.code, endless.code], [1, 1, 1])
      }),
    SECONDS * 1000
  )

  it.scopedLive("ends when nobody reads its output any more", () =>
    Effect.gen(function*() {
      const kernel = yield* kernelImage("6.12")
      const { cwd, env, leftovers, mark } = yield* place
      const words = ["--kernel", kernel, "--memory-mib", "192", "--cmdline", mark, "--timeout", "100"]
      const pipe = `"$@" 2>err | head -n 2; echo "status \${PIPESTATUS[0]}"; cat err; rm err`
      const command = [process.execPath, KTSTR, "vm", "run", ...words, "--exec", "while :; do echo y; done"]
      const said = execFileSync("bash", ["-c", pipe, "bash", ...command], { cwd, env: { ...process.env, ...env } })
      assert.match(said.toString(), /^y\ny\nstatus 0\n( {2}.*\n)*$/)
      yield* Effect.promise(() => until("everything is gone", () => leftovers().length === 0, 5))
    }), SECONDS * 1000)
})

/** A terminal of 33 × 101 characters, and in it `ktstr` with a small guest, as far as `ready`; then `code=` and its status. */
const onTerminal = (args: ReadonlyArray<string>, ready: RegExp) =>
  Effect.gen(function*() {
    const kernel = yield* kernelImage("6.12")
    const { cwd, env, leftovers, mark } = yield* place
    const all = [...args, "--kernel", kernel, "--memory-mib", "192", "--cmdline", mark]
    const script = join(cwd, "session")
    const words = [process.execPath, KTSTR, ...all].map((word) => `'${word}'`).join(" ")
    const lines = [
      "stty rows 33 cols 101; echo \"tty=$(tty)\"; echo \"before=$(stty -g)\"",
      `sh -c 'echo "pid=$$"; exec "$@"' sh ${words}`,
      "code=$?; echo; echo \"code=$code\"; echo \"after=$(stty -g)\""
    ]
    writeFileSync(script, lines.join("\n"))
    const terminal = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn("script", ["-qefc", `sh ${script}`, "/dev/null"], {
          cwd,
          env: { ...process.env, NO_COLOR: "1", ...env, TERM: "xterm-256color", COLORTERM: "truecolor" },
          stdio: ["pipe", "pipe", "inherit"]
        })
      ),
      (terminal) => Effect.sync(() => terminal.kill("SIGKILL"))
    )
    let bytes = ""
    let said = ""
    terminal.stdout.on("data", (more: Buffer) => {
      bytes += more.toString("latin1")
      said = stripVTControlCharacters(bytes)
    })
    const closed = new Promise<void>((resolve) => terminal.on("close", () => resolve()))
    /** Waits for a line, past or to come, that is all of the pattern; gives its group. */
    const line = (pattern: string) => {
      const whole = new RegExp(`^\\r*${pattern}\\r*$`, "m")
      return Effect.promise(async () => {
        await until(pattern, () => whole.test(said), 60).catch((error: Error) => {
          throw new Error(`${error.message}; the terminal has:\n${said}`)
        })
        return whole.exec(said)?.[1] ?? ""
      })
    }
    const type = (keys: string) => Effect.sync(() => void terminal.stdin.write(keys))
    yield* Effect.promise(() => until(ready.source, () => ready.test(said), 60))
    /** The shell's status, when the terminal is what it was before and nothing is left. */
    const end = Effect.gen(function*() {
      const code = yield* line("code=(\\d+)")
      assert.strictEqual(yield* line("after=(\\S+)"), yield* line("before=(\\S+)"), `after code ${code}`)
      terminal.stdin.end()
      yield* Effect.promise(() => closed)
      rmSync(script)
      yield* Effect.promise(() => until("everything is gone", () => leftovers().length === 0, 5))
      return Number(code)
    })
    const pid = Number(yield* line("pid=(\\d+)"))
    return { type, line, end, pid, tty: yield* line("tty=(\\S+)"), mark }
  })

const session = (...args: ReadonlyArray<string>) => onTerminal(["vm", "shell", ...args], /\/root # [^\r\n]*$/)

it.scopedLive(
  "a spinner on the terminal does not keep an interruption from releasing everything",
  () =>
    Effect.gen(function*() {
      const { end, pid } = yield* onTerminal(["dump", "--engine", "qemu", "--exec", "sleep 100"], /boot .* and run/)
      process.kill(pid, "SIGTERM")
      assert.strictEqual(yield* end, 130)
    }),
  SECONDS * 1000
)

describe("disks", () => {
  beforeEach(needsScx) // Debian's kernel has their driver as a module
  it.scopedLive(
    "are the guest's /dev/vda and so on, written through, read-only where it is said",
    () =>
      Effect.gen(function*() {
        const { cwd, env } = yield* place
        const { key, root } = yield* scx
        const [written, kept] = ["written", "kept"].map((name) => join(cwd, name))
        for (const disk of [written, kept]) writeFileSync(disk, Buffer.alloc(2 ** 20, "before"))
        const script = `cat /sys/block/vda/ro /sys/block/vdb/ro; head -c 6 /dev/vdb; echo
        printf after | dd of=/dev/vda bs=512 seek=1 conv=fsync,notrunc 2>/dev/null; nproc`
        const kernel = ["--kernel", join(root, key, "bzImage"), "--topology", "1,2,1,1"]
        const ran = yield* ktstr(
          ["vm", "run", ...kernel, "--disk", written, "--disk", `${kept},ro`, "--exec", script],
          { cwd, env }
        )
        assert.deepStrictEqual([complaints(ran), ran.stdout, ran.code], [[], "0\n1\nbefore\n2\n", 0])
        const expected = Buffer.alloc(2 ** 20, "before")
        expected.write("after", 512)
        assert.isTrue(readFileSync(written).equals(expected))
        assert.isTrue(readFileSync(kept).equals(Buffer.alloc(2 ** 20, "before")))
        for (const disk of [written, kept]) rmSync(disk)
      }),
    SECONDS * 1000
  )
})

describe("ktstr vm shell on a terminal", () => {
  it.scopedLive(
    "is a shell with job control on a terminal of the same kind and size; exit ends it",
    () =>
      Effect.gen(function*() {
        const { end, line, type, tty } = yield* session()
        // each answer is another text than the keys, which the guest's terminal shows too
        yield* type("echo \"it is $(tty) $TERM $COLORTERM $(stty size)\"\r")
        yield* line("it is /dev/ttyS0 xterm-256color truecolor 33 101")
        yield* type("sh -c 'trap \"echo again\" CONT; echo going; while :; do sleep 1; done'\r")
        yield* line("going")
        yield* type("\x1a")
        yield* line(".*Stopped .*") // the echo of ^Z comes before or behind it: n_tty sends the signal first
        yield* type("fg\r")
        yield* line("again")
        yield* type("\x03")
        yield* type("echo \"interrupted: $?\"\r")
        yield* line("interrupted: 130")
        execFileSync("stty", ["-F", tty, "rows", "40", "cols", "120"])
        yield* type("until [ \"$(stty size)\" = '40 120' ]; do usleep 100000; done; echo \"now $(stty size)\"\r")
        yield* line("now 40 120")
        yield* type("exit 3\r")
        assert.strictEqual(yield* end, 0)
      }),
    SECONDS * 1000
  )

  it.scopedLive(
    "ends with Ctrl-D, and with Ctrl-A x whatever the guest does; Ctrl-A Ctrl-A is one Ctrl-A",
    () =>
      Effect.gen(function*() {
        const first = yield* session()
        // to the start of the line, where the word is made a comment's end
        yield* first.type("two\x01\x01echo one \r")
        yield* first.line("one two")
        yield* first.type("\x04")
        assert.strictEqual(yield* first.end, 0)
        const second = yield* session()
        yield* second.type("trap '' INT; echo going; while :; do :; done\r")
        yield* second.line("going")
        yield* second.type("\x03\x01x")
        assert.strictEqual(yield* second.end, 0)
      }),
    SECONDS * 1000
  )

  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const) {
    it.scopedLive(`leaves the terminal as it was after ${signal}; exit code 130`, () =>
      Effect.gen(function*() {
        const { end, pid } = yield* session()
        process.kill(pid, signal)
        assert.strictEqual(yield* end, 130)
      }), SECONDS * 1000)
  }

  it.scopedLive(
    "leaves the terminal as it was after a guest's panic, and says what it was",
    () =>
      Effect.gen(function*() {
        const { end, line, type } = yield* session()
        yield* type("echo c > /proc/sysrq-trigger\r")
        yield* line("ktstr: the guest panicked: .*sysrq triggered crash; keep its console with --console FILE.*")
        assert.strictEqual(yield* end, 1)
      }),
    SECONDS * 1000
  )

  it.scopedLive("leaves the terminal as it was after a VM that was killed", () =>
    Effect.gen(function*() {
      const { end, line, mark } = yield* session("--engine", "qemu")
      const qemu = processesWith(mark).map((name) => Number(name.split(" ")[1])).filter((pid) =>
        readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("qemu")
      )
      assert.strictEqual(qemu.length, 1)
      process.kill(qemu[0], "SIGKILL")
      yield* line("ktstr: the guest has ended \\(SIGKILL\\).*")
      assert.strictEqual(yield* end, 1)
    }), SECONDS * 1000)
})

describe("ktstr vm shell without a terminal", () => {
  it.scopedLive("runs the commands on stdin and ends with their status", () =>
    Effect.gen(function*() {
      const kernel = yield* kernelImage("6.12")
      const { cwd, env } = yield* place
      const command = `printf 'tty\\necho "done"\\nexit 4\\n' | "$@" 2>/dev/null; echo "status $?"`
      const words = [process.execPath, KTSTR, "vm", "shell", "--kernel", kernel, "--memory-mib", "192"]
      const said = execFileSync("sh", ["-c", command, "sh", ...words], { cwd, env: { ...process.env, ...env } })
      assert.strictEqual(said.toString(), "not a tty\ndone\nstatus 4\n")
    }), SECONDS * 1000)
})

describe("makeEscapes", () => {
  it("knows Ctrl-A across pieces, and passes on what is no wish of its own", () => {
    const typed = (...pieces: ReadonlyArray<string>) => {
      const escapes = makeEscapes()
      return pieces.map((piece) => {
        const bytes = escapes(Buffer.from(piece, "latin1"))
        return bytes === undefined ? "left" : Buffer.from(bytes).toString("latin1")
      })
    }
    assert.deepStrictEqual(typed("ab\xff"), ["ab\xff"])
    assert.deepStrictEqual(typed("a\x01", "x"), ["a", "left"])
    assert.deepStrictEqual(typed("a\x01xb"), ["left"])
    assert.deepStrictEqual(typed("\x01\x01x", "\x01"), ["\x01x", ""])
    assert.deepStrictEqual(typed("\x01", "b", "x"), ["", "\x01b", "x"])
    assert.deepStrictEqual(typed("\x01\x01\x01x"), ["left"])
  })
})

describe("ktstr vm core", () => {
  it.scopedLive("writes the frozen guest as a core, which is read and written again", () =>
    Effect.gen(function*() {
      const kernel = yield* kernelImage("6.12")
      const { cwd, env, mark } = yield* place
      const at = (name: string) => join(cwd, name)
      const boot = ["--kernel", kernel, "--memory-mib", "192", "--cpus", "2", "--cmdline", mark, "--exec", "true"]
      const first = yield* ktstr(["vm", "core", ...boot, "--out", at("one")], { cwd, env })
      assert.match(first.stderr, /one: 192 MiB of memory, registers of 2 CPUs, VMCOREINFO of 6\.12/)
      assert.deepStrictEqual([first.stdout, first.code, processesWith(mark)], ["", 0, []])
      const notes = execFileSync("readelf", ["-nW", at("one")], { encoding: "utf8" })
      assert.lengthOf(notes.match(/NT_PRSTATUS/g) ?? [], 2)
      const second = yield* ktstr(["vm", "core", "--image", at("one"), "--out", at("two")], { cwd, env })
      assert.match(second.stderr, /two: 192 MiB of memory, no registers, VMCOREINFO of 6\.12/)
      const lists = yield* Effect.forEach(["one", "two"], (name) =>
        ktstr(["sched", "tasks", "--json", "--image", at(name)], { cwd, env }))
      const [one, two] = lists.map(({ stdout }) =>
        JSON.parse(stdout).tasks
      )
      assert.isAbove(one.length, 20)
      assert.deepStrictEqual(two, one)
      const wrong = yield* ktstr(["vm", "core", "--image", at("one"), "--vmlinux", "x", "--out", at("three")])
      assert.deepStrictEqual([complaints(wrong).length, wrong.code], [1, 2])
    }), SECONDS * 1000)
})
