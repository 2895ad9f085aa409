import { readFileSync } from "node:fs"
import { errnoName, HostLacks } from "../../../core/Errors.ts"
import { Errno } from "./BpfAbi.ts"

/** `CAP_SYS_ADMIN` of include/uapi/linux/capability.h: needed to list objects and to open them by id; kernel/bpf/syscall.c, v6.12. */
const CAP_SYS_ADMIN = 21n

/** Why bpf(2) refuses every call, and what to do. `status` is the text of `/proc/self/status`. */
export const bpfRefused = (errno: number, status: string = ownStatus()): HostLacks => {
  const what = "bpf(2)"
  const why = errnoName(errno)
  const capabilities = /^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0"
  const filtered = /^Seccomp:\s*2/m.test(status)
  if ((errno === Errno.EPERM || errno === Errno.EACCES) && (BigInt(`0x${capabilities}`) >> CAP_SYS_ADMIN & 1n) === 0n) {
    return new HostLacks({
      what,
      why: `${why}: reading the maps of others needs CAP_SYS_ADMIN`,
      hint: "run this as root (sudo), in a container with --cap-add=SYS_ADMIN"
    })
  }
  if (filtered) {
    return new HostLacks({
      what,
      why: `${why}: a seccomp filter forbids it`,
      hint: "run this outside the container, or the container with --security-opt seccomp=unconfined"
    })
  }
  return errno === Errno.ENOSYS
    ? new HostLacks({ what, why: `${why}: this kernel has no such call`, hint: "use one with CONFIG_BPF_SYSCALL=y" })
    : new HostLacks({
      what,
      why: `${why}: a security module or the kernel's lockdown forbids it`,
      hint:
        "see /sys/kernel/security/lockdown and the rules of the security module; run this in the first user namespace"
    })
}

const ownStatus = (): string => readFileSync("/proc/self/status", "latin1")
