import { formatReason, type Reason } from "../../core/Reason.ts"
import { newestClock, placeOf, queueName, waitingMillis } from "../../sched/Findings.ts"
import type {
  CpuDomains,
  DispatchQueue,
  RunQueue,
  SchedSnapshot,
  SchedTime,
  Scheduler,
  ScxState,
  Task
} from "../../sched/index.ts"
import { bold, dim, red, yellow } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { duration } from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"

/** Rows of what waits longest. */
const LONGEST = 10
/** Tasks of one queue that are shown. */
const QUEUED = 64

type Time = SchedTime & { readonly ticks: bigint }

const heading = (text: string): string => `\n${bold(text)}\n`
const named = ({ comm, pid }: { readonly comm: string; readonly pid: number }): string => `${escapeLine(comm)}[${pid}]`
const millis = (value: number | null | undefined): string =>
  value === null || value === undefined ? "" : duration(value)
const reason = (why: Reason): string => dim(`${escapeLine(formatReason(why))}\n`)

/** One screen. */
export const showText = (sched: SchedSnapshot): string => {
  const time: Time = { ...sched.time, ticks: BigInt(sched.time.jiffies) }
  const queues = "kind" in sched.dispatchQueues ? [] : sched.dispatchQueues
  const tasks = "kind" in sched.tasks ? [] : sched.tasks
  return [
    "kind" in sched.scx ? `sched_ext: ${reason(sched.scx)}` : scxText(sched.scx),
    heading("CPUs"),
    "kind" in sched.runQueues ? reason(sched.runQueues) : cpuTable(sched.runQueues, queues),
    "kind" in sched.dispatchQueues ? "" : heading("dispatch queues") + queueTable(queues),
    waitingText(tasks, queues, time),
    heading(sched.findings.length === 0 ? "nothing looks wrong" : "looks wrong"),
    ...sched.findings.map(({ name, text }) => `${red(name)}  ${escapeLine(text)}\n`)
  ].join("")
}

const scxText = (scx: ScxState): string => {
  const facts = [
    `sched_ext ${bold(escapeLine(scx.state))}`,
    ...(scx.enable_seq === undefined ? [] : [`enabled ${scx.enable_seq}×`]),
    ...(scx.nr_rejected === undefined || scx.nr_rejected === 0 ? [] : [`${scx.nr_rejected} tasks rejected`]),
    ...(scx.schedulers.length === 0 || scx.watchdogCheckedMillis === null
      ? []
      : [`watchdog looked ${duration(scx.watchdogCheckedMillis)} ago`])
  ]
  const { scheduler = "" } = scx.lastExit ?? {}
  const exit = scx.lastExit === undefined
    ? ""
    : `last exit: ${scheduler === "" ? "" : `${bold(escapeLine(scheduler))} · `}${red(exitText(scx.lastExit))}\n`
  return `${facts.join(" · ")}\n${exit}${scx.schedulers.map(schedulerText).join("")}`
}

const exitText = ({ kind, message, reason: why }: NonNullable<Scheduler["exitInfo"]>): string =>
  escapeLine([kind, why, message].filter((part) => part !== undefined && part !== "").join(": "))

const schedulerText = (scheduler: Scheduler): string => {
  const { bypass_depth, callbacks, cgroup, events, exit_kind, exitInfo, flags, name, programs, root, watchdogMillis } =
    scheduler
  const facts = [
    `${root ? "scheduler" : "  sub-scheduler"} ${bold(escapeLine(name))}`,
    ...(root || cgroup === undefined ? [] : [escapeLine(cgroup)]),
    ...(flags.length === 0 ? [] : [escapeLine(flags.join(" "))]),
    ...(watchdogMillis === undefined ? [] : [`watchdog ${duration(watchdogMillis)}`]),
    ...(bypass_depth === undefined || Number(bypass_depth) === 0 ? [] : [yellow(`bypassed (${bypass_depth})`)]),
    ...(exit_kind === "NONE" ? [] : [red(exitInfo === undefined ? escapeLine(exit_kind) : exitText(exitInfo))])
  ]
  const counted = "kind" in events
    ? [formatReason(events)]
    : Object.entries(events.total).filter(([, count]) => count !== 0)
      .map(([event, count]) => `${event.replace(/^SCX_EV_/, "")} ${count}`)
  const implemented = callbacks.map((callback) => {
    if (!Object.hasOwn(programs, callback)) return callback
    const { id, name } = programs[callback]
    return `${callback} ${name}[${id}]`
  })
  return [
    `${facts.join(" · ")}\n`,
    callbacks.length === 0 ? "" : dim(`  ${escapeLine(implemented.join(" · "))}\n`),
    dim(`  ${counted.length === 0 ? "no events" : escapeLine(counted.join(" · "))}\n`)
  ].join("")
}

