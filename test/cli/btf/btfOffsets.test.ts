import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Btf } from "../../../src/btf/Btf.ts"
import { offsetGroups } from "../../../src/btf/offsets/offsetGroups.ts"
import { OffsetsReport, offsetsReport, offsetsText } from "../../../src/cli/btf/btfOffsets.ts"
import { BlobWriter } from "../../btf/BlobWriter.ts"
import { compileC } from "../../btf/compileC.ts"
import { ktstr } from "../../support/cli.ts"

/** A kernel that has only run queues with sched_ext, as v6.12 has them. */
const { btf: bytes } = compileC(`
  typedef unsigned u32; typedef unsigned long u64; typedef _Bool bool;
  struct list_head { struct list_head *next, *prev; };
  struct scx_dispatch_q { u32 lock; struct list_head list; u32 nr; };
  struct scx_rq { struct scx_dispatch_q local_dsq; struct list_head runnable_list; u32 nr_running, flags;
    bool cpu_released; u64 pnt_seq; };
  struct rq { u32 lock, nr_running; u64 clock; struct scx_rq scx; } rq;
  enum cpu_usage_stat { CPUTIME_USER, CPUTIME_NICE, CPUTIME_SYSTEM, CPUTIME_SOFTIRQ, CPUTIME_IRQ, CPUTIME_IDLE,
    CPUTIME_IOWAIT, CPUTIME_STEAL, NR_STATS } stat;
  struct kernel_cpustat { u64 cpustat[NR_STATS]; } cpustat;
  struct kernel_stat { u64 irqs_sum; u32 softirqs[10]; } kernel_stat;
`)
const btf = Either.getOrThrow(Btf.parse(bytes, { subject: "a.o" }))
const report = (...groups: ReadonlyArray<string>): OffsetsReport => Either.getOrThrow(offsetsReport(btf, groups))

