import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { crc32 } from "node:zlib"
import { RECORD_BYTES, RECORD_KINDS } from "../../../src/harness/agent/Protocol.ts"
import { decodeRecords } from "../../../src/harness/agent/Records.ts"
import { judgeRun } from "../../../src/harness/claim/JudgeRun.ts"
import { RunRecord } from "../../../src/harness/claim/RunRecord.ts"
import { assembleRun } from "../../../src/harness/run/AssembleRun.ts"
import { runReport } from "../../../src/harness/run/RunReport.ts"
import { guestLimits } from "../../../src/harness/scenario/GuestLimits.ts"
import { planScenario } from "../../../src/harness/scenario/PlanScenario.ts"
import { smoke } from "../../../src/harness/scenario/Scenario.ts"
import { resolveTopology } from "../../../src/kvm/spec/Topology.ts"
import { random } from "../../support/damage.ts"
import { made } from "../madeRun.ts"

const machine = Either.getOrThrow(resolveTopology({ topology: { nodes: 1, llcs: 1, cores: 2, threads: 1 } }))
const planned = planScenario(smoke, machine, { words: ["/bin/s"], ops: "s", attachNs: 1e10 }, 1, guestLimits(null))
const LINES = [
  "4,1,99999999999999999999999,-;sched_ext: BPF scheduler \"a\" disabled (runtime error)",
  "4,1,5,-;sched_ext: a: t[99999999999999999999] failed to run for 99999999999999999999.000s",
  "4,1,5,-;sched_ext: a: t[12] failed to run for 5.250s",
  "4,1,5,-; f+0xffffffffffffffffffff/0xffffffffffffffffff",
  "4,1,5,-;WARNING: \u001b]0;title\u0007\nPASS  forged",
  "prog 'x': failed to load\nPASS  forged"
]

/** Records as the agent writes them, with any numbers in them. */
const hostileLog = (seed: number): Uint8Array => {
  const pick = random(seed)
  const kinds = Object.keys(RECORD_KINDS) as ReadonlyArray<keyof typeof RECORD_KINDS>
  return Buffer.concat(Array.from({ length: 40 }, (_, sequence) => {
    const kind = pick(2) === 0 ? "line" : kinds[pick(kinds.length)]
    const text = Buffer.from(kind === "line" ? LINES[pick(LINES.length)] : "")
    const length = RECORD_BYTES[kind] + text.length
    const out = Buffer.alloc(32 + Math.ceil(length / 8) * 8)
    for (let at = 32; at < 32 + RECORD_BYTES[kind]; at += 4) {
      out.writeUInt32LE([0, 1, 2, pick(10), 0xffffffff, 0x7fffffff][pick(6)], at)
    }
    // else most would be refused for them
    if (kind === "worker") { for (const at of [16, 64]) out.writeBigUInt64LE(2n ** 43n, 32 + at) }
    text.copy(out, 32 + RECORD_BYTES[kind])
    out.writeUInt32LE(0x3152544b, 0)
    out.writeUInt16LE(RECORD_KINDS[kind], 4)
    out.writeUInt32LE(length, 8)
    out.writeUInt32LE(sequence, 12)
    out.writeBigUInt64LE(2n ** BigInt(pick(64)), 16)
    out.writeUInt32LE(crc32(out.subarray(0, 32 + length)), 24)
    return out
  }))
}

describe("what a hostile guest's agent says", () => {
  it("becomes a record that can be kept and judged, and a report in which no line is the guest's", () => {
    const scheduler = made.scheduler
    assert.isNotNull(scheduler)
    let whole = 0
    let exits = 0
    for (let seed = 0; seed < 200; seed++) {
      const { damage, records } = decodeRecords(hostileLog(seed))
      if (damage === null) whole++
      const told = assembleRun(records, [], planned, scheduler)
      exits += told.scheduler?.exits.length ?? 0
      const run: RunRecord = { ...made, scenario: smoke, ...told, damage }
      const judged = { ...run, verdict: judgeRun(run) }
      const encoded = Schema.encodeSync(RunRecord)(judged)
      assert.deepStrictEqual(Schema.decodeUnknownSync(RunRecord)(JSON.parse(JSON.stringify(encoded))), judged)
      const report = runReport(judged)
      // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
      assert.notMatch(report, /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|\nPASS/u)
    }
    assert.isAbove(whole, 150)
    assert.isAbove(exits, 50)
  })
})
