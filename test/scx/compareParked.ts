import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { writeMaps } from "../../src/bpf/guest/write/MapWrite.ts"
import { boot, freezeAndAttach } from "../../src/Ktstr.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { decodeSched, defaultThresholds, readSched, type SchedSnapshot } from "../../src/sched/index.ts"
import { compileBpf, compilePark, HostLive, scratch } from "../support/guest.ts"

/**
 * Parks tasks where park.bpf.c puts them. A loop of the kernel's own scheduler keeps CPU 1, whose queues so stay as they
 * are; the others are idle in the end, but for what starts tasks until the scheduler is gone.
 */
const scriptOf = (names: ReadonlyArray<string>) => `
mkdir -p /tmp/debug && mount -t debugfs debugfs /tmp/debug
server=/tmp/debug/sched/ext_server/cpu1/runtime # since v7.0: time for sched_ext's tasks behind others
[ ! -e $server ] || echo 0 >$server
bpftool struct_ops register /include-files/park.bpf.o >/dev/null
echo "@state $(cat /sys/kernel/sched_ext/state) $(cat /sys/kernel/sched_ext/root/ops)"
bpftool -j prog show | sed 's/^/@programs /'
taskset 2 sh -c 'while :; do :; done' &
cd /include-files
taskset 5 ./park ${names.join(" ")}
(
  while [ $(cat /sys/kernel/sched_ext/state) = enabled ]; do taskset 5 ./park parkt0 >/dev/null; sleep 0.1; done
  echo "@ends"
  while [ $(cat /sys/kernel/sched_ext/state) != disabled ]; do sleep 0.1; done
  echo "@gone"
) &
`

const queuesOf = ({ dispatchQueues }: SchedSnapshot) =>
  "kind" in dispatchQueues ? assert.fail(dispatchQueues.text) : dispatchQueues
const scxOf = ({ scx }: SchedSnapshot) => "kind" in scx ? assert.fail(scx.text) : scx
const tasksOf = ({ tasks }: SchedSnapshot) => "kind" in tasks ? assert.fail(tasks.text) : tasks
const runQueuesOf = ({ runQueues }: SchedSnapshot) => "kind" in runQueues ? assert.fail(runQueues.text) : runQueues

const NAMES = "parkf3 parkv1 parkf1 parkv2 parkg1@1 parkf2 parkv3 parkl4@1 parkg2@1 parkl2@1 parkh1".split(" ")

/**
 * Boot a guest with tasks that park.bpf.c parks: its queues must have them where they were put, in their order; then let
 * the scheduler end with an error, which must be read while it ends and after. Gives how many tasks were compared.
 * @param options.queues whether a scheduler can make queues of its own there
 */
export const compareParked = (kernel: string, bpftool: string, { queues = true } = {}) =>
  Effect.gen(function*() {
    const error = queues
      ? { kind: "ERROR_BPF", message: "the test said 7$" }
      : { kind: "ERROR", message: "non-existent DSQ 0x10" }
    const names = queues ? NAMES : NAMES.filter((name) => !/^park[fv]/.test(name))
    const directory = yield* scratch
    const vm = yield* boot({
      kernel,
      cpus: 3,
      memoryMib: 512,
      cmdline: "loglevel=1",
      includes: [bpftool, ...yield* compileBpf(directory, "park"), yield* compilePark(directory)],
      script: scriptOf(names),
      timeout: "4 minutes"
    })
    const lines = yield* vm.consoleTail
    const printed = (word: string) => lines.flatMap((line) => line.startsWith(`@${word} `) ? [line.trim()] : [])
    assert.deepStrictEqual(printed("state"), ["@state enabled ktstr_park"])
    const pids = new Map(
      printed("parked").map((line) => {
        const [, name, pid] = line.split(" ")
        return [name, Number(pid)]
      })
    )
    assert.strictEqual(pids.size, names.length)

    const reading = Effect.gen(function*() {
      const { kernel } = yield* freezeAndAttach(vm, "the guest")
      const sched = readSched(kernel)
      const idle = runQueuesOf(sched).filter(({ cpu, curr }) => cpu !== 1 && curr?.class === "idle")
      return { kernel, sched, idle }
    })
    const found = yield* Effect.scoped(Effect.gen(function*() {
      const { idle, kernel, sched } = yield* reading
      compareQueues(sched, pids, queues)
      compareHeld(sched, pids)
      // however short it is that they have waited
      const finds = readSched(kernel, { ...defaultThresholds, runnableShare: -1, idleMillis: -1 }).findings
      for (const { cpu } of idle) {
        // not for the tasks that may only run on CPU 1
        const found = finds.find((finding) => finding.name === "idle-with-work" && finding.cpu === cpu)
        assert.include(queues ? ["parkf3", "parkv3", "parkt0"] : ["parkh1", "parkt0", undefined], found?.comm)
      }
      const held = finds.find(({ name, pid }) => name === "runnable-too-long" && pid === pids.get("parkh1"))
      assert.include(held?.text, "it is with the BPF scheduler, which has not dispatched it")
      assert.deepStrictEqual(sched.problems, [])
      assert.deepStrictEqual(decodeSched(JSON.parse(JSON.stringify(sched))), sched)

      const [scheduler, ...others] = scxOf(sched).schedulers
      assert.deepStrictEqual(others, [])
      assert.deepInclude(scheduler, { name: "ktstr_park", root: true, exit_kind: "NONE", flags: ["SWITCH_PARTIAL"] })
      const programs: ReadonlyArray<{ readonly id: number; readonly name: string; readonly type: string }> = JSON.parse(
        printed("programs")[0].slice("@programs ".length)
      )
      const theirs = programs.filter(({ type }) => type === "struct_ops").map(({ id, name }) => [name, id])
      assert.deepStrictEqual(
        Object.entries(scheduler.programs).map(([callback, { id, name }]) => [callback, name, id]).sort(),
        theirs.map(([name, id]) => [String(name).replace("park_", ""), name, id]).sort()
      )
      yield* Effect.provideService(writeMaps([{ path: "fail", value: 7 }]), GuestKernel, kernel)
      return theirs.length
    }))
    assert.strictEqual(found, 4)

    yield* vm.awaitLine(/^@ends/)
    yield* Effect.scoped(Effect.gen(function*() {
      const { kernel, sched } = yield* reading
      assert.strictEqual(scxOf(sched).state, "disabling")
      const ends = sched.findings.filter(({ name }) => name === "scheduler-exits")
      assert.strictEqual(ends.length, 1)
      assert.match(ends[0].text, new RegExp(`^scheduler ktstr_park exits: ${error.kind}: ${error.message}`))
      yield* Effect.provideService(writeMaps([{ path: "gone", value: 1 }]), GuestKernel, kernel)
    }))

    yield* vm.awaitLine(/^@gone/)
    yield* Effect.scoped(Effect.gen(function*() {
      const { kernel, sched } = yield* reading
      const { lastExit, schedulers, state } = scxOf(sched)
      assert.deepStrictEqual([state, schedulers], ["disabled", []])
      // before v6.16 the kernel frees it at once
      if (kernel.symbol("scx_root") === undefined) return assert.strictEqual(lastExit, undefined)
      assert.deepInclude(lastExit, { scheduler: "ktstr_park", kind: error.kind })
      assert.match(lastExit?.message ?? "", new RegExp(`^${error.message}`))
      for (const [name, pid] of pids) assert.include(lastExit?.dump, `  R ${name}[${pid}] `)
    }))
    return pids.size
  }).pipe(Effect.scoped, Effect.provide(HostLive))

