import * as FileSystem from "@effect/platform/FileSystem"
import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { readSched, type SchedSnapshot, type ScxState, type Task } from "../../src/sched/index.ts"
import { HostLive, scratch } from "../support/guest.ts"
import { needsScx, needsStockScx, scx, stockScx } from "../support/scx.ts"

/** Makes tasks of many sorts, then prints what /proc and /sys say of all, each line behind a `@`. */
const SCRIPT = `
dmesg -n 1
mkdir -p /tmp/cg /tmp/debug
mount -t cgroup2 cgroup /tmp/cg && mkdir -p /tmp/cg/outer/inner
mount -t debugfs debugfs /tmp/debug && echo Y >/tmp/debug/sched/verbose
sleep 1001 & echo $! >/tmp/cg/outer/inner/cgroup.procs
nice -n 7 sleep 1002 &
taskset 2 sleep 1003 &
chrt -f 11 sleep 1004 &
chrt -r 12 sleep 1005 &
chrt -b 0 sleep 1006 &
chrt -i 0 sleep 1007 &
sleep 2
for each in /proc/[0-9]*; do
  [ -r $each/stat ] || continue
  echo "@task $(cat $each/stat)"
  grep -E '^(Cpus_allowed_list|voluntary_ctxt_switches|nonvoluntary_ctxt_switches|Tgid|Name):' $each/status | sed 's/^/@/'
  sed 's/^/@cgroup /' $each/cgroup
  echo "@schedstat $(cat $each/schedstat 2>/dev/null)"
done
for file in state nr_rejected enable_seq hotplug_seq root/ops; do
  [ -r /sys/kernel/sched_ext/$file ] && echo "@scx $file $(cat /sys/kernel/sched_ext/$file)"
done
for file in /tmp/debug/sched/domains/cpu*/domain*; do
  echo "@domain $file $(cat $file/name) $(cat $file/flags)"
done
echo "@numa $(tr '\\n' ' ' </sys/devices/system/node/node0/numastat)"
echo "@end"
`

const POLICIES = ["NORMAL", "FIFO", "RR", "BATCH", "4", "IDLE", "DEADLINE", "EXT"]

interface Printed {
  readonly pid: number
  readonly switches: readonly [number, number]
  readonly expected: Partial<Task>
  readonly schedstat: ReadonlyArray<string>
}

/** What the script printed of one task: proc(5), /proc/PID/stat. */
const printedTask = (lines: ReadonlyArray<string>): Printed => {
  const [, pid, comm, rest] = /^@task (\d+) \((.*)\) (.*)$/.exec(lines[0]) ?? assert.fail(lines[0])
  const stat = rest.split(" ")
  const of = (name: string): string => lines.find((line) => line.startsWith(`@${name}:`))?.split(/:\s*/)[1] ?? ""
  const kthread = (Number(stat[6]) & 0x20_0000) !== 0
  return {
    pid: Number(pid),
    switches: [Number(of("voluntary_ctxt_switches")), Number(of("nonvoluntary_ctxt_switches"))],
    schedstat: lines.find((line) => line.startsWith("@schedstat "))?.split(" ").slice(1) ?? [],
    expected: {
      // of a kernel thread /proc has the long name, of which task_struct.comm holds the start
      ...(kthread ? {} : { comm }),
      kthread,
      tgid: Number(of("Tgid")),
      state: stat[0],
      ppid: Number(stat[1]),
      pgid: Number(stat[2]),
      sid: Number(stat[3]),
      prio: Number(stat[15]) + 100,
      nice: Number(stat[16]),
      cpu: Number(stat[36]),
      rt_priority: Number(stat[37]),
      policy: POLICIES[Number(stat[38])],
      cpus_ptr: of("Cpus_allowed_list"),
      cgroup: lines.find((line) => line.startsWith("@cgroup 0::"))?.slice("@cgroup 0::".length) ?? ""
    }
  }
}

const boot = (
  options: { readonly kernel: string; readonly includes?: ReadonlyArray<string>; readonly before?: string }
) =>
  Effect.gen(function*() {
    const consoleFile = `${yield* scratch}/console`
    const { kernel } = yield* bootAndFreeze({
      kernel: options.kernel,
      cpus: 2,
      memoryMib: 512,
      includes: options.includes ?? [],
      script: `${options.before ?? ""}${SCRIPT}`,
      consoleFile,
      timeout: "4 minutes"
    })
    const text = yield* (yield* FileSystem.FileSystem).readFileString(consoleFile)
    const lines = text.replaceAll("\r", "").split("\n").filter((line) => line.startsWith("@"))
    assert.include(lines, "@end")
    return { lines, sched: readSched(kernel), release: kernel.release }
  })

const compareTasks = (lines: ReadonlyArray<string>, { tasks }: SchedSnapshot): number => {
  if ("kind" in tasks) return assert.fail(tasks.text)
  const byPid = new Map(tasks.map((task) => [task.pid, task]))
  assert.strictEqual(byPid.size, tasks.length)
  const starts = lines.flatMap((line, index) => line.startsWith("@task ") ? [index] : [])
  let compared = 0
  for (const [i, start] of starts.entries()) {
    const { expected, pid, schedstat, switches } = printedTask(lines.slice(start, starts[i + 1]))
    const task = byPid.get(pid)
    // one that ran meanwhile, or ended, has moved on
    if (task === undefined || task.nvcsw !== switches[0] || task.nivcsw !== switches[1] || task.state === "R") continue
    // the script's shell has ended: what it left is init's now
    const ppid = expected.ppid === 0 || byPid.has(expected.ppid ?? 0) ? expected.ppid ?? 0 : 1
    assert.deepInclude(task, { ...expected, ppid }, `task ${pid}`)
    if (schedstat.length === 3) {
      assert.strictEqual(String(task.sched_info?.run_delay), schedstat[1], `run_delay of task ${pid}`)
      assert.strictEqual(String(task.sched_info?.pcount), schedstat[2], `pcount of task ${pid}`)
    }
    compared++
  }
  return compared
}

