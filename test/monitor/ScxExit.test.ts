import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { parseLogText } from "../../src/host/KernelLog.ts"
import { parseScxExits, ScxExitEvent } from "../../src/host/ScxExit.ts"

const DISABLED = "sched_ext: BPF scheduler \"a\" disabled (runtime error)"

describe("the ends of schedulers in a log that a hostile kernel wrote", () => {
  it("have the name before the last words of the kernel's", () => {
    const [event] = parseScxExits(parseLogText(
      "[    1.000001] sched_ext: BPF scheduler \"a\" disabled (b)\" disabled (runtime error)"
    ))
    assert.deepInclude(event, { atMicros: 1_000_001, scheduler: "a\" disabled (b)", reason: "runtime error" })
    assert.deepStrictEqual(parseScxExits(parseLogText("sched_ext: BPF scheduler \" disabled (x)")), [])
  })

  it("may be those of a scheduler below another, or of 7.3's kinds", () => {
    const ends = (reason: string, what = "scheduler") =>
      parseScxExits([{ atMicros: null, text: `sched_ext: BPF ${what} "a" disabled (${reason})` }])
        .map(({ kind, scheduler }) => [scheduler, kind])
    assert.deepStrictEqual(ends("killed by parent scheduler", "sub-scheduler"), [["a", "normal"]])
    assert.deepStrictEqual(ends("reenqueue limit"), [["a", "error"]])
    assert.deepStrictEqual(ends("rescue bandwidth overload", "sub-scheduler"), [["a", "error"]])
    assert.deepStrictEqual(ends("parent exiting", "subscheduler"), [])
  })

  it("have numbers that are exact, or none", () => {
    const events = parseScxExits(parseLogText([
      `[9999999999999999999.000000] ${DISABLED}`,
      "sched_ext: a: t[99999999999999999999] failed to run for 99999999999999999999.000s",
      "   f+0xffffffffffffffffffff/0x10",
      `[    1.000000] ${DISABLED}`,
      "sched_ext: a: t[7] failed to run for 5.250s",
      "   f+0x10/0x20"
    ].join("\n")))
    assert.deepStrictEqual(
      events.map(({ atMicros, stack, stalled }) => [atMicros, stalled?.millis, stack.length]),
      [[null, undefined, 0], [1e6, 5250, 1]]
    )
    assert.deepStrictEqual(Schema.decodeUnknownSync(Schema.Array(ScxExitEvent))(JSON.parse(JSON.stringify(events))), [
      ...events
    ])
  })

  it("take the time of the log's length", () => {
    // minutes where the time is that of the square: of the words in one line, and of the lines
    const between = "\" disabled ("
    const text = `sched_ext: BPF scheduler "${between.repeat(2 ** 18)}`
    assert.deepStrictEqual(parseScxExits([{ atMicros: null, text: `${text})x` }, { atMicros: null, text }]), [])
    const lines = Array.from({ length: 2 ** 17 }, () => ({ atMicros: null, text: DISABLED }))
    assert.strictEqual(parseScxExits(lines).length, lines.length)
  })
})