describe("what btf offsets tells of a kernel", () => {
  it("is in JSON each field's place, null for what it lacks, and its older name", () => {
    const [group] = report("scx-walk-scx-rq").groups
    assert.deepStrictEqual(group, {
      group: "scx-walk-scx-rq",
      present: true,
      structs: {
        rq: { size: 88, fields: { scx: { offset: 16, size: 72 } } },
        scx_rq: {
          size: 72,
          fields: {
            local_dsq: { offset: 0, size: 32 },
            runnable_list: { offset: 32, size: 16 },
            nr_running: { offset: 48, size: 4 },
            flags: { offset: 52, size: 4 },
            cpu_released: { offset: 56, size: 1 },
            ops_qseq: null,
            kick_sync: { offset: 64, size: 8, called: "pnt_seq" },
            nr_immed: null,
            clock: null
          }
        }
      },
      enums: {}
    })
  })

  it("has the numbers that index arrays", () => {
    const [group] = report("cpu-time").groups
    assert(group.present)
    assert.deepStrictEqual(group.structs["kernel_cpustat"], { size: 64, fields: { cpustat: { offset: 0, size: 64 } } })
    assert.deepStrictEqual(Object.keys(group.structs), ["kernel_cpustat", "kernel_stat"])
    assert.strictEqual(group.enums["cpu_usage_stat"]["CPUTIME_STEAL"], 7)
  })

  it("names the struct and the member that an absent group misses", () => {
    const [sched, stat, walk] = report("scx-walk-sched", "schedstat").groups
    assert.isUndefined(walk)
    assert(!stat.present && !sched.present)
    assert.deepStrictEqual([sched.group, sched.struct, sched.member], ["schedstat", "rq", "rq_sched_info"])
    assert.deepStrictEqual([stat.group, stat.struct, stat.member], ["scx-walk-sched", "scx_sched", null])
    assert.match(stat.reason, /^no struct scx_sched: /)
  })

  it("lists every group once, in JSON that its schema takes back", () => {
    const all = report()
    assert.deepStrictEqual(all.groups.map(({ group }) => group), offsetGroups.map(({ name }) => name))
    const json = Schema.parseJson(OffsetsReport)
    assert.deepStrictEqual(Schema.decodeSync(json)(Schema.encodeSync(json)(all)), all)
  })

  it("is for people a line a group, or the fields of the groups that were asked for", () => {
    const lines = offsetsText(report(), false).split("\n")
    assert.strictEqual(lines[0], "a.o")
    assert.include(lines, "run-queue            present  run queues: how many tasks, and the clock")
    assert.match(
      lines.find((line) => line.startsWith("schedstat ")) ?? "",
      /^schedstat +absent +struct rq has no member rq_/
    )
    const present = report().groups.filter(({ present }) => present).length
    assert.strictEqual(lines.at(-2), `${present} of ${offsetGroups.length} groups; --group NAME shows fields`)
    assert.strictEqual(
      offsetsText(report("run-queue", "schedstat"), true),
      [
        "a.o",
        "",
        "run-queue  run queues: how many tasks, and the clock",
        "STRUCT  FIELD       OFFSET  SIZE",
        "rq                            88",
        "        nr_running       4     4",
        "        clock            8     8",
        "",
        "schedstat  counters of run queues (CONFIG_SCHEDSTATS)",
        "absent: struct rq has no member rq_sched_info: this kernel is older or newer than ktstr knows, or was built without it",
        ""
      ].join("\n")
    )
    const walk = offsetsText(report("scx-walk-scx-rq"), true)
    assert.match(walk, /^ +kick_sync \(pnt_seq\) +64 +8$/m)
    assert.match(walk, /^ +nr_immed +absent$/m)
    assert.match(offsetsText(report("cpu-time"), true), /^ENUM +NAME +VALUE\ncpu_usage_stat\n +CPUTIME_USER +0$/m)
  })

  it("refuses a name that is no group's and says which there are", () => {
    const error = Either.getOrThrow(Either.flip(offsetsReport(btf, ["run-queue", "runqueue"])))
    assert.strictEqual(error._tag, "UsageError")
    assert.match(error.message, /^--group runqueue: no such group; the groups are run-queue, scx-run-queue, /)
  })

  it("shows the names of a hostile BTF without what would drive a terminal", () => {
    const writer = new BlobWriter()
    const int = writer.int("int", 4, { signed: true })
    const long = writer.int("long", 8, { signed: true })
    const queue = writer.struct("a\x1b[2J\nb", 8, [{ name: "nr", type: int, bits: 0 }])
    const scx = writer.struct("__proto__", 24, [
      { name: "nr_running", type: int, bits: 0 },
      { name: "flags", type: int, bits: 32 },
      { name: "local_dsq", type: queue, bits: 64 }
    ])
    writer.struct("rq", 40, [
      { name: "nr_running", type: int, bits: 0 },
      { name: "clock", type: long, bits: 64 },
      { name: "scx", type: scx, bits: 128 }
    ])
    const hostile = Either.getOrThrow(Btf.parse(writer.bytes(), { subject: "x\x1b]0;y\x07" }))
    const found = Either.getOrThrow(offsetsReport(hostile, ["scx-run-queue"]))
    const text = offsetsText(found, true)
    assert.match(text, /^x\\x1b\]0;y\\x07\n/)
    assert.match(text, /^__proto__ +24$/m)
    assert.match(text, /^a\\x1b\[2J b +8$/m)
    assert.isTrue(Schema.is(OffsetsReport)(found))
  })
})

describe("ktstr btf offsets", () => {
  const withFile = <A, E>(use: (path: string) => Effect.Effect<A, E>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-offsets-"))),
      (dir) => {
        writeFileSync(join(dir, "a.btf"), bytes)
        return use(join(dir, "a.btf"))
      },
      (dir) => Effect.sync(() => rmSync(dir, { recursive: true }))
    )

  it.effect("prints the groups of a file", () =>
    withFile((path) =>
      Effect.gen(function*() {
        const json = yield* ktstr(["btf", "offsets", "--btf", path, "--json"])
        assert.deepStrictEqual([json.code, json.stderr], [0, ""])
        const { groups, subject } = yield* Schema.decode(Schema.parseJson(OffsetsReport))(json.stdout)
        assert.deepStrictEqual(groups, report().groups)
        assert.strictEqual(subject, path)
        const text = yield* ktstr(["btf", "offsets", "--btf", path, "--group", "run-queue"])
        assert.strictEqual(text.stdout, offsetsText({ ...report("run-queue"), subject: path }, true))
      })
    ))

  it.effect("refuses a group that there is not, as wrong usage", () =>
    withFile((path) =>
      Effect.gen(function*() {
        const { code, stderr, stdout } = yield* ktstr(["btf", "offsets", "--btf", path, "--group", "nope"])
        assert.deepStrictEqual([code, stdout], [2, ""])
        assert.match(stderr, /--group nope: no such group/)
      })
    ))
})
