import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { boot, type BootOptions, freezeAndAttach } from "../../src/Ktstr.ts"
import type { Vm } from "../../src/kvm/spec/VmEngine.ts"
import { decodeSched, readSched, type SchedSnapshot, type Task } from "../../src/sched/index.ts"

/**
 * Makes tasks of many sorts, then prints what /proc and /sys say of all, each line behind a `@`; and goes on printing
 * counters, all in one line.
 */
const SCRIPT = `
mkdir -p /tmp/cg /tmp/debug
mount -t cgroup2 cgroup /tmp/cg && mkdir -p /tmp/cg/outer/inner
mount -t debugfs debugfs /tmp/debug && echo Y >/tmp/debug/sched/verbose
sleep 1001 & made=$!
echo $made >/tmp/cg/outer/inner/cgroup.procs
sleep 1002 & made="$made $!"
renice -n 7 -p $! >/dev/null
taskset -c $(($(nproc) - 1)) sleep 1003 & made="$made $!"
chrt -f 11 sleep 1004 & made="$made $!"
chrt -r 12 sleep 1005 & made="$made $!"
chrt -b 0 sleep 1006 & made="$made $!"
chrt -i 0 sleep 1007 & made="$made $!"
for pid in $made; do
  while [ -e /proc/$pid ] && ! grep -q '^[0-9]* (sleep) S' /proc/$pid/stat; do sleep 0.1; done
done
echo "@made $made"
for each in /proc/[0-9]*; do
  echo "@task \${each##*/}"
  sed -nE '/^(Tgid|Cpus_allowed_list|(non)?voluntary_ctxt_switches|[0-9]+)[: ]/s/^/@/p' \
    $each/status $each/stat $each/cgroup $each/schedstat 2>/dev/null
done
for file in state nr_rejected enable_seq hotplug_seq root/ops; do
  [ -r /sys/kernel/sched_ext/$file ] && echo "@scx $file $(cat /sys/kernel/sched_ext/$file)"
done
for file in /tmp/debug/sched/domains/cpu*/domain*; do
  echo "@domain $file $(cat $file/name) $(cat $file/flags)"
done
echo "@end"
counts() {
  grep '^cpu' /proc/schedstat
  grep -oE '^jiffies.*|^cpu#[0-9]+|nr_switches.*' /tmp/debug/sched/debug
  for node in /sys/devices/system/node/node*; do echo "\${node##*/}"; cat $node/numastat; done
  [ ! -r /sys/kernel/sched_ext/root/events ] || cat /sys/kernel/sched_ext/root/events
}
(while :; do echo "@counts" $(counts) "@."; sleep 0.2; done) &
`

const POLICIES = ["NORMAL", "FIFO", "RR", "BATCH", "4", "IDLE", "DEADLINE", "EXT"]

interface Printed {
  readonly pid: number
  readonly switches: readonly [number, number]
  readonly expected: Partial<Task>
  readonly schedstat: ReadonlyArray<string>
}

/**
 * What the script printed of one task, first how often it was switched: proc(5), /proc/PID/stat. Undefined of one that
 * ended meanwhile.
 */
const printedTask = (lines: ReadonlyArray<string>): Printed | undefined => {
  const found = lines.map((line) => /^@(\d+) \((.*)\) (.*)$/.exec(line)).find((each) => each !== null)
  if (found === undefined || found === null) return undefined
  const [, pid, comm, rest] = found
  const stat = rest.split(" ")
  const of = (name: string): string => lines.find((line) => line.startsWith(`@${name}:`))?.split(/:\s*/)[1] ?? ""
  const kthread = (Number(stat[6]) & 0x20_0000) !== 0
  return {
    pid: Number(pid),
    switches: [Number(of("voluntary_ctxt_switches")), Number(of("nonvoluntary_ctxt_switches"))],
    schedstat: lines.find((line) => /^@\d+ \d+ \d+$/.test(line))?.split(" ") ?? [],
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
      cgroup: lines.find((line) => line.startsWith("@0::"))?.slice("@0::".length) ?? ""
    }
  }
}

const tasksOf = ({ tasks }: SchedSnapshot) => "kind" in tasks ? assert.fail(tasks.text) : tasks
const runQueuesOf = ({ runQueues }: SchedSnapshot) => "kind" in runQueues ? assert.fail(runQueues.text) : runQueues

