/**
 * Settings of a VM whose `VmSpec` leaves them out: CPUs, RAM in MiB, seconds until it must have reported ready, in all and
 * while it prints nothing.
 */
export const VM_DEFAULTS = { cpus: 1, memoryMib: 512, timeoutSeconds: 600, silenceSeconds: 60 } as const
