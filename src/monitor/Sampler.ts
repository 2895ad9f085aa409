import type { Reason } from "../core/Reason.ts"
import { threadNanos } from "../kvm/spec/ThreadTime.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { readRunning } from "./ReadSampled.ts"
import { type Sample, type Sampled, sampleOf } from "./Sample.ts"

/** Samples of a kernel that runs, each against the one before. */
export class Sampler {
  readonly #kernel: GuestKernelService
  readonly #threads: ReadonlyArray<number>
  #before: Sampled | undefined
  /** The first reading of those since jiffies moved last. */
  #moved: Sampled | undefined

  /** @param threads of the host that are its CPUs, by number: `Vm.vcpuThreads` */
  constructor(kernel: GuestKernelService, threads: ReadonlyArray<number> = []) {
    this.#kernel = kernel
    this.#threads = threads
  }

  /** A sample now, or why there is none: a torn reading does not count as the one before. */
  next(): Sample | Reason {
    const reading = readRunning(this.#kernel)
    if ("kind" in reading) return reading
    const sampled = { ...reading, vcpuNanos: this.#threads.map(threadNanos) }
    if (sampled.time.jiffies !== this.#moved?.time.jiffies) this.#moved = sampled
    const sample = sampleOf(sampled, this.#before, "racing", this.#moved)
    this.#before = sampled
    return sample
  }
}
