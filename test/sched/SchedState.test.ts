import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Reason } from "../../src/core/Reason.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import {
  decodeSched,
  raiseWatchdogs,
  readSched,
  readScxBase,
  readTime,
  type SchedSnapshot,
  shortWatchdogs
} from "../../src/sched/index.ts"
import { MadeKernel } from "../memory/MadeKernel.ts"
import { MadeSched, offsetOf, sizeOf } from "./MadeSched.ts"

const listed = <A>(part: ReadonlyArray<A> | Reason): ReadonlyArray<A> => "kind" in part ? assert.fail(part.text) : part
const tasksOf = ({ tasks }: SchedSnapshot) => listed(tasks)
const queuesOf = ({ dispatchQueues }: SchedSnapshot) => listed(dispatchQueues)
const runQueuesOf = ({ runQueues }: SchedSnapshot) => listed(runQueues)
const scxOf = ({ scx }: SchedSnapshot) => "kind" in scx ? assert.fail(scx.text) : scx

/** Two tasks of sched_ext in a queue of a scheduler, one with the scheduler, one on a CPU. */
const parked = () => {
  const sched = new MadeSched()
  const ext = { sched_class: sched.symbol("ext_sched_class"), on_rq: 1, "scx.flags": 1, "scx.runnable_at": 9_000 }
  const [first, second, held, running] = ["first", "second", "held", "running"].map((comm, i) =>
    sched.task({ ...ext, comm, pid: 10 + i, tgid: 10 + i, "scx.slice": 1000 + i, "scx.weight": 100 })
  )
  for (const task of [first, second, held, running]) sched.process(task)
  sched.field("task_struct", held, { "scx.ops_state": 2 + 4 * 7 })
  sched.field("task_struct", running, { on_cpu: 1, "thread_info.cpu": 1 })
  const queue = sched.allocate(sizeOf("scx_dispatch_q"))
  const global = sched.allocate(sizeOf("scx_dispatch_q"))
  const cursor = sched.allocate(sizeOf("scx_dsq_list_node"))
  sched.field("scx_dsq_list_node", cursor, { flags: 1 })
  sched.dispatchQueue(queue, 42n, [first, second], [cursor])
  sched.dispatchQueue(global, 2n ** 63n + 1n, [])
  const scheduler = sched.scheduler("made", [queue], global)
  const idle = sched.task({ sched_class: sched.symbol("idle_sched_class"), comm: "swapper/0" })
  sched.field("rq", sched.rq(0), { curr: idle, idle, stop: idle })
  sched.field("rq", sched.rq(1), { curr: running, idle, stop: idle, nr_running: 1, "scx.nr_running": 1 })
  return { sched, first, second, held, running, queue, scheduler, idle }
}