const cpuTable = (runQueues: ReadonlyArray<RunQueue>, queues: ReadonlyArray<DispatchQueue>): string => {
  const newest = newestClock(runQueues)
  const local = new Map(queues.flatMap(({ cpu, kind, nr }) => kind === "local" ? [[cpu, nr]] : []))
  return table(
    ["CPU", "RUNS", "CLASS", "FOR", "RUNNABLE", "FAIR", "RT", "DL", "EXT", "LOCAL", "SWITCHES", "CLOCK AGE", ""],
    runQueues.map((queue) => {
      const { cfs, clock, cpu, curr, currNanos, dl, locked, nr_running, nr_switches, online, problem, rt, scx } = queue
      const idle = curr?.class === "idle"
      return [
        String(cpu),
        curr === undefined ? "" : idle ? dim("idle") : named(curr),
        curr === undefined || idle ? "" : escapeLine(curr.class),
        idle || currNanos === undefined ? "" : duration(Math.max(0, Number(currNanos)) / 1e6),
        String(nr_running ?? ""),
        String(cfs?.h_nr_queued ?? cfs?.h_nr_running ?? ""),
        String(rt?.rt_nr_running ?? ""),
        String(dl?.dl_nr_running ?? ""),
        String(scx?.nr_running ?? ""),
        String(local.get(cpu) ?? ""),
        String(nr_switches ?? ""),
        clock === undefined ? "" : duration((newest - Number(clock)) / 1e6),
        [
          ...(online ? [] : ["offline"]),
          ...(locked === true ? ["locked"] : []),
          ...(problem === undefined ? [] : [escapeLine(problem.text)])
        ].join(", ")
      ]
    }),
    [0, 3, 4, 5, 6, 7, 8, 9, 10, 11]
  )
}

const label = (queue: DispatchQueue): string => queueName(queue).replace(/^the /, "")

const queueTable = (queues: ReadonlyArray<DispatchQueue>): string => {
  const shown = queues.filter(({ kind, nr, problems }) => kind === "user" || nr !== 0 || problems.length > 0)
  if (shown.length === 0) return dim("all are empty\n")
  return table(
    ["QUEUE", "TASKS", "ORDER", "FIRST", "OLDEST", "WAITS"],
    shown.map((queue) => {
      const oldest = oldestOf(queue)
      const orders = new Set(queue.tasks.map(({ order }) => order))
      return [
        label(queue),
        String(queue.nr),
        [...orders].join("+"),
        queue.tasks.length === 0 ? "" : named(queue.tasks[0]),
        oldest === undefined ? "" : named(oldest),
        millis(oldest?.waitingMillis)
      ]
    }),
    [1, 5]
  )
}

const oldestOf = ({ tasks }: DispatchQueue): DispatchQueue["tasks"][number] | undefined =>
  tasks.reduce<DispatchQueue["tasks"][number] | undefined>(
    (oldest, task) => (task.waitingMillis ?? 0) > (oldest?.waitingMillis ?? -1) ? task : oldest,
    undefined
  )

const waitingText = (tasks: ReadonlyArray<Task>, queues: ReadonlyArray<DispatchQueue>, time: Time): string => {
  const places = new Map(queues.map((queue) => [queue.address, queue]))
  const waiting = tasks.flatMap((task) => {
    const waits = waitingMillis(time, task)
    return waits === undefined ? [] : [{ task, waits }]
  }).sort((a, b) => b.waits - a.waits).slice(0, LONGEST)
  if (waiting.length === 0) return ""
  return heading("waiting longest") + table(
    ["TASK", "WAITS", "WHERE"],
    waiting.map(({ task, waits }) => [named(task), duration(waits), escapeLine(placeOf(task, places))]),
    [1]
  )
}

