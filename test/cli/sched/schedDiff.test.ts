import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { DUMP_VERSION } from "../../../src/bpf/Report.ts"
import { diffText, NotASched, parseSide } from "../../../src/cli/sched/schedDiff.ts"
import { escapeLine } from "../../../src/cli/terminal/escapeControls.ts"
import { diffSched, guestSeconds, readSched, SchedChange, type SchedSnapshot } from "../../../src/sched/index.ts"
import { MadeSched } from "../../sched/MadeSched.ts"
import { mutateJson, MUTATIONS, MUTATIONS_TIMEOUT, peakMib, tryAll } from "../../support/mutations.ts"

/** More than the peak before, in MiB: what files of a few KiB may make this process use. */
const MOST_GROWTH = 512

/** What `sched show --json` writes of a kernel with a scheduler, two queues, two tasks, and counters of events with these names. */
const documentOf = (counters: { readonly [event: string]: number | string }) => {
  const sched = new MadeSched()
  const ext = { sched_class: sched.symbol("ext_sched_class"), on_rq: 1, "scx.flags": 1, "scx.runnable_at": 9_990 }
  const tasks = ["one", "two"].map((comm, i) =>
    sched.task({ ...ext, comm, pid: 10 + i, tgid: 10 + i, start_time: 100 + i })
  )
  for (const task of tasks) sched.process(task)
  const [queue, global] = [sched.allocate(256), sched.allocate(256)]
  sched.dispatchQueue(queue, 42n, tasks)
  sched.dispatchQueue(global, 0n, [])
  sched.scheduler("made", [queue], global)
  const { runQueues, scx, ...snapshot } = readSched(sched.kernel())
  if ("kind" in scx || "kind" in runQueues) return assert.fail("the kernel has both")
  const times = { cpustat: { USER: 5, IDLE: "9007199254740993" }, irqs_sum: 3, softirqs: { TIMER: 2 } }
  return {
    schema: "single",
    version: DUMP_VERSION,
    source: { kind: "image", path: "a" },
    kernel: { release: "6.12", pageTableLevels: 4, kaslrOffset: "0x0", possibleCpus: 2 },
    freeze: null,
    sched: {
      ...snapshot,
      runQueues: runQueues.map((queue) => ({ ...queue, times })),
      scx: {
        ...scx,
        schedulers: scx.schedulers.map((one) => ({
          ...one,
          events: { total: counters, cpus: [{ cpu: 0, events: counters }] }
        }))
      }
    },
    losses: 0
  }
}
const golden = JSON.stringify(documentOf({ ENQ: 7, KEEP_LAST: "18446744073709551615" }))

const whole = Either.getOrThrow(parseSide(golden, "whole")).sched

/** All that is said of two readings, as JSON and for people. */
const told = (from: SchedSnapshot, to: SchedSnapshot): ReadonlyArray<SchedChange> => {
  const changes = [...diffSched(from, to)]
  const json: unknown = JSON.parse(JSON.stringify(changes))
  assert.deepStrictEqual<unknown>(
    JSON.parse(JSON.stringify(Schema.decodeUnknownSync(Schema.Array(SchedChange))(json))),
    json
  )
  const text = diffText(changes, guestSeconds(from.time, to.time))
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for; styles are ours
  assert.notMatch(text.replaceAll(/\x1b\[\d+m/g, ""), /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u)
  return changes
}

it("a counter may have a name that every object has", () => {
  const changed = documentOf({ ENQ: 7, constructor: 5, toString: "6", valueOf: 1 })
  const { sched } = Either.getOrThrow(parseSide(JSON.stringify(changed), "changed"))
  const fields = told(whole, sched).flatMap((change) => change.change === "schedulerChanged" ? change.fields : [])
  assert.deepStrictEqual(fields.map(({ after, before, field }) => [field, before, after]), [
    ["KEEP_LAST", "18446744073709551615", null],
    ["constructor", null, 5],
    ["toString", null, "6"],
    ["valueOf", null, 1]
  ])
})

describe(`${MUTATIONS} mutations are refused or compared, whatever they say:`, () => {
  it("a scheduler's state", async () => {
    const before = peakMib()
    assert.deepStrictEqual(told(whole, whole), [])
    const read = await tryAll((pick) => {
      const parsed = parseSide(mutateJson(golden, pick), "mutated")
      assert.notProperty({}, "polluted")
      if (Either.isLeft(parsed)) {
        assert.instanceOf(parsed.left, NotASched)
        assert.isBelow(parsed.left.message.length, 400)
        // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
        assert.notMatch(escapeLine(parsed.left.message), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
        return false
      }
      const { sched } = parsed.right
      told(whole, sched)
      told(sched, whole)
      assert.deepStrictEqual(told(sched, sched).filter(({ change }) => change !== "problem"), [])
      return true
    })
    assert.isAbove(read, MUTATIONS / 10, "enough of them are readings")
    assert.isBelow(peakMib() - before, MOST_GROWTH, "MiB more than before")
  }, MUTATIONS_TIMEOUT)
})