describe("readSched on made memory", () => {
  it("reads every thread, in the words of ps", () => {
    const sched = new MadeSched()
    const parent = sched.task({ comm: "parent", pid: 1, tgid: 1, __state: 1, start_time: 5n })
    const thread = sched.task({
      comm: "thread",
      pid: 8,
      tgid: 7,
      __state: 2,
      "cpus_mask.bits": 2,
      nvcsw: 3,
      nivcsw: 2n ** 60n
    })
    const leader = sched.task({
      comm: "leader",
      pid: 7,
      tgid: 7,
      real_parent: parent,
      __state: 0x402,
      flags: 0x20_0000,
      static_prio: 127,
      policy: 3,
      "se.vlag": -5n,
      "thread_info.cpu": 1
    })
    const css = sched.allocate(sizeOf("css_set"))
    const cgroup = sched.allocate(sizeOf("cgroup"))
    const nodes = ["", "a", "deep"].map((name) => {
      const node = sched.allocate(sizeOf("kernfs_node"))
      const at = sched.allocate(16)
      sched.text(at, name)
      sched.field("kernfs_node", node, { name: at })
      return node
    })
    sched.field("kernfs_node", nodes[1], { __parent: nodes[0] })
    sched.field("kernfs_node", nodes[2], { __parent: nodes[1] })
    sched.field("cgroup", cgroup, { kn: nodes[2] })
    sched.field("css_set", css, { dfl_cgrp: cgroup })
    sched.field("task_struct", leader, { cgroups: css })
    sched.process(parent)
    sched.process(leader, [thread])
    const snapshot = readSched(sched.kernel())
    assert.deepStrictEqual(
      tasksOf(snapshot).map(({ class: name, comm, kthread, nice, pid, policy, state, tgid }) =>
        [pid, tgid, comm, state, name, policy, nice, kthread] as const
      ),
      [
        [1, 1, "parent", "S", "fair", "NORMAL", 0, false],
        [7, 7, "leader", "I", "fair", "BATCH", 7, true],
        [8, 7, "thread", "D", "fair", "NORMAL", 0, false]
      ]
    )
    const [, read, other] = tasksOf(snapshot)
    assert.deepInclude(read, { ppid: 1, cgroup: "/a/deep", cpus_ptr: "0-1", cpu: 1 })
    assert.strictEqual(read.se?.vlag, -5)
    assert.deepInclude(other, { cpus_ptr: "1", nvcsw: 3, nivcsw: String(2n ** 60n) })
    assert.deepStrictEqual(snapshot.time, { jiffies: 10_000, hz: 250 })
    assert.deepStrictEqual(snapshot.problems, [])
  })

  it("reads a scheduler, its queues in order, and skips the cursors of iterators", () => {
    const { queue, scheduler, sched } = parked()
    sched.set("u64", sched.rq(0) + 2048n, 5n)
    sched.set("u64", sched.rq(1) + 2048n, 2n)
    const snapshot = readSched(sched.kernel())
    const scx = scxOf(snapshot)
    assert.strictEqual(scx.state, "enabled")
    assert.deepInclude(scx.schedulers[0], {
      address: `0x${scheduler.toString(16)}`,
      name: "made",
      flags: ["ENQ_LAST"],
      callbacks: ["enqueue"],
      exit_kind: "NONE",
      watchdogMillis: 30_000
    })
    assert.deepStrictEqual(scx.schedulers[0].events, {
      total: { SCX_EV_SELECT_CPU_FALLBACK: 7, SCX_EV_DISPATCH_KEEP_LAST: 0 },
      cpus: [{ cpu: 0, events: { SCX_EV_SELECT_CPU_FALLBACK: 5 } }, {
        cpu: 1,
        events: { SCX_EV_SELECT_CPU_FALLBACK: 2 }
      }]
    })
    const [user] = queuesOf(snapshot).filter(({ kind }) => kind === "user")
    assert.deepInclude(user, {
      id: 42,
      nr: 2,
      cursors: 1,
      locked: false,
      address: `0x${queue.toString(16)}`,
      problems: []
    })
    assert.deepStrictEqual(
      user.tasks.map(({ comm, order, slice, waitingMillis }) => [comm, order, slice, waitingMillis]),
      [
        ["first", "fifo", 1000, 4000],
        ["second", "fifo", 1001, 4000]
      ]
    )
    assert.deepStrictEqual(
      queuesOf(snapshot).filter(({ kind }) => kind !== "user").map(({ cpu, kind, node }) => [kind, cpu ?? node]),
      [["local", 0], ["bypass", 0], ["local", 1], ["bypass", 1], ["global", 0]]
    )
    assert.deepStrictEqual(runQueuesOf(snapshot).map(({ cpu, curr }) => [cpu, curr?.comm]), [[0, "swapper/0"], [
      1,
      "running"
    ]])
  })

  it("names the programs of callbacks, and why a scheduler ended that its loader still holds", () => {
    const { scheduler, sched } = parked()
    sched.opsMap(scheduler, { id: 77, name: "a_name_of_twenty_one" })
    const info = sched.allocate(sizeOf("scx_exit_info"))
    sched.field("scx_sched", scheduler, { exit_info: info })
    const loaded = scxOf(readSched(sched.kernel()))
    assert.deepStrictEqual(loaded.schedulers[0].programs, { enqueue: { id: 77, name: "a_name_of_twenty_one" } })
    assert.strictEqual(loaded.lastExit, undefined)
    const kernel = sched.kernel()
    const base = readScxBase(kernel, readTime(kernel))
    if ("kind" in base) return assert.fail(base.text)
    assert.isFalse(base.schedulers.some((scheduler) => "programs" in scheduler))
    const schedulers = base.schedulers.map((scheduler) => ({ ...scheduler, programs: loaded.schedulers[0].programs }))
    assert.deepStrictEqual({ ...base, schedulers }, loaded)

    sched.set("u64", sched.symbol("scx_root"), 0n)
    assert.strictEqual(scxOf(readSched(sched.kernel())).lastExit, undefined) // not said why
    sched.field("scx_exit_info", info, { kind: 64 })
    const ended = scxOf(readSched(sched.kernel()))
    assert.deepStrictEqual(ended.schedulers, [])
    assert.deepStrictEqual(ended.lastExit, { scheduler: "made", kind: "UNREG", exit_code: 0, backtrace: [] })
  })

  it("writes what its schema says", () => {
    const { sched } = parked()
    const snapshot = readSched(sched.kernel())
    assert.deepStrictEqual(decodeSched(JSON.parse(JSON.stringify(snapshot))), snapshot)
  })
})

