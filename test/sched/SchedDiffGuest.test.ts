import * as FileSystem from "@effect/platform/FileSystem"
import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { boot, freezeAndAttach } from "../../src/Ktstr.ts"
import type { Vm } from "../../src/kvm/spec/VmEngine.ts"
import { diffSched, guestSeconds, readSched, SchedChange, type SchedSnapshot } from "../../src/sched/index.ts"
import { complaints, ktstr } from "../support/cli.ts"
import { HostLive, scratch } from "../support/guest.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"

/**
 * A scheduler of all tasks, and below it one of those in the cgroup /a. Three tasks spin on two CPUs, one of them in /a, and a loop replaces a sleeping task by another. When it says that one is made, all before
 * are gone. It prints the jiffies from before it made the task, the task's pid, and of one that spins its pid and run time
 * in ns.
 */
const SCRIPT = `
dmesg -n 1
mkdir -p /tmp/cg && mount -t cgroup2 cgroup /tmp/cg && mkdir /tmp/cg/a
/include-files/scx_qmap >/dev/null 2>&1 &
while [ "$(cat /sys/kernel/sched_ext/state)" != enabled ]; do sleep 0.1; done
/include-files/scx_qmap -c /tmp/cg/a >/tmp/sub 2>&1 &
while ! ls /sys/kernel/sched_ext/root/sub/sub-* >/dev/null 2>&1; do cat /tmp/sub; sleep 0.1; done
for n in 1 2 3; do (while :; do :; done) & spins=$!; done
echo $spins >/tmp/cg/a/cgroup.procs
echo "@sub $(ls /sys/kernel/sched_ext/root/sub) $(cat /sys/kernel/sched_ext/root/sub/sub-*/ops) $spins"
(
  while :; do
    old=$made
    jiffies=$(sed -n '/^jiffies: /{s///p;q}' /proc/timer_list)
    sleep 1000 & made=$!
    [ "$old" ] && kill $old && wait $old
    read -r ran _ </proc/$spins/schedstat
    echo "@made $jiffies $made $spins $ran"
    : >/tmp/made
    sleep 0.3
  done
) 2>/dev/null &
while [ ! -e /tmp/made ]; do sleep 0.1; done
`

const LINE = /^@made (\d+) (\d+) (\d+) (\d+)/

/** The line of the first task that was made a second or more after a reading, by jiffies, and all pids that were before it. */
const madeAfter = (vm: Vm, { time: { hz, jiffies } }: SchedSnapshot) =>
  vm.console.pipe(
    Stream.mapConcat((line) => {
      const found = LINE.exec(line)
      return found === null ? [] : [found.slice(1).map(Number)]
    }),
    Stream.takeUntil(([then]) => then >= Number(jiffies) + (hz ?? NaN)),
    Stream.runCollect,
    Effect.map((lines) => {
      const all = [...lines]
      const [, pid, spins, ran] = all[all.length - 1]
      return { pid, spins, ran, before: all.slice(0, -1).map(([, pid]) => pid) }
    })
  )

const tasksOf = ({ tasks }: SchedSnapshot) => "kind" in tasks ? assert.fail(tasks.text) : tasks

/** The scheduler of /a is below the other, and has its task, as sysfs names it: by the cgroup's id. */
const compareSubScheduler = (sched: SchedSnapshot, line: string): void => {
  const [, id, name, pid] = /^@sub sub-(\d+) (\S+) (\d+)/.exec(line) ?? assert.fail(line)
  const [root, sub, ...others] = "kind" in sched.scx ? assert.fail(sched.scx.text) : sched.scx.schedulers
  assert.deepStrictEqual(others, [])
  assert.deepInclude(root, { root: true, level: 0, exit_kind: "NONE" })
  const { address: parent } = root
  assert.deepInclude(sub, { root: false, parent, level: 1, cgroup: "/a", name, sub_cgroup_id: Number(id) })
  const task = tasksOf(sched).find((task) => task.pid === Number(pid))
  assert.deepInclude(task, { class: "ext", cgroup: "/a" })
  assert.strictEqual(task?.scx?.sched, sub.address)
  assert.strictEqual(Object.values(sub.programs).find(({ name }) => name === "qmap_enqueue")?.name, "qmap_enqueue")
}

