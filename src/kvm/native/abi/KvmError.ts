import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { errnoName } from "../../../core/Errors.ts"
import { type RequestName } from "./KvmAbi.ts"

/** A call to KVM failed: `request` is the ioctl's name, `meaning` what the errno says about this host or this VM. */
export class KvmError extends Schema.TaggedError<KvmError>("ktstr/KvmError")("KvmError", {
  request: Schema.String,
  errno: Schema.Int,
  code: Schema.String,
  meaning: Schema.String
}) {
  static readonly of = (request: RequestName | "mmap" | "tgkill", errno: number): KvmError => {
    const code = errnoName(errno)
    const meaning = meanings[`${request} ${code}`] ?? meanings[code] ?? "the kernel gives no other reason; see its log"
    return new KvmError({ request, errno, code, meaning })
  }
  override get message() {
    return `${this.request}: ${this.code}: ${this.meaning}`
  }
}

/** By request and errno, else by errno. @see Documentation/virt/kvm/api.rst, v6.12, "Errors" of each request */
const meanings: Readonly<Record<string, string>> = {
  "KVM_CREATE_VM EBUSY": "another hypervisor is using this CPU's virtualization; stop it",
  "KVM_CREATE_VM EINVAL": "this KVM has no VM of the plain x86 type",
  "KVM_CREATE_VCPU EINVAL": "more vCPUs than this KVM gives a VM; give it fewer CPUs",
  "KVM_CREATE_VCPU EEXIST": "that vCPU already exists",
  "KVM_CREATE_IRQCHIP EEXIST": "the interrupt controllers already exist",
  "KVM_CREATE_IRQCHIP EINVAL": "the interrupt controllers have to be made before the vCPUs",
  "KVM_SET_USER_MEMORY_REGION EEXIST": "two pieces of guest memory overlap",
  "KVM_SET_USER_MEMORY_REGION EINVAL": "guest memory has to be whole pages, and fit this KVM's address width",
  "KVM_SET_SREGS EINVAL": "KVM calls these registers inconsistent; CPUID is set first and has to know their mode",
  "KVM_SET_CPUID2 EINVAL": "KVM refuses this CPUID; it is set once, before the vCPU runs",
  "KVM_RUN EINVAL": "the vCPU was set up with a state that cannot run",
  "KVM_RUN EFAULT": "the guest touched memory of which the host has no page",
  "tgkill EAGAIN": "too many signals are pending for this user (ulimit -i)",
  EACCES: "this user may not do that with /dev/kvm; adduser USER kvm, and log in again",
  EBADF: "the VM is closed",
  EIO: "the VM belongs to another process",
  EMFILE: "this process has too many files open (ulimit -n)",
  ENFILE: "this host has too many files open",
  ENOMEM: "the host is out of memory",
  ENOSPC: "this KVM's table for it is full",
  ENOTTY: "this host's KVM does not know the request; use a current kernel",
  ENXIO: "this host's KVM cannot do that before the interrupt controllers are there",
  EOPNOTSUPP: "this CPU or its firmware has virtualization switched off",
  EPERM: "the kernel forbids it to this process (a container or a security module?)",
  E2BIG: "KVM's answer is larger than the buffer for it"
}

/** The result of a call that gives a negated errno when it fails. @throws KvmError */
export const succeeded = (request: RequestName | "mmap" | "tgkill", result: number): number => {
  if (result < 0) throw KvmError.of(request, -result)
  return result
}

/** Run plain code that throws `KvmError`: that becomes a failure, anything else is a bug and keeps flying. */
export const kvmSync = <A>(run: () => A): Effect.Effect<A, KvmError> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(run())
    } catch (error) {
      return error instanceof KvmError ? error : Effect.die(error)
    }
  })