describe("watchdogs that are raised", () => {
  it("are those that are shorter, once", () => {
    const { sched } = parked()
    const kernel = sched.kernel()
    assert.deepStrictEqual(shortWatchdogs(kernel, 30_000), [])
    const [raised] = listed(raiseWatchdogs(kernel, 60_001))
    assert.deepInclude(raised, { scheduler: "made", fromMillis: 30_000, toMillis: 60_004, jiffies: 15_001n })
    assert.strictEqual(kernel.space.u64(sched.symbol("scx_watchdog_timeout")), 15_001n)
    assert.deepStrictEqual(raiseWatchdogs(kernel, 60_001), [])
  })

  it("say why they cannot be: no sched_ext, no HZ, memory that is not written", () => {
    const { sched } = parked()
    const kernel = sched.kernel()
    const address = (name: string) => name === "ext_sched_class" ? undefined : kernel.symbols.address(name)
    const plain = { ...kernel, symbols: { ...kernel.symbols, address } }
    assert.deepInclude(shortWatchdogs(plain, 60_000), { kind: "absent" })
    const { base } = MadeKernel
    const memory = new GuestMemory([{ start: base, bytes: sched.made.bytes }])
    const readOnly = Effect.runSync(GuestKernel.fromMemory(memory))
    const text = `the watchdog's time of made at 0x${
      sched.symbol("scx_watchdog_timeout").toString(16)
    } cannot be written`
    assert.deepStrictEqual(raiseWatchdogs(readOnly, 60_000), { kind: "unreadable", text })
    sched.field("clocksource", sched.symbol("clocksource_jiffies"), { mult: 0 })
    assert.deepInclude(shortWatchdogs(sched.kernel(), 60_000), { kind: "absent" })
  })
})