export const tasksText = (tasks: ReadonlyArray<Task>, time: Time, sched: SchedSnapshot): string => {
  if (tasks.length === 0) return "no such tasks\n"
  const ext = "kind" in sched.scx ? false : sched.scx.schedulers.length > 0
  const queues = new Map(
    "kind" in sched.dispatchQueues ? [] : sched.dispatchQueues.map((queue) => [queue.address, queue])
  )
  return table(
    [
      "PID",
      "TGID",
      "NAME",
      "STATE",
      "CLASS",
      "POLICY",
      "PRIO",
      "NICE",
      "CPU",
      "CPUS",
      "RUN TIME",
      "SWITCHES",
      ...(ext ? ["WAITS"] : []),
      "IN"
    ],
    tasks.map((task) => {
      const waits = waitingMillis(time, task)
      return [
        String(task.pid),
        String(task.tgid),
        escapeLine(task.comm),
        escapeLine(task.state),
        escapeLine(task.class),
        escapeLine(task.policy),
        String(task.prio ?? ""),
        String(task.nice),
        String(task.cpu ?? ""),
        escapeLine(task.cpus_ptr ?? ""),
        task.se?.sum_exec_runtime === undefined ? "" : duration(Number(task.se.sum_exec_runtime) / 1e6),
        String(Number(task.nvcsw ?? 0) + Number(task.nivcsw ?? 0)),
        ...(ext ? [millis(waits)] : []),
        escapeLine(waits === undefined && task.state !== "R" ? task.wchan ?? "" : placeOf(task, queues))
      ]
    }),
    [0, 1, 6, 7, 8, 10, 11, ...(ext ? [12] : [])]
  )
}

export const dsqsText = (queues: ReadonlyArray<DispatchQueue>): string =>
  queues.length === 0 ? "no dispatch queues\n" : queues.map((queue) => {
    const { address, cursors, locked, nr, problems, seq, tasks } = queue
    const facts = [
      bold(label(queue)),
      `${nr} ${nr === 1 ? "task" : "tasks"}`,
      `seq ${seq}`,
      escapeLine(address),
      ...(cursors === 0 ? [] : [`${cursors} iterators`]),
      ...(locked ? ["locked"] : [])
    ]
    const shown = tasks.slice(0, QUEUED)
    const rows = tasks.length === 0 ? "" : table(
      ["", "PID", "NAME", "ORDER", "VTIME", "SLICE", "WEIGHT", "WAITS"],
      shown.map((task, index) => [
        String(index),
        String(task.pid),
        escapeLine(task.comm),
        task.order,
        task.order === "vtime" ? String(task.dsq_vtime) : "",
        duration(Number(task.slice) / 1e6),
        String(task.weight),
        millis(task.waitingMillis)
      ]),
      [0, 1, 4, 5, 6, 7]
    )
    const more = tasks.length > shown.length ? dim(`${tasks.length - shown.length} more; --json has all\n`) : ""
    const wrong = problems.map((problem) => `${yellow(escapeLine(problem.text))}\n`).join("")
    return `${facts.join(" · ")}\n${rows}${more}${wrong}`
  }).join("")

export const domainsText = (cpus: ReadonlyArray<CpuDomains>): string =>
  cpus.every(({ domains }) => domains.length === 0)
    ? "no scheduling domains: each CPU is alone\n"
    : table(
      ["CPU", "DOMAIN", "LEVEL", "SPAN", "INTERVAL", "FAILED", "BALANCED", "FLAGS"],
      cpus.flatMap(({ cpu, domains }) =>
        domains.map((domain) => {
          const counts = Object.values(domain.balance ?? {})
          return [
            String(cpu),
            escapeLine(domain.name),
            String(domain.level ?? ""),
            domain.span,
            String(domain.balance_interval ?? ""),
            String(domain.nr_balance_failed ?? ""),
            String(counts.reduce((sum, { lb_count }) => sum + (lb_count ?? 0), 0)),
            domain.flags.join(" ")
          ]
        })
      ),
      [0, 2, 4, 5, 6]
    )
