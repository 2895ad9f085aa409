import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { execFileSync } from "node:child_process"
import { release } from "node:os"
import { bpfRefused } from "../../../src/bpf/live/calls/Rights.ts"
import { HostSymbols } from "../../../src/host/HostSymbols.ts"
import { parseLogText } from "../../../src/host/KernelLog.ts"
import { btfPaths, LiveHost } from "../../../src/host/LiveHost.ts"
import { parseCpuList } from "../../../src/host/PossibleCpus.ts"
import { extractStackSymbols, parseScxExits } from "../../../src/host/ScxExit.ts"
import { HostLive } from "./support.ts"

describe("LiveHost", () => {
  it.effect("says what uname, nproc and dmesg say", () =>
    Effect.gen(function*() {
      const host = yield* LiveHost
      assert.strictEqual(host.release, execFileSync("uname", ["-r"], { encoding: "utf8" }).trim())
      assert.strictEqual(host.possibleCpus.length, Number(execFileSync("nproc", ["--all"], { encoding: "utf8" })))
      assert.strictEqual(host.btfPath, "/sys/kernel/btf/vmlinux")
      assert.include(btfPaths(release()), `/usr/lib/debug/boot/vmlinux-${release()}`)
      const log = yield* host.log
      const theirs = parseLogText(execFileSync("dmesg", { encoding: "utf8", maxBuffer: 1 << 26 }))
      assert.isNotEmpty(log)
      // dmesg indents the further lines of a record, and gives them no time.
      for (const [index, { atMicros, text }] of log.slice(0, theirs.length).entries()) {
        assert.strictEqual(text.trim(), theirs[index].text.trim())
        assert.include([atMicros, null], theirs[index].atMicros)
      }
      assert.deepStrictEqual(yield* host.scxExits, parseScxExits(theirs))
    }).pipe(Effect.provide(HostLive)))

  it.effect("finds kernel functions by name and by address", () =>
    Effect.gen(function*() {
      const { symbols } = yield* LiveHost
      const table = yield* symbols
      const line = execFileSync("grep", ["-m1", " T do_exit$", "/proc/kallsyms"], { encoding: "utf8" })
      const address = BigInt(`0x${line.slice(0, 16)}`)
      assert.strictEqual(table.address("do_exit"), address)
      assert.deepStrictEqual(table.at(address + 5n), { name: "do_exit", offset: 5 })
    }).pipe(Effect.provide(HostLive)))
})

describe("HostSymbols", () => {
  it("passes over zeros, broken lines and addresses below all symbols", () => {
    const hidden = new HostSymbols("0000000000000000 T _text\n0000000000000000 t do_exit\n")
    assert.strictEqual(hidden.size, 0)
    assert.isUndefined(hidden.at(2n ** 64n - 1n))
    const table = new HostSymbols(
      "0000000000001000 A per_cpu_thing\nffffffff81000010 t second\t[module]\nshort\nxyz T bad\nffffffff81000000 T first\nffffffff81000000 T alias\n"
    )
    assert.deepStrictEqual([...table.entries()].map(({ name }) => name), ["per_cpu_thing", "first", "alias", "second"])
    assert.deepStrictEqual(table.at(0xffffffff8100000fn), { name: "first", offset: 15 })
    assert.deepStrictEqual(table.at(0xffffffff81000010n), { name: "second", offset: 0 })
    for (const address of [0xffffffff80ffffffn, 0x1000n, 0x7325220073313135n]) assert.isUndefined(table.at(address))
  })
})