/** Tasks that slept from the printing to the freeze; gives how many were compared. */
const compareTasks = (lines: ReadonlyArray<string>, sched: SchedSnapshot): number => {
  const tasks = tasksOf(sched)
  const byPid = new Map(tasks.map((task) => [task.pid, task]))
  assert.strictEqual(byPid.size, tasks.length)
  const starts = lines.flatMap((line, index) => line.startsWith("@task ") ? [index] : [])
  const compared: Array<number> = []
  for (const [i, start] of starts.entries()) {
    const printed = printedTask(lines.slice(start, starts[i + 1]))
    if (printed === undefined) continue
    const { expected, pid, schedstat, switches } = printed
    const task = byPid.get(pid)
    // one that ended, ran meanwhile, or has been woken since (its state may be that of its next sleep already) moved on
    if (task === undefined || task.nvcsw !== switches[0] || task.nivcsw !== switches[1]) continue
    if (task.state === "R" || task.on_cpu !== 0 || task.on_rq !== 0 && task.se?.sched_delayed !== true) continue
    // the script's shell has ended: what it left is init's now
    const ppid = expected.ppid === 0 || byPid.has(expected.ppid ?? 0) ? expected.ppid ?? 0 : 1
    assert.deepInclude(task, { ...expected, ppid }, `task ${pid}`)
    if (schedstat.length === 3) {
      assert.strictEqual(String(task.sched_info?.run_delay), schedstat[1], `run_delay of task ${pid}`)
      assert.strictEqual(String(task.sched_info?.pcount), schedstat[2], `pcount of task ${pid}`)
    }
    compared.push(pid)
  }
  const made = lines.find((line) => line.startsWith("@made ")) ?? assert.fail("it made no tasks")
  assert.includeMembers(compared, made.split(" ").slice(1).map(Number))
  return compared.length
}

/** Names and flags of all domains; gives how many there are. */
const compareDomains = (lines: ReadonlyArray<string>, { domains }: SchedSnapshot): number => {
  const printed = lines.filter((line) => line.startsWith("@domain ") && !line.includes("*")).map((line) => {
    const [, cpu, level, name, flags] = /cpu(\d+)\/domain(\d+) (\S+) (.*)$/.exec(line) ?? assert.fail(line)
    return [Number(cpu), Number(level), name, flags.trim().split(" ").map((flag) => flag.replace(/^SD_/, ""))]
  })
  assert.deepStrictEqual(
    domains.flatMap(({ cpu, domains }) => domains.map(({ flags, name }, level) => [cpu, level, name, [...flags]])),
    printed
  )
  return printed.length
}

/** The state of sched_ext as sysfs has it; nothing of a kernel without. */
const compareState = (lines: ReadonlyArray<string>, { scx }: SchedSnapshot): void => {
  const printed = lines.filter((line) => line.startsWith("@scx ")).map((line) => line.split(" ").slice(1).join(" "))
  if ("kind" in scx) {
    assert.deepInclude(scx, { kind: "absent", text: "this kernel was built without CONFIG_SCHED_CLASS_EXT" })
    return assert.deepStrictEqual(printed, [])
  }
  const { enable_seq, hotplug_seq, nr_rejected, schedulers, state } = scx
  assert.deepStrictEqual([
    `state ${state}`,
    `nr_rejected ${nr_rejected}`,
    `enable_seq ${enable_seq}`,
    `hotplug_seq ${hotplug_seq}`,
    ...schedulers.filter(({ root }) => root).map(({ name }) => `root/ops ${name}`)
  ], printed)
}

type Counts = ReadonlyMap<string, bigint>

/** A CPU's counters in the order of its line in /proc/schedstat; Documentation/scheduler/sched-stats.rst. */
const SCHEDSTAT = [
  "yld_count",
  undefined,
  "sched_count",
  "sched_goidle",
  "ttwu_count",
  "ttwu_local",
  "rq_cpu_time",
  "run_delay",
  "pcount"
] as const
const NUMASTAT: { readonly [name: string]: string } = {
  numa_hit: "hit",
  numa_miss: "miss",
  numa_foreign: "foreign",
  interleave_hit: "interleave_hit",
  local_node: "local",
  other_node: "other"
}

/** A line of counters with its end: the console's last may be one that is just being written. */
const COUNTS = /^@counts (.*) @\.\r?$/