const compareDomains = (lines: ReadonlyArray<string>, { domains }: SchedSnapshot): void => {
  const printed = lines.filter((line) => line.startsWith("@domain ") && !line.includes("*")).map((line) => {
    const [, cpu, level, name, flags] = /cpu(\d+)\/domain(\d+) (\S+) (.*)$/.exec(line) ?? assert.fail(line)
    return [Number(cpu), Number(level), name, flags.trim().split(" ").map((flag) => flag.replace(/^SD_/, ""))]
  })
  assert.deepStrictEqual(
    domains.flatMap(({ cpu, domains }) => domains.map(({ flags, name }, level) => [cpu, level, name, [...flags]])),
    printed
  )
}

const check = (kernel: string) =>
  Effect.gen(function*() {
    const { lines, sched } = yield* boot({ kernel })
    assert.isAtLeast(compareTasks(lines, sched), 25)
    compareDomains(lines, sched)
    assert.deepStrictEqual(sched.findings, [])
    assert.deepStrictEqual(sched.problems, [])
    if ("kind" in sched.runQueues) return assert.fail(sched.runQueues.text)
    assert.deepStrictEqual(sched.runQueues.map(({ cpu, idle }) => [cpu, idle?.comm]), [[0, "swapper/0"], [
      1,
      "swapper/1"
    ]])
    assert.deepStrictEqual(sched.runQueues.flatMap(({ problem }) => problem ?? []), [])
    assert.strictEqual(sched.time.hz, 250)
    if ("kind" in sched.scx) {
      assert.deepInclude(sched.scx, { kind: "absent", text: "this kernel was built without CONFIG_SCHED_CLASS_EXT" })
    }
    const { enable_seq, nr_rejected, state } = "kind" in sched.scx ? {} as Partial<ScxState> : sched.scx
    assert.deepStrictEqual(
      [["enable_seq", enable_seq], ["nr_rejected", nr_rejected], ["state", state]].flatMap(([name, value]) =>
        value === undefined ? [] : [`@scx ${name} ${value}`]
      ),
      lines.filter((line) => /^@scx (state|nr_rejected|enable_seq) /.test(line)).toSorted()
    )
    if ("kind" in sched.numa) return assert.fail(sched.numa.text)
    const numastat = /numa_hit (\d+)/.exec(lines.find((line) => line.startsWith("@numa ")) ?? "")
    assert.isAtLeast(sched.numa[0].counters["hit"], Number(numastat?.[1]))
  }).pipe(Effect.scoped, Effect.provide(HostLive))

const checkScx = (kernel: string, simple: string) =>
  Effect.gen(function*() {
    const { lines, sched } = yield* boot({
      kernel,
      includes: [simple],
      before: `
        /include-files/scx_simple >/dev/null 2>&1 &
        while [ "$(cat /sys/kernel/sched_ext/state)" != enabled ]; do sleep 0.1; done
        sh -c 'while :; do :; done' & sh -c 'while :; do :; done' & sh -c 'while :; do :; done' &`
    })
    const printed = new Map(
      lines.filter((line) => line.startsWith("@scx ")).map((line) => line.split(" ").slice(1) as [string, string])
    )
    const { dispatchQueues, scx: state } = sched
    if ("kind" in state || "kind" in dispatchQueues) return assert.fail("no sched_ext")
    assert.deepStrictEqual(
      [
        state.state,
        state.nr_rejected,
        state.enable_seq,
        state.hotplug_seq,
        state.schedulers.map(({ name }) => name)
      ],
      [
        printed.get("state"),
        ...["nr_rejected", "enable_seq", "hotplug_seq"].map((name) => Number(printed.get(name))),
        [printed.get("root/ops")]
      ]
    )
    assert.include(state.schedulers[0].callbacks, "enqueue")
    assert.isAtLeast(compareTasks(lines, sched), 15)
    // three tasks that spin on two CPUs: one at least waits, in scx_simple's own queue, number 0
    const [queue, ...others] = dispatchQueues.filter(({ kind }) => kind === "user")
    assert.deepStrictEqual(others, [])
    assert.strictEqual(queue.id, 0)
    assert.deepStrictEqual(dispatchQueues.flatMap(({ problems }) => problems), [])
    const times = queue.tasks.map(({ dsq_vtime }) => Number(dsq_vtime))
    assert.deepStrictEqual(times, times.toSorted((a, b) => a - b))
    assert.isAtLeast(queue.tasks.length, 1)
  })

describe("the scheduler of a frozen guest equals what /proc and /sys printed inside it", () => {
  it.effect("6.12-cloud", () => check("debian:6.12-cloud"), 300_000)
  it.effect("6.1-cloud", () => check("debian:6.1-cloud"), 300_000)
  it.effect("7.3-cloud", () => check("debian:7.3-cloud"), 300_000)

  for (
    const [title, needs, programs] of [
      ["6.12, whose scheduler is in variables", needsScx, scx],
      ["7.3-cloud, whose scheduler is allocated", needsStockScx, stockScx]
    ] as const
  ) {
    describe("sched_ext", () => {
      beforeEach(needs)
      it.effect(
        title,
        () =>
          Effect.flatMap(programs, ({ key, scheduler }) => checkScx(key, scheduler("scx_simple"))).pipe(
            Effect.scoped,
            Effect.provide(HostLive)
          ),
        300_000
      )
    })
  }
})