describe("parseCpuList", () => {
  it("reads what the kernel prints of a mask", () => {
    assert.deepStrictEqual(parseCpuList("0\n"), [0])
    assert.deepStrictEqual(parseCpuList("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11])
  })

  it.prop("any mask", [FastCheck.uniqueArray(FastCheck.nat(200), { minLength: 1 })], ([cpus]) => {
    const sorted = [...cpus].sort((a, b) => a - b)
    const ranges: Array<[number, number]> = []
    for (const cpu of sorted) {
      const last = ranges.at(-1)
      if (last !== undefined && last[1] === cpu - 1) last[1] = cpu
      else ranges.push([cpu, cpu])
    }
    const text = ranges.map(([first, last]) => first === last ? `${first}` : `${first}-${last}`).join(",")
    assert.deepStrictEqual(parseCpuList(text), sorted)
  })
})

describe("parseScxExits", () => {
  const log = `[   10.000001] sched_ext: BPF scheduler "simple" enabled
[   12.345678] sched_ext: BPF scheduler "simple" disabled (unregistered from user space)
[   13.000000] some_driver+0x10/0x20
[   20.000000] sched_ext: BPF scheduler "qmap (v2)" disabled (runnable task stall)
[   20.000001] sched_ext: qmap (v2): kworker/u4:[x]:2[77] failed to run for 5.504s
[   20.000002]    check_rq_for_timeouts+0xdf/0x120
[   20.000003]    scx_watchdog_workfn+0x64/0x90
[   20.000004] eth0: link is up
[   20.000005]    process_one_work+0x1/0x2
[   30.000000] sched_ext: BPF scheduler "central" disabled (scx_bpf_error)
[   30.000001] sched_ext: central: bad cpu -1
[   30.000002] Call Trace:
[   30.000003]    scx_bpf_error_bstr+0x6c/0x90 [sched_ext]
[   30.000004]    bpf_prog_0123456789abcdef_central_dispatch+0x152
[   40.000000] sched_ext: BPF scheduler "odd" disabled (<UNKNOWN>)`

  it("tells normal ends, errors and stalls apart, with who stalled and the stack", () => {
    const frame = (name: string, offset: number, size: number | null) => ({ name, offset, size })
    assert.deepStrictEqual(parseScxExits(parseLogText(log)), [
      {
        atMicros: 12_345_678,
        scheduler: "simple",
        kind: "normal",
        reason: "unregistered from user space",
        message: null,
        stalled: null,
        stack: [],
        stackIsWatchdogs: false
      },
      {
        atMicros: 20_000_000,
        scheduler: "qmap (v2)",
        kind: "stall",
        reason: "runnable task stall",
        message: "kworker/u4:[x]:2[77] failed to run for 5.504s",
        stalled: { comm: "kworker/u4:[x]:2", pid: 77, millis: 5504 },
        stack: [frame("check_rq_for_timeouts", 0xdf, 0x120), frame("scx_watchdog_workfn", 0x64, 0x90)],
        stackIsWatchdogs: true
      },
      {
        atMicros: 30_000_000,
        scheduler: "central",
        kind: "error",
        reason: "scx_bpf_error",
        message: "bad cpu -1",
        stalled: null,
        stack: [
          frame("scx_bpf_error_bstr", 0x6c, 0x90),
          frame("bpf_prog_0123456789abcdef_central_dispatch", 0x152, null)
        ],
        stackIsWatchdogs: false
      },
      {
        atMicros: 40_000_000,
        scheduler: "odd",
        kind: "other",
        reason: "<UNKNOWN>",
        message: null,
        stalled: null,
        stack: [],
        stackIsWatchdogs: false
      }
    ])
  })

  it.prop("any text", [FastCheck.string(), FastCheck.nat()], ([text, cut]) => {
    assert.isAtMost(parseScxExits(parseLogText(`${log.slice(0, cut % log.length)}${text}`)).length, 5)
    assert.isAtMost(extractStackSymbols(text.split(" ")).length, text.length)
  })
})

describe("bpfRefused", () => {
  it("names the fix", () => {
    const root = "CapEff:\t000001ffffffffff\n"
    assert.match(bpfRefused(1, "CapEff:\t0000000000000000\nSeccomp:\t0\n").message, /CAP_SYS_ADMIN.*run this as root/)
    assert.match(bpfRefused(1, `${root}Seccomp:\t2\n`).message, /seccomp=unconfined/)
    assert.match(bpfRefused(38, `${root}Seccomp:\t0\n`).message, /CONFIG_BPF_SYSCALL=y/)
    assert.match(bpfRefused(1, `${root}Seccomp:\t0\n`).message, /lockdown/)
    assert.strictEqual(bpfRefused(1, root)._tag, "HostLacks")
  })
})