/** What a line of counters says, by names of ours. */
const countsOf = (line: string): Counts => {
  const counts = new Map<string, bigint>()
  const words = COUNTS.exec(line)?.[1].split(/\s+/) ?? assert.fail(line)
  let place = ""
  while (words.length > 0) {
    const word = words.shift() ?? ""
    if (/^cpu\d+$/.test(word)) {
      for (const name of SCHEDSTAT) {
        const value = BigInt(words.shift() ?? assert.fail(line))
        if (name !== undefined) counts.set(`${word} ${name}`, value)
      }
    } else if (/^cpu#\d+$/.test(word)) place = word.replace("#", "")
    else if (/^node\d+$/.test(word)) place = word
    else if (word === "nr_switches" || word === "jiffies") {
      assert.strictEqual(words.shift(), ":")
      counts.set(word === "jiffies" ? word : `${place} ${word}`, BigInt(words.shift() ?? assert.fail(line)))
    } else if (word in NUMASTAT) counts.set(`${place} ${NUMASTAT[word]}`, BigInt(words.shift() ?? assert.fail(line)))
    else if (word.startsWith("SCX_EV_")) counts.set(word, BigInt(words.shift() ?? assert.fail(line)))
    else assert.fail(`${word} in ${line}`)
  }
  return counts
}

/** The same counters, as they were read. */
const countsRead = (sched: SchedSnapshot): Counts => {
  const counts = new Map<string, bigint>([["jiffies", BigInt(sched.time.jiffies)]])
  for (const { cpu, nr_switches, stats } of runQueuesOf(sched)) {
    for (const [name, value] of Object.entries({ nr_switches, ...stats })) {
      if (value !== undefined) counts.set(`cpu${cpu} ${name}`, BigInt(value))
    }
  }
  for (const { counters, node } of "kind" in sched.numa ? [] : sched.numa) {
    for (const [name, value] of Object.entries(counters)) counts.set(`node${node} ${name}`, BigInt(value))
  }
  for (const { events, root } of "kind" in sched.scx ? [] : sched.scx.schedulers) {
    if (!root || "kind" in events) continue
    for (const [name, value] of Object.entries(events.total)) counts.set(name, BigInt(value))
  }
  return counts
}

/** A line of counters that was begun after an instant: the one behind the first that was ended after it. */
const countsAfter = (vm: Vm, jiffies: bigint): Effect.Effect<Counts> =>
  vm.console.pipe(
    Stream.filter((line) => COUNTS.test(line)),
    Stream.map(countsOf),
    Stream.dropUntil((counts) => (counts.get("jiffies") ?? assert.fail("no jiffies")) > jiffies),
    Stream.runHead,
    Effect.map(Option.getOrThrow)
  )

/** All counters only grow: what was read lies between what was printed before and after, and is that where both agree. */
const compareCounts = (before: Counts, read: Counts, after: Counts): void => {
  for (const [name, least] of before) {
    const value = read.get(name) ?? assert.fail(`${name} was not read`)
    const most = after.get(name) ?? assert.fail(`${name} is gone`)
    assert.isTrue(least <= value && value <= most, `${name}: ${least} <= ${value} <= ${most}`)
  }
}

/** Each run queue counts the tasks that say they are in it, unless it is being changed. */
const compareLengths = (sched: SchedSnapshot): void => {
  const tasks = tasksOf(sched)
  const listed = new Set(tasks.map(({ address }) => address))
  for (const { cpu, curr, locked, nr_running } of runQueuesOf(sched)) {
    if (locked === true) continue
    const queued = tasks.filter((task) => task.cpu === cpu && task.on_rq === 1)
    // one that ends, and that its parent has waited for, is in no list while it runs to its last switch
    const ending = curr === undefined || curr.class === "idle" || listed.has(curr.address) ? [] : [curr]
    assert.strictEqual(
      nr_running,
      queued.length + ending.length,
      `CPU ${cpu}: ${[...queued, ...ending].map(({ comm, pid }) => `${comm}[${pid}]`).join()}`
    )
  }
}

interface SchedCase extends Pick<BootOptions, "kernel" | "cpus" | "topology" | "kaslr" | "includes"> {
  /** What the guest does before. */
  readonly before?: string
}

/** What was compared, and the reading for what else a test wants to know. */
interface SchedCompared {
  readonly tasks: number
  readonly domains: number
  readonly counters: number
  readonly sched: SchedSnapshot
}

/** Boot a guest and read its scheduler; all that /proc and /sys say of it in the guest must be what was read. */
export const compareSched = ({ before = "", ...options }: SchedCase) =>
  Effect.gen(function*() {
    const vm = yield* boot({
      memoryMib: 512,
      cmdline: "loglevel=1",
      timeout: "4 minutes",
      ...options,
      includes: ["/usr/bin/chrt", ...options.includes ?? []],
      script: `${before}${SCRIPT}`
    })
    yield* vm.awaitLine(COUNTS)
    const { kernel, lines, sched } = yield* Effect.scoped(Effect.gen(function*() {
      const { kernel } = yield* freezeAndAttach(vm, "the guest")
      return { kernel, sched: readSched(kernel), lines: yield* vm.consoleTail }
    }))
    const printed = lines.filter((line) => line.startsWith("@")).map((line) => line.replace(/\r$/, ""))
    assert.include(printed, "@end")
    if (options.kaslr === true) assert.notStrictEqual(kernel.kaslrOffset, 0n)
    assert.deepStrictEqual(sched.problems, [])
    assert.deepStrictEqual(decodeSched(JSON.parse(JSON.stringify(sched))), sched)
    const runQueues = runQueuesOf(sched)
    assert.deepStrictEqual(runQueues.flatMap(({ problem }) => problem ?? []), [])
    assert.deepStrictEqual(
      runQueues.map(({ cpu, idle }) => [cpu, idle?.comm]),
      Array.from({ length: vm.topology.cpus }, (_, cpu) => [cpu, `swapper/${cpu}`])
    )
    const tasks = compareTasks(printed, sched)
    const domains = compareDomains(printed, sched)
    compareState(printed, sched)
    compareLengths(sched)
    const least = countsOf(printed.findLast((line) => COUNTS.test(line)) ?? assert.fail("no counters"))
    compareCounts(least, countsRead(sched), yield* countsAfter(vm, BigInt(sched.time.jiffies)))
    return { tasks, domains, counters: least.size, sched } satisfies SchedCompared
  }).pipe(Effect.scoped)
