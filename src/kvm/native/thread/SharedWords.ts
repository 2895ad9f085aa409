/**
 * The state that the main thread and the vCPU threads share besides the guest: 32-bit words, a row of them for the
 * machine and one for each vCPU. Only `Atomics` touch them.
 */
export const Word = {
  /** Counts what the main thread should look at: a virtio device's queues, an ended vCPU. */
  EVENTS: 0,
  /** 0 free, 1 taken, 2 taken and waited for: serializes the serial ports. */
  LOCK: 1,
  /** The last value that the guest wrote to ACPI's PM1 enable register; it reads the same back. */
  PM1_ENABLE: 2,
  /** Counts the bytes on serial ports that came when there were none. */
  SENT: 3
} as const

/** Words in each row: 64 bytes, a cache line. */
export const ROW = 16

/** Words of vCPU `id` start at `(1 + id) * ROW`. */
export const VcpuWord = {
  /** One of `VcpuState`. */
  STATE: 0,
  /** One of `VcpuRequest`. */
  REQUEST: 1,
  /** The thread's kernel id, once it is not `STARTING`. */
  THREAD: 2,
  /** Why it ended, one of `VcpuEnd`, and a number that says more. */
  END: 3,
  END_DETAIL: 4,
  /** CLOCK_MONOTONIC nanoseconds at which it parked last: two words, low one first. */
  PARKED_AT: 6
} as const

export const VcpuState = { STARTING: 0, RUNNING: 1, PARKED: 2, ENDED: 3 } as const

export const VcpuRequest = {
  RUN: 0,
  PARK: 1,
  /** For good. */
  STOP: 2,
  /** The vCPU's own: it has written to a watched place, and is parked until the main thread makes PARK of this. */
  HIT: 3
} as const

/** Why a vCPU will not run again; the detail is said behind. */
export const VcpuEnd = {
  /** It was told to. */
  STOPPED: 0,
  /** The guest asked for a reset; the port it wrote to. */
  RESET: 1,
  /** A fault while handling a fault while handling a fault. */
  TRIPLE_FAULT: 2,
  /** HLT without interrupt controllers that could wake it. */
  HALTED: 3,
  /** KVM gave up; its suberror. */
  INTERNAL_ERROR: 4,
  /** The CPU refused to enter the guest; its reason. */
  FAILED_ENTRY: 5,
  /** The guest switched itself off; the port it wrote to. */
  POWERED_OFF: 6,
  /** KVM_RUN failed; the errno. */
  RUN_FAILED: 7,
  /** KVM left the guest for a reason unknown here; its number. */
  UNKNOWN_EXIT: 8
} as const