describe("what looks wrong", () => {
  const findingsOf = (sched: MadeSched) => readSched(sched.kernel()).findings
  const named = (sched: MadeSched, name: string) => findingsOf(sched).filter((finding) => finding.name === name)

  it("a task that is runnable for longer than half the watchdog, and where it is", () => {
    const { held, sched } = parked()
    assert.deepStrictEqual(named(sched, "runnable-too-long"), [])
    sched.field("task_struct", held, { "scx.runnable_at": 10_000n - 3751n })
    const [finding] = named(sched, "runnable-too-long")
    assert.deepInclude(finding, { pid: 12, comm: "held", measured: 15_004, threshold: 15_000, unit: "ms" })
    assert.include(finding.text, "with the BPF scheduler, which has not dispatched it")
    sched.field("task_struct", held, { "scx.flags": 1 | 4 }) // the stamp will be renewed
    assert.deepStrictEqual(named(sched, "runnable-too-long"), [])
  })

  it("a CPU that is idle while a task that may run there waits", () => {
    const { first, sched, second } = parked()
    assert.deepInclude(named(sched, "idle-with-work")[0], { cpu: 0, pid: 10, measured: 4000, threshold: 50 })
    for (const task of [first, second]) sched.field("task_struct", task, { "cpus_mask.bits": 2 })
    assert.deepStrictEqual(named(sched, "idle-with-work"), [])
  })

  it("a busy CPU's clock that stands", () => {
    const { sched } = parked()
    sched.field("rq", sched.rq(1), { clock: 3_900_000_000n })
    assert.deepInclude(named(sched, "clock-stands")[0], { cpu: 1, measured: 1100, threshold: 1000 })
    sched.field("rq", sched.rq(1), { clock: 5_000_000_000n })
    sched.field("rq", sched.rq(0), { clock: 1n }) // it is idle
    assert.deepStrictEqual(named(sched, "clock-stands"), [])
  })

  it("a busy CPU whose timer stays due, whoever moves its clock", () => {
    const { sched } = parked()
    const timers = sched.perCpu("hrtimer_bases", 1)
    sched.set("u32", timers, 1) // hres_active
    sched.field("hrtimer_cpu_base", timers, { expires_next: 5_500_000_000n })
    assert.deepInclude(named(sched, "clock-stands")[0], { cpu: 1, measured: 1500, threshold: 1000 })
    sched.field("rq", sched.rq(1), { clock: 3_900_000_000n })
    sched.field("hrtimer_cpu_base", timers, { expires_next: 7_003_000_000n })
    assert.deepStrictEqual(named(sched, "clock-stands"), [])
    // none is due, or timers are those of ticks only: then by the clock
    sched.field("hrtimer_cpu_base", timers, { expires_next: 2n ** 63n - 1n })
    assert.deepInclude(named(sched, "clock-stands")[0], { cpu: 1, measured: 1100 })
    sched.field("hrtimer_cpu_base", timers, { expires_next: 5_500_000_000n })
    sched.set("u32", timers, 0)
    assert.deepInclude(named(sched, "clock-stands")[0], { cpu: 1, measured: 1100 })
  })

  it("times of any HZ and of damaged clocks stay integers, as the document has them", () => {
    const { sched } = parked()
    const timers = sched.perCpu("hrtimer_bases", 1)
    sched.set("u32", timers, 1)
    sched.field("hrtimer_cpu_base", timers, { expires_next: 5_500_000_000n })
    const late = () => {
      const { runQueues } = decodeSched(JSON.parse(JSON.stringify(readSched(sched.kernel()))))
      return "kind" in runQueues ? assert.fail(runQueues.text) : runQueues[1].timerLateNanos
    }
    sched.field("clocksource", sched.symbol("clocksource_jiffies"), { mult: 3_333_333 * 256 }) // HZ is 300
    assert.strictEqual(late(), 1_500_666_667)
    assert.deepInclude(named(sched, "idle-with-work")[0], { measured: 3333 })
    sched.set("u64", sched.symbol("tick_next_period"), 2n ** 64n - 1n)
    sched.field("rq", sched.rq(1), { clock: 2n ** 64n - 1n })
    assert.match(String(late()), /^18446744\d{12}$/)
  })

  it("a queue that counts other than its list has, unless it is being changed", () => {
    const { queue, sched } = parked()
    sched.field("scx_dispatch_q", queue, { nr: 3 })
    assert.include(named(sched, "queue-disagrees")[0].text, "queue 42")
    assert.include(named(sched, "queue-disagrees")[0].text, "counts 3 tasks, but its list has 2")
    sched.field("scx_dispatch_q", queue, { lock: 1 })
    assert.deepStrictEqual(named(sched, "queue-disagrees"), [])
  })

  it("a task that says it is elsewhere, and a list that breaks off", () => {
    const { first, queue, sched, second } = parked()
    sched.field("task_struct", second, { "scx.dsq": queue + 8n })
    assert.include(
      named(sched, "queue-disagrees")[0].text,
      "task 11 is in its list, but says that it is in the queue at"
    )
    sched.field("task_struct", second, { "scx.dsq": queue })
    sched.set("u64", first + BigInt(offsetOf("task_struct", "scx.dsq_list.node")), 0xffff_c900_dead_0000n)
    assert.match(
      named(sched, "queue-disagrees")[0].text,
      /^queue 42 at 0x[0-9a-f]+: its list: 0xffffc900dead0000 is not mapped$/
    )
  })

  it("a CPU that runs what may not run there", () => {
    const { running, sched } = parked()
    assert.deepStrictEqual(named(sched, "not-allowed-here"), [])
    sched.field("task_struct", running, { "cpus_mask.bits": 1 })
    assert.deepInclude(named(sched, "not-allowed-here")[0], { cpu: 1, pid: 13 })
    sched.field("task_struct", running, { migration_disabled: 1 })
    assert.deepStrictEqual(named(sched, "not-allowed-here"), [])
  })

  it("a scheduler in whose place the kernel schedules for long, unless it comes or goes", () => {
    const { scheduler, sched } = parked()
    sched.field("scx_sched", scheduler, { bypass_depth: 1, bypass_timestamp: 6_000_000_000n })
    assert.deepStrictEqual(named(sched, "long-bypass"), []) // a second is not more than a second
    sched.field("scx_sched", scheduler, { bypass_timestamp: 5_900_000_000n })
    assert.deepStrictEqual(named(sched, "long-bypass"), [{
      name: "long-bypass",
      address: `0x${scheduler.toString(16)}`,
      measured: 1100,
      threshold: 1000,
      unit: "ms",
      text: "scheduler made has been bypassed for 1100 ms: the kernel schedules its tasks in its place"
    }])
    sched.set("u32", sched.symbol("scx_enable_state_var"), 2) // it is being disabled
    assert.deepStrictEqual(named(sched, "long-bypass"), [])
    sched.set("u32", sched.symbol("scx_enable_state_var"), 1)
    sched.field("scx_sched", scheduler, { bypass_depth: 0 })
    assert.deepStrictEqual(named(sched, "long-bypass"), [])
  })

  it("a scheduler that ends, with the kernel's own words", () => {
    const { scheduler, sched } = parked()
    const info = sched.allocate(sizeOf("scx_exit_info"))
    const [reason, msg, bt] = [64, 64, 16].map((bytes) => sched.allocate(bytes))
    sched.text(reason, "runnable task stall")
    sched.text(msg, "held[12] failed to run for 30.1s")
    sched.set("u64", bt, sched.symbol("fair_sched_class") + 2n)
    sched.field("scx_exit_info", info, { kind: 1026, reason, msg, bt, bt_len: 1 })
    sched.field("scx_sched", scheduler, { exit_kind: 1026, exit_info: info })
    const exit = scxOf(readSched(sched.kernel())).schedulers[0].exitInfo
    assert.deepStrictEqual(exit, {
      kind: "ERROR_STALL",
      exit_code: 0,
      reason: "runnable task stall",
      message: "held[12] failed to run for 30.1s",
      backtrace: ["fair_sched_class+0x2"]
    })
    const text = "scheduler made exits: ERROR_STALL: held[12] failed to run for 30.1s"
    assert.strictEqual(named(sched, "scheduler-exits")[0].text, text)
    sched.field("scx_sched", scheduler, { exit_kind: 1 }) // the kernel handles it
    assert.strictEqual(scxOf(readSched(sched.kernel())).schedulers[0].exit_kind, "DONE")
    assert.strictEqual(named(sched, "scheduler-exits")[0].text, text)
    sched.field("scx_exit_info", info, { kind: 0 }) // and has not said why
    assert.strictEqual(named(sched, "scheduler-exits")[0].text, "scheduler made exits: DONE")
  })
})

