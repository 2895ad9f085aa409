import * as Either from "effect/Either"
import { createHash } from "node:crypto"
import { layout } from "../btf/Layout.ts"
import type { GuestKernelService } from "./GuestKernel.ts"

/**
 * An identity of this boot of the kernel, 16 hex digits; null where the kernel's symbols or types lack everything that
 * it is made from. It stays the same as long as the kernel runs; a clone of a VM has its original's.
 *
 * It is a digest of when, in nanoseconds since boot, the first process was made, and of the idle task's stack canary where
 * the kernel has one. The kernel's own `boot_id` is no help: it is made when it is first read.
 * @see kernel/fork.c `copy_process`, init/main.c `boot_init_stack_canary`, drivers/char/random.c `sysctl_bootid`, v6.1 to v6.18
 */
export const bootIdentity = ({ btf, release, space, symbol }: GuestKernelService): string | null => {
  // include/linux/pid_namespace.h `struct pid_namespace`; include/linux/sched.h `struct task_struct`, v6.12
  const namespace = Either.getOrUndefined(layout(btf, "pid_namespace", ["child_reaper"]))
  const task = Either.getOrUndefined(layout(btf, "task_struct", ["start_boottime"], ["stack_canary"]))
  if (namespace === undefined || task === undefined) return null
  const read = (address: bigint | undefined, field: number | undefined): bigint | undefined =>
    address === undefined || field === undefined ? undefined : space.u64(address + BigInt(field))
  const init = read(symbol("init_pid_ns"), namespace.at.child_reaper)
  const facts = [read(init, task.at.start_boottime), read(symbol("init_task"), task.at.stack_canary)]
  if (facts.every((fact) => fact === undefined)) return null
  return createHash("sha256").update([release, ...facts].join(" ")).digest("hex").slice(0, 16)
}