const check = Effect.gen(function*() {
  const { key, scheduler } = yield* stockScx
  const files = yield* FileSystem.FileSystem
  const directory = yield* scratch
  const vm = yield* boot({
    kernel: key,
    cpus: 2,
    memoryMib: 512,
    includes: [scheduler("scx_qmap")],
    script: SCRIPT,
    timeout: "4 minutes"
  })
  /** Read it frozen, and keep it as `sched show --json` does. */
  const reading = (name: string) =>
    Effect.scoped(Effect.gen(function*() {
      const { header, kernel } = yield* freezeAndAttach(vm, "the guest")
      const sched = readSched(kernel)
      yield* files.writeFileString(`${directory}/${name}`, JSON.stringify({ ...header, sched, losses: 0 }))
      return sched
    }))
  const first = yield* reading("first")
  compareSubScheduler(first, yield* vm.awaitLine(/^@sub /))
  const made = yield* madeAfter(vm, first)
  const second = yield* reading("second")
  const changes = [...diffSched(first, second)]
  const of = <K extends SchedChange["change"]>(kind: K) =>
    changes.filter((each): each is Extract<SchedChange, { readonly change: K }> => each.change === kind)

  assert.deepStrictEqual(of("problem"), [])
  const seconds = guestSeconds(first.time, second.time) ?? NaN
  assert.isAtLeast(seconds, 1)

  // who came and who went, by what the guest printed
  const ended = new Set(of("taskEnded").map(({ pid }) => pid))
  const gone = tasksOf(first).filter(({ pid }) => made.before.includes(pid)).map(({ pid }) => pid)
  assert.isAtLeast(gone.length, 1)
  for (const pid of gone) assert.isTrue(ended.has(pid), `task ${pid} has ended`)
  const added = of("taskAdded").map(({ pid }) => pid)
  const isThere = tasksOf(second).some(({ pid }) => pid === made.pid)
  assert.strictEqual(added.includes(made.pid), isThere)
  for (const pid of added) assert.notInclude(gone, pid)

  // the task that spins ran: /proc said a time that lies between the two
  const spun = of("taskChanged").find(({ pid }) => pid === made.spins) ?? assert.fail("it did not run")
  const ran = spun.fields.find(({ field }) => field === "sum_exec_runtime") ?? assert.fail("it did not run")
  assert.isAtMost(Number(ran.before), made.ran)
  assert.isAtLeast(Number(ran.after), made.ran)
  assert.strictEqual(ran.delta, Number(ran.after) - Number(ran.before))
  assert.strictEqual(ran.rate, Number(ran.delta) / seconds)

  // what a user queue's tasks are, by the tasks themselves, where nobody was just changing it
  const locked = [first, second].flatMap(({ dispatchQueues }) =>
    "kind" in dispatchQueues ? assert.fail(dispatchQueues.text) : dispatchQueues.filter(({ locked }) => locked)
  )
  for (const { address, after, before, entered, left, queue } of of("queueChanged")) {
    assert.strictEqual(before + entered.length - left.length, after)
    if (!queue.startsWith("queue ") || locked.some((other) => other.address === address)) continue
    const [were, are] = [first, second].map((side) =>
      new Set(tasksOf(side).filter(({ scx }) => scx?.dsq === address).map(({ pid }) => pid))
    )
    for (const { pid } of entered) assert.deepStrictEqual([were.has(pid), are.has(pid)], [false, true])
    for (const { pid } of left) assert.deepStrictEqual([were.has(pid), are.has(pid)], [true, false])
  }
  const cpus = of("cpuChanged").map(({ fields }) => fields.find(({ field }) => field === "nr_switches")?.delta ?? 0)
  assert.isAbove(cpus.reduce((sum, switches) => sum + switches, 0), 0)
  assert.deepStrictEqual([...diffSched(second, second)], [])

  // the command, from files
  const [from, to] = ["first", "second"].map((name) => `${directory}/${name}`)
  const printed = yield* ktstr(["sched", "diff", from, to, "--json"])
  assert.deepStrictEqual([printed.code, complaints(printed)], [0, []])
  const document: { readonly seconds: number; readonly changes: unknown } = JSON.parse(printed.stdout)
  assert.strictEqual(document.seconds, seconds)
  assert.deepStrictEqual(Schema.decodeUnknownSync(Schema.Array(SchedChange))(document.changes), changes)
  const text = yield* ktstr(["sched", "diff", from, to])
  assert.match(text.stdout, new RegExp(`^- \\S+\\[${gone[0]}\\]$`, "m"))
}).pipe(Effect.scoped, Effect.provide(HostLive))

describe("two readings of a guest whose tasks come and go", () => {
  beforeEach(needsStockScx)
  it.live(
    "differ in the tasks that /proc told of, in run times and queues; the command says so too",
    () => check,
    300_000
  )
})
