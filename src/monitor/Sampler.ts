import type { Reason } from "../core/Reason.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { readRunning } from "./ReadSampled.ts"
import { type Sample, type Sampled, sampleOf } from "./Sample.ts"

/** Samples of a kernel that runs, each against the one before. */
export class Sampler {
  readonly #kernel: GuestKernelService
  #before: Sampled | undefined

  constructor(kernel: GuestKernelService) {
    this.#kernel = kernel
  }

  /** A sample now, or why there is none: a torn reading does not count as the one before. */
  next(): Sample | Reason {
    const sampled = readRunning(this.#kernel)
    if ("kind" in sampled) return sampled
    const sample = sampleOf(sampled, this.#before, "racing")
    this.#before = sampled
    return sample
  }
}