describe("damaged memory", () => {
  it("finds the tasks behind a broken list by their numbers", () => {
    const sched = new MadeSched()
    const [first, lost] = ["first", "lost"].map((comm, i) => sched.task({ comm, pid: 10 + i, tgid: 10 + i }))
    for (const task of [first, lost]) sched.process(task)
    const number = sched.allocate(sizeOf("pid"))
    sched.field("pid", number, { tasks: lost + BigInt(offsetOf("task_struct", "pid_links")) })
    sched.idr(sched.symbol("init_pid_ns") + BigInt(offsetOf("pid_namespace", "idr")), 11, number)
    const pidsOf = (snapshot: SchedSnapshot) => tasksOf(snapshot).map(({ pid }) => pid)
    assert.deepStrictEqual(pidsOf(readSched(sched.kernel())), [10, 11])
    sched.set("u64", first + BigInt(offsetOf("task_struct", "tasks")), 0xffff_c900_dead_0000n)
    assert.deepStrictEqual(pidsOf(readSched(sched.kernel())), [10]) // it does not say that this is its number
    sched.field("task_struct", lost, { thread_pid: number })
    const damaged = readSched(sched.kernel())
    assert.deepStrictEqual(pidsOf(damaged), [10, 11])
    assert.deepStrictEqual(damaged.problems.map(({ text }) => text), [
      "the list of processes: 0xffffc900dead0000 is not mapped"
    ])
  })

  it("never throws or hangs, whatever bytes change", () => {
    const { sched } = parked()
    const { bytes } = sched.made
    const kernel = sched.kernel()
    let seed = 12345
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
      return Math.floor(seed / 2 ** 32 * below)
    }
    const from = 80 * 4096 // outside the image: tasks, queues, run queues
    let differences = 0
    const whole = JSON.stringify(readSched(kernel))
    for (let round = 0; round < 400; round++) {
      const changes = Array.from({ length: 1 + random(4) }, () => from + random(bytes.length - from))
      const before = changes.map((at) => bytes[at])
      for (const at of changes) bytes[at] = random(256)
      kernel.space.flush()
      const document = JSON.stringify(readSched(kernel))
      if (document !== whole) differences++
      assert.isBelow(document.length, 1_000_000)
      changes.forEach((at, i) => bytes[at] = before[i])
    }
    kernel.space.flush()
    assert.isAbove(differences, 0, "none of the changes was in what is read")
    assert.strictEqual(JSON.stringify(readSched(kernel)), whole)
  })
})
