import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { diffSched, readSched, SchedChange } from "../../src/sched/index.ts"
import { MadeSched, sizeOf } from "./MadeSched.ts"

describe("diffSched", () => {
  it("tells of two readings what ran, moved, came and ended, with counters and rates", () => {
    const sched = new MadeSched()
    const ext = { sched_class: sched.symbol("ext_sched_class"), on_rq: 1, "scx.flags": 1, "scx.runnable_at": 9_990 }
    const [stays, moves, ends, comes] = ["stays", "moves", "ends", "comes"].map((comm, i) =>
      sched.task({ ...ext, comm, pid: 10 + i, tgid: 10 + i, start_time: 100 + i })
    )
    for (const task of [stays, moves, ends]) sched.process(task)
    const [queue, global] = [sched.allocate(256), sched.allocate(256)]
    sched.dispatchQueue(queue, 42n, [stays, moves])
    sched.dispatchQueue(global, 0n, [])
    const scheduler = sched.scheduler("made", [queue], global)
    const first = readSched(sched.kernel())
    assert.deepStrictEqual([...diffSched(first, first)], [])

    sched.set("u64", sched.symbol("jiffies_64"), 10_500n) // 2 s at 250 Hz
    sched.field("rq", sched.rq(1), { nr_switches: 30n, nr_running: 1 })
    sched.field("task_struct", stays, { nvcsw: 12n })
    sched.dispatchQueue(queue, 42n, [stays, comes])
    sched.field("task_struct", moves, { "scx.dsq": 0n, "thread_info.cpu": 1 })
    sched.process(comes)
    sched.field("task_struct", ends, { pid: 99, start_time: 500n }) // its place is another's now
    const info = sched.allocate(sizeOf("scx_exit_info"))
    sched.field("scx_exit_info", info, { kind: 1025 })
    sched.field("scx_sched", scheduler, { exit_kind: 1, exit_info: info }) // the kernel handles it
    const second = readSched(sched.kernel())
    const changes = [...diffSched(first, second)]
    const { address } = ("kind" in second.scx ? assert.fail(second.scx.text) : second.scx).schedulers[0]
    const at = `0x${queue.toString(16)}`
    const state = { delta: null, rate: null }
    const who = (comm: string, pid: number, tgid = pid) => ({ pid, tgid, comm, class: "ext" })
    assert.deepStrictEqual(changes.filter(({ change }) => !change.startsWith("finding")), [
      {
        change: "schedulerChanged",
        name: "made",
        address,
        fields: [
          { field: "exit_kind", before: "NONE", after: "ERROR_BPF", ...state }
        ]
      },
      {
        change: "cpuChanged",
        cpu: 1,
        fields: [
          { field: "nr_running", before: 0, after: 1, ...state },
          { field: "nr_switches", before: 0, after: 30, delta: 30, rate: 15 }
        ]
      },
      {
        change: "queueChanged",
        queue: "queue 42",
        address: at,
        before: 2,
        after: 2,
        entered: [
          { pid: 13, comm: "comes" }
        ],
        left: [{ pid: 11, comm: "moves" }]
      },
      {
        change: "taskChanged",
        ...who("stays", 10),
        fields: [
          { field: "nvcsw", before: 0, after: 12, delta: 12, rate: 6 }
        ]
      },
      {
        change: "taskChanged",
        ...who("moves", 11),
        fields: [
          { field: "cpu", before: 0, after: 1, ...state },
          { field: "queue", before: "queue 42", after: null, ...state }
        ]
      },
      { change: "taskAdded", ...who("ends", 99, 12) },
      { change: "taskAdded", ...who("comes", 13) },
      { change: "taskEnded", ...who("ends", 12) }
    ])
    assert.includeMembers(
      changes.flatMap((change) => change.change === "findingAppeared" ? [change.name] : []),
      ["scheduler-exits"]
    )
    assert.deepStrictEqual(
      Schema.decodeUnknownSync(Schema.Array(SchedChange))(JSON.parse(JSON.stringify(changes))),
      changes
    )
  })

  it("names a part that only one side has, and is silent about one that neither kernel has", () => {
    const snapshot = readSched(new MadeSched().kernel())
    const none = { kind: "absent", text: "not built in" } as const
    assert.deepStrictEqual([...diffSched(snapshot, { ...snapshot, tasks: none })], [
      { change: "problem", problem: { kind: "absent", text: "tasks of the second: not built in" } }
    ])
    assert.deepStrictEqual([...diffSched({ ...snapshot, scx: none }, { ...snapshot, scx: none })], [])
  })
})
