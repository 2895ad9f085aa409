import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { LinkPerfEvents } from "../../../../src/bpf/guest/links/LinkPerfEvents.ts"
import { formatReason } from "../../../../src/core/Reason.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeKernelObjects } from "../MadeKernelObjects.ts"
import { hex, type MadeDeclarations } from "../MadeMaps.ts"

const FLAG = { TRACEPOINT: 8, KPROBE: 16, UPROBE: 32 }

/** What a perf event's program is attached by, smaller than in v6.12. */
const types = ({ blob, int, list, long, struct }: MadeDeclarations): void => {
  struct("bpf_perf_link", 24, [["link", 0, long], ["perf_file", 16, long]])
  struct("file", 8, [["private_data", 0, long]])
  struct("trace_event_call", 24, [["class", 0, long], ["name", 8, long], ["flags", 16, int]])
  struct("trace_event_class", 8, [["system", 0, long]])
  struct("tracepoint", 8, [["name", 0, long]])
  const call = struct("call", 24, [["class", 0, long]])
  struct("trace_probe_event", 40, [["call", 0, call], ["probes", 24, list]])
  const probe = struct("kprobe", 16, [["addr", 0, long], ["offset", 8, int]])
  const both = struct("kretprobe", 24, [["kp", 0, probe], ["handler", 16, long]])
  const trace = struct("trace_probe", 16, [["list", 0, list]])
  struct("trace_kprobe", 48, [["rp", 0, both], ["symbol", 24, long], ["tp", 32, trace]])
  const consumer = struct("uprobe_consumer", 8, [["ret_handler", 0, long]])
  struct("trace_uprobe", 40, [["consumer", 0, consumer], ["filename", 8, long], ["offset", 16, long], [
    "tp",
    24,
    trace
  ]])
  blob.enum32("", Object.entries(FLAG).map(([name, value]) => [`TRACE_EVENT_FL_${name}`, value]))
  blob.enum32("perf_sw_ids", [["PERF_COUNT_SW_CPU_CLOCK", 0], ["PERF_COUNT_SW_CONTEXT_SWITCHES", 3]])
  blob.enum32("perf_hw_id", [["PERF_COUNT_HW_CPU_CYCLES", 0]])
}

/** A link to a perf event of a counter. */
const counter = (type: number, config: number) => {
  const made = new MadeKernelObjects(types)
  const event = made.event(type, config, 0)
  const file = made.object(8)
  made.set64(file, event)
  const link = made.object(24)
  made.set64(link + 16n, file)
  const read = () =>
    Either.match(new LinkPerfEvents(made.kernel).ofLink(link), {
      onLeft: formatReason,
      onRight: ({ kind, names }) => [kind, ...names]
    })
  return { made, link, file, event, read }
}
/** A link to a perf event of the kernel's tracing, whose name is `made:event` or, by `flag`, what a test puts in its place. */
const traced = (flag = 0) => {
  const { event, made, ...rest } = counter(2, 0)
  const system = made.object(8)
  made.set64(system, made.text("made"))
  const call = made.object(40)
  made.set64(call, system, made.text("event"), BigInt(flag))
  made.set64(event + 24n, call)
  return { event, made, ...rest, call, system }
}
/** The same of a kprobe or uprobe: `probe` is the address of its struct, whose `struct list_head` lies at `list`. */
const probed = (flag: "KPROBE" | "UPROBE") => {
  const of = traced(FLAG[flag])
  const probe = of.made.object(48)
  of.made.set64(of.call + 24n, probe + (flag === "KPROBE" ? 32n : 24n))
  return { ...of, probe }
}
const NOT_MAPPED = "unreadable: 0xffffdeadbeef0000 is not mapped"

describe("LinkPerfEvents", () => {
  it("names a counter by the kernel's enums, one that they lack by its number", () => {
    assert.deepStrictEqual(counter(1, 3).read(), ["perf_event", "software:context_switches"])
    assert.deepStrictEqual(counter(0, 0).read(), ["perf_event", "hardware:cpu_cycles"])
    assert.deepStrictEqual(counter(1, 99).read(), ["perf_event", "software:0x63"])
    assert.deepStrictEqual(counter(7, 3).read(), ["perf_event", "type 7:0x3"])
  })

  it("names a tracepoint, by its own name or that of what it traces", () => {
    assert.deepStrictEqual(traced().read(), ["tracepoint", "made:event"])
    const { call, made, read } = traced(FLAG.TRACEPOINT)
    const tracepoint = made.object(8)
    made.set64(tracepoint, made.text("other"))
    made.set64(call + 8n, tracepoint)
    assert.deepStrictEqual(read(), ["tracepoint", "made:other"])
  })

  it("names a kprobe by its function or address, and one of returns", () => {
    const { made, probe, read } = probed("KPROBE")
    made.set64(probe, 0xffff_ffff_8100_1000n, 0x10n)
    assert.deepStrictEqual(read(), ["kprobe", "0xffffffff81001000"])
    made.set64(probe + 24n, made.text("do_exit"))
    made.set64(probe + 16n, 1n)
    assert.deepStrictEqual(read(), ["kretprobe", "do_exit+0x10"])
  })

  it("names a uprobe by its file, and one of returns", () => {
    const { made, probe, read } = probed("UPROBE")
    made.set64(probe + 8n, made.text("/bin/sh"), 0x4000n)
    assert.deepStrictEqual(read(), ["uprobe", "/bin/sh+0x4000"])
    made.set64(probe, 1n)
    assert.deepStrictEqual(read(), ["uretprobe", "/bin/sh+0x4000"])
  })

  it("says where the way to the event breaks off", () => {
    const { event, file, link, made, read } = counter(1, 3)
    made.set64(file, made.atTheEnd(16))
    assert.strictEqual(read(), `unreadable: ${hex(made.atTheEnd(0))} is not mapped`)
    made.set64(file, NOWHERE)
    assert.strictEqual(read(), NOT_MAPPED)
    made.set64(link + 16n, NOWHERE)
    assert.strictEqual(read(), NOT_MAPPED)
    made.set64(link + 16n, file)
    made.set64(file, event)
    made.set64(event + 24n, NOWHERE)
    assert.strictEqual(read(), NOT_MAPPED)
  })

  it("says where the way to a name breaks off", () => {
    for (const part of ["system", "call"] as const) {
      const { [part]: at, made, read } = traced()
      made.set64(part === "call" ? at + 8n : at, NOWHERE)
      assert.strictEqual(read(), NOT_MAPPED, part)
    }
    for (const flag of ["KPROBE", "UPROBE"] as const) {
      const { call, made, probe, read } = probed(flag)
      made.set64(probe + (flag === "KPROBE" ? 24n : 8n), NOWHERE)
      assert.strictEqual(read(), NOT_MAPPED, flag)
      made.set64(call + 24n, NOWHERE + 0x20n)
      assert.strictEqual(read(), NOT_MAPPED, flag)
    }
  })
})
