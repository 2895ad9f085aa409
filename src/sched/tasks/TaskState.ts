/** Letters of `/proc/PID/stat` by the highest bit of the state; fs/proc/array.c `task_state_array`, v6.1 to v7.3. */
const LETTERS = "RSDTtXZPI"
/** `TASK_NOLOAD | TASK_UNINTERRUPTIBLE`; include/linux/sched.h, v6.1 to v7.3. */
const TASK_IDLE = 0x402
/** `TASK_REPORT`: the bits that have letters. */
const TASK_REPORT = 0x7f
/** `TASK_RTLOCK_WAIT`, `TASK_FROZEN` (v6.1 and newer): shown as uninterruptible sleep. */
const AS_BLOCKED = 0x9000

/** The letter that `ps` shows; include/linux/sched.h `__task_state_index`, v6.1 to v7.3. */
export const stateLetter = (state: number, exitState: number): string => {
  if ((state & TASK_IDLE) === TASK_IDLE) return "I"
  if ((state & AS_BLOCKED) !== 0) return "D"
  const bits = (state | exitState) & TASK_REPORT
  return LETTERS[bits === 0 ? 0 : 32 - Math.clz32(bits)]
}

/** include/uapi/linux/sched.h, v6.12: `SCHED_…`. */
const POLICIES: { readonly [policy: number]: string } = {
  0: "NORMAL",
  1: "FIFO",
  2: "RR",
  3: "BATCH",
  5: "IDLE",
  6: "DEADLINE",
  7: "EXT"
}

export const policyName = (policy: number): string => POLICIES[policy] ?? String(policy)

/** `NICE_TO_PRIO(0)`, include/linux/sched/prio.h. */
const DEFAULT_PRIO = 120

export const niceOf = (staticPrio: number): number => staticPrio - DEFAULT_PRIO

/** `PF_KTHREAD`, include/linux/sched.h, v6.1 to v7.3. */
export const PF_KTHREAD = 0x20_0000

const CLASSES = ["stop", "dl", "rt", "ext", "fair", "idle"] as const

/** The scheduling class of a `sched_class` pointer: `fair`, or the symbol of an unknown one. */
export const classNames = (symbols: {
  readonly address: (name: string) => bigint | undefined
  readonly at: (address: bigint) => { readonly name: string; readonly offset: number } | undefined
}): (pointer: bigint) => string => {
  const known = new Map<bigint, string>()
  for (const name of CLASSES) {
    const address = symbols.address(`${name}_sched_class`)
    if (address !== undefined) known.set(address, name)
  }
  return (pointer) => {
    const before = known.get(pointer)
    if (before !== undefined) return before
    const name = symbols.at(pointer)?.name ?? `0x${pointer.toString(16)}`
    known.set(pointer, name)
    return name
  }
}
