import { relative } from "node:path"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** Seconds of the slowest files, seen on two shared cores. One that is missing here only ends its tier later. */
const SECONDS: Readonly<Record<string, number>> = {
  "test/kvm/native/Inside.test.ts": 640,
  "test/kvm/native/Topology.test.ts": 492,
  "test/guest/differential.test.ts": 385,
  "test/harness/run/exact.test.ts": 250,
  "test/package/app.test.ts": 240,
  "test/cli/boot.test.ts": 196,
  "test/cli/vm/vm.test.ts": 169,
  "test/kvm/native/VirtioInside.test.ts": 152,
  "test/guest/kinds.test.ts": 97,
  "test/bpf/hostile.test.ts": 87,
  "test/cli/bpf.test.ts": 82,
  "test/kvm/qemu/Qemu.test.ts": 76,
  "test/cli/signalRounds.test.ts": 110,
  "test/cli/resources.test.ts": 60,
  "test/kvm/qemu/WrongQemu.test.ts": 60,
  "test/live/guest.test.ts": 72,
  "test/core/kernels/debian/DebianKernel.test.ts": 53,
  "test/bpf/live/Walks.test.ts": 49,
  "test/sched/SchedGuest.test.ts": 49,
  "test/core/image/KernelImage.test.ts": 45,
  "test/cli/image.test.ts": 45,
  "test/kvm/spec/Topology.test.ts": 44,
  "test/kvm/native/VirtioHostile.test.ts": 44
}

/**
 * Slow files first: begun last, one of ten minutes keeps a machine's other worker idle for as long. The others come in
 * vitest's own order, which knows durations only where it ran before.
 */
export class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const secondsOf = ({ moduleId }: TestSpecification) => SECONDS[relative(process.cwd(), moduleId)] ?? 0
    return (await super.sort(files)).sort((a, b) => secondsOf(b) - secondsOf(a))
  }
}
