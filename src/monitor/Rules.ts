import type { Sample, SamplePart } from "./Sample.ts"

/**
 * A bound on a number of each sample: broken when `measure` is above `threshold` in `sustained` samples one after another.
 * `measure` is undefined of a sample that lacks what the rule looks at. Where one of the parts in `looksAt` has a problem
 * the number counts only if it is above the threshold: what is missing could have made it higher, and is never a pass.
 *
 * @since 0.1.0
 * @category models
 */
export interface Rule {
  readonly name: string
  readonly about: string
  readonly unit: string
  readonly threshold: number
  readonly sustained: number
  readonly looksAt: ReadonlyArray<SamplePart>
  readonly measure: (sample: Sample) => number | undefined
}

/**
 * How samples stand to a rule. `fail`: it was broken, first at `at`; `inconclusive`: fewer samples than the rule's
 * `sustained` had what it looks at. `worst` is the highest number of all.
 *
 * @since 0.1.0
 * @category models
 */
export interface RuleVerdict {
  readonly rule: string
  readonly outcome: "pass" | "fail" | "inconclusive"
  readonly worst: number | null
  readonly threshold: number
  readonly unit: string
  readonly at: string | null
  readonly samples: number
}

const SUSTAINED = 5

const most = (numbers: ReadonlyArray<number>): number => numbers.reduce((a, b) => Math.max(a, b), 0)

/** Events are counted by a loaded scheduler only; one that did not happen has no entry. */
const rateOf = (event: string) => ({ eventsPerSecond }: Sample): number | undefined =>
  eventsPerSecond === null ? undefined : eventsPerSecond[event] ?? 0

const longestQueue = (kind: Sample["queues"][number]["kind"]) => ({ queues, scheduler }: Sample): number | undefined =>
  scheduler === null ? undefined : most(queues.filter((queue) => queue.kind === kind).map(({ nr }) => nr))

/**
 * The rules used where none are given.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultRules: ReadonlyArray<Rule> = [
  {
    name: "imbalance",
    about: "the most runnable tasks of an online CPU, in parts of the least, which counts as 1 at least",
    unit: "×",
    threshold: 4,
    sustained: SUSTAINED,
    looksAt: ["cpus"],
    measure: ({ cpus }) => {
      const running = cpus.filter(({ online }) => online).map(({ nr_running }) => nr_running)
      return running.length < 2 ? undefined : Math.max(...running) / Math.max(1, Math.min(...running))
    }
  },
  {
    name: "standing-cpus",
    about:
      "online CPUs that run a task, but whose clock stood still while the guest's time went on for 100 ms or more, and "
      + "the host let them run for 40 ms: 10 ticks at HZ=250",
    unit: "CPUs",
    threshold: 0,
    sustained: SUSTAINED,
    looksAt: ["cpus"],
    measure: ({ cpus, seconds }) =>
      seconds === null || seconds < 0.1 ||
        cpus.some(({ clockMillis, vcpuMillis }) => clockMillis === null || vcpuMillis === null)
        ? undefined
        : cpus.filter(({ clockMillis, online, runs, switchesPerSecond, vcpuMillis }) =>
          online && runs !== "idle" && clockMillis === 0 && switchesPerSecond === 0 && (vcpuMillis ?? 0) >= 40
        ).length
  },
  {
    name: "standing-guest",
    about:
      "CPU time that the host gave one of the guest's CPUs while jiffies stood: nothing in the guest counts time any more",
    unit: "ms",
    threshold: 1000,
    sustained: 2,
    looksAt: [],
    measure: ({ standsMillis }) => standsMillis ?? undefined
  },
  {
    name: "local-queue",
    about: "tasks in the longest local queue of a CPU",
    unit: "tasks",
    threshold: 50,
    sustained: SUSTAINED,
    looksAt: ["scheduler", "queues"],
    measure: longestQueue("local")
  },
  {
    name: "user-queue",
    about: "tasks in the scheduler's own longest queue",
    unit: "tasks",
    threshold: 1000,
    sustained: SUSTAINED,
    looksAt: ["scheduler", "queues"],
    measure: longestQueue("user")
  },
  {
    name: "fallback",
    about: "times a second that select_cpu chose a CPU which the task may not use",
    unit: "/s",
    threshold: 200,
    sustained: SUSTAINED,
    looksAt: ["scheduler", "events"],
    measure: rateOf("SCX_EV_SELECT_CPU_FALLBACK")
  },
  {
    name: "keep-last",
    about:
      "times a second and online CPU that it kept its task because nothing else was dispatched: a task alone does so "
      + "after each slice, 50 times",
    unit: "/s a CPU",
    threshold: 100,
    sustained: SUSTAINED,
    looksAt: ["scheduler", "events", "cpus"],
    measure: (sample) => {
      const rate = rateOf("SCX_EV_DISPATCH_KEEP_LAST")(sample)
      return rate === undefined ? undefined : rate / Math.max(1, sample.cpus.filter(({ online }) => online).length)
    }
  },
  {
    name: "runnable-age",
    about:
      "how long the oldest task in a queue has been runnable, of the time after which the kernel ends the scheduler",
    unit: "of the watchdog's time",
    threshold: 0.5,
    sustained: 2,
    looksAt: ["scheduler", "oldest"],
    measure: ({ oldest, scheduler, watchdogMillis }) =>
      scheduler === null || watchdogMillis === null || watchdogMillis === 0
        ? undefined
        : (oldest?.millis ?? 0) / watchdogMillis
  }
]

/**
 * Judges samples by rules, one sample after the other.
 *
 * @since 0.1.0
 * @category models
 */
export class RuleJudge {
  readonly #rules: ReadonlyArray<Rule>
  readonly #held: Array<number>
  readonly #verdicts: Array<RuleVerdict>

  constructor(rules: ReadonlyArray<Rule> = defaultRules) {
    this.#rules = rules
    this.#held = rules.map(() => 0)
    this.#verdicts = rules.map(({ name, threshold, unit }) => ({
      rule: name,
      outcome: "inconclusive",
      worst: null,
      threshold,
      unit,
      at: null,
      samples: 0
    }))
  }

  /** Take a sample; gives the verdicts of the rules that it breaks for the first time. */
  take(sample: Sample): ReadonlyArray<RuleVerdict> {
    const broken: Array<RuleVerdict> = []
    for (const [index, { looksAt, measure, sustained, threshold }] of this.#rules.entries()) {
      const before = this.#verdicts[index]
      const all = measure(sample)
      const incomplete = sample.problems.some(({ part }) => looksAt.includes(part))
      const measured = incomplete && all !== undefined && all <= threshold ? undefined : all
      this.#held[index] = measured !== undefined && measured > threshold ? this.#held[index] + 1 : 0
      if (measured === undefined) continue
      const samples = before.samples + 1
      const breaks = this.#held[index] >= sustained
      const outcome = before.outcome === "fail" || breaks ? "fail" : samples >= sustained ? "pass" : "inconclusive"
      const now: RuleVerdict = {
        ...before,
        outcome,
        worst: Math.max(before.worst ?? measured, measured),
        at: before.at ?? (breaks ? sample.at : null),
        samples
      }
      this.#verdicts[index] = now
      if (breaks && before.outcome !== "fail") broken.push(now)
    }
    return broken
  }

  /** How all samples so far stand to each rule. */
  get verdicts(): ReadonlyArray<RuleVerdict> {
    return [...this.#verdicts]
  }
}