/** What park.bpf.c says of each name, in the order in which they were woken; the virtual times in theirs. */
const compareQueues = (sched: SchedSnapshot, pids: ReadonlyMap<string, number>, own: boolean): void => {
  const queues = queuesOf(sched)
  assert.deepStrictEqual(queues.flatMap(({ problems }) => problems), [])
  const parked = (kind: string, at: { readonly id?: number; readonly cpu?: number }) => {
    const found = queues.filter((queue) =>
      queue.kind === kind && (at.id === undefined || queue.id === at.id) &&
      (at.cpu === undefined || queue.cpu === at.cpu)
    )
    assert.strictEqual(found.length, 1, `${kind} queues`)
    const [{ nr, tasks }] = found
    assert.strictEqual(nr, tasks.length)
    return tasks.map(({ comm, dsq_vtime, order, pid, slice }) =>
      order === "vtime" ? [comm, pid, order, slice, dsq_vtime] : [comm, pid, order, slice]
    )
  }
  const task = (name: string, order: string, slice: number, ...vtime: ReadonlyArray<number>) => [
    name,
    pids.get(name),
    order,
    slice,
    ...vtime
  ]
  if (!own) assert.deepStrictEqual(queues.filter(({ kind }) => kind === "user"), [])
  if (own) {
    assert.deepStrictEqual(parked("user", { id: 0x10 }), [
      task("parkf3", "fifo", 1_000_003),
      task("parkf1", "fifo", 1_000_001),
      task("parkf2", "fifo", 1_000_002)
    ])
    assert.deepStrictEqual(parked("user", { id: 0x20 }), [
      task("parkv3", "vtime", 1_000_003, 1000),
      task("parkv2", "vtime", 1_000_002, 4000),
      task("parkv1", "vtime", 1_000_001, 7000)
    ])
  }
  assert.deepStrictEqual(parked("global", {}), [task("parkg1", "fifo", 1_000_001), task("parkg2", "fifo", 1_000_002)])
  assert.deepStrictEqual(parked("local", { cpu: 1 }), [
    task("parkl4", "fifo", 1_000_004),
    task("parkl2", "fifo", 1_000_002)
  ])
}

const compareHeld = (sched: SchedSnapshot, pids: ReadonlyMap<string, number>): void => {
  const byPid = new Map(tasksOf(sched).map((task) => [task.pid, task]))
  for (const [name, pid] of pids) {
    const task = byPid.get(pid)
    assert.deepInclude(task, { comm: name, class: "ext", policy: "EXT", state: "R", on_cpu: 0 })
    assert.strictEqual(task?.scx?.dsq === "0x0", name === "parkh1", name)
    assert.strictEqual(task?.cpus_ptr, /^park[gl]/.test(name) ? "1" : "0,2", name)
  }
}
