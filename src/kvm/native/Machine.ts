import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { VmDied } from "../spec/VmDied.ts"
import type { FreezeFailed } from "../spec/VmEngine.ts"
import { PM_PORT, RESET_PORT, S5_TYPE } from "./abi/AcpiPorts.ts"
import { Constant, Exit, Request, Struct } from "./abi/KvmAbi.ts"
import type { KvmVm } from "./abi/KvmVm.ts"
import { Virtio } from "./abi/VirtioAbi.ts"
import { FreezeRendezvous, type FrozenMachine } from "./FreezeRendezvous.ts"
import { watchForHalt } from "./HaltWatch.ts"
import { type MachineEnd, MachineEnding, type MachineStopped } from "./MachineEnding.ts"
import { makeNativeWatch, type NativeWatch } from "./NativeWatch.ts"
import { makeSerialPorts, type SerialPorts, type SerialPortsOptions } from "./SerialPorts.ts"
import { FutexLock } from "./thread/FutexLock.ts"
import { ROW, VcpuEnd, VcpuRequest, VcpuState, VcpuWord, Word } from "./thread/SharedWords.ts"
import type { VcpuThreadData } from "./thread/VcpuThread.ts"
import { QUEUE_SIZE, VirtioMmio, type VirtioPlace } from "./thread/VirtioMmio.ts"
import { startVcpu, type VcpuWorker } from "./VcpuWorker.ts"
import { serveDevice, type VirtioDevice, virtioPlaces } from "./virtio/VirtioDevice.ts"
import { changed } from "./WaitForWord.ts"

export interface Machine {
  /** Stop every vCPU until the scope closes; scopes are counted. When it fails, the machine runs on. */
  readonly freeze: Effect.Effect<FrozenMachine, FreezeFailed | MachineStopped | VmDied, Scope.Scope>
  /** `Vm.vcpuThreads` */
  readonly threads: Effect.Effect<ReadonlyArray<number>>
  /** `Vm.watchWrites`; `ended` fails with how the VM ended, once it has. */
  readonly watchWrites: NativeWatch["watchWrites"]
  /** Waits for the machine's end; fails when no guest asks for such an end. */
  readonly ended: Effect.Effect<MachineEnd, VmDied>
  /** Bytes for serial port `port` (0 or 1); how many there was room for. */
  readonly receive: (port: number, bytes: Uint8Array) => Effect.Effect<number>
  /** Take what the guest sent on its serial ports, as far as `holdsSerial` lets it. */
  readonly drain: () => void
  /** Let virtio device number `index` look at its queues; during a freeze, after it. */
  readonly ring: (index: number) => Effect.Effect<void>
  /** Change what the driver of virtio device number `index` reads as its configuration, and tell it. */
  readonly configure: (index: number, config: Uint8Array) => Effect.Effect<void>
}

export interface MachineOptions extends SerialPortsOptions {
  /** At most `MOST_DEVICES`; Linux hears of them by `virtioWords`. */
  readonly virtio?: ReadonlyArray<VirtioDevice>
  /** Whether a triple fault is the guest's way to reset (`reboot=t`). */
  readonly tripleFaultResets: boolean
  readonly freezeTimeout: Duration.Duration
  /** The console's last lines, for the report of a death. */
  readonly consoleTail: () => ReadonlyArray<string>
}

/** The constants that a vCPU thread's program is sent. */
const abi: VcpuThreadData["abi"] = {
  Request,
  Exit,
  Constant,
  run: Struct.kvm_run.fields,
  Struct: { kvm_debugregs: Struct.kvm_debugregs, kvm_vcpu_events: Struct.kvm_vcpu_events },
  Word,
  VcpuWord,
  VcpuState,
  VcpuRequest,
  VcpuEnd,
  ROW,
  PM_PORT,
  RESET_PORT,
  S5_TYPE,
  Virtio,
  QUEUE_SIZE
}

/**
 * Run a VM whose memory and registers are ready: a thread a vCPU, two serial ports, virtio devices, until the scope
 * closes. All threads have left the guest, and have ended, before the scope's earlier resources (memory, descriptors) go.
 */
export const startMachine = (vm: KvmVm, options: MachineOptions): Effect.Effect<Machine, never, Scope.Scope> =>
  Effect.gen(function*() {
    const shared = new SharedArrayBuffer((1 + vm.vcpus.length) * ROW * 4)
    const words = new Int32Array(shared)
    const wakeMain = () => {
      Atomics.add(words, Word.EVENTS, 1)
      Atomics.notify(words, Word.EVENTS)
    }
    const ports = yield* Effect.orDie(makeSerialPorts(vm, words, options))
    const devices = options.virtio ?? []
    const places = virtioPlaces(devices)
    const registers = plugIn(vm, devices, places, options.irqchip)
    yield* Effect.addFinalizer(() => Effect.sync(() => ports.drain(true)))

    const workers: Array<VcpuWorker> = []
    for (const id of vm.vcpus.keys()) {
      workers.push(yield* startVcpu(vm.native, threadData(vm, id, options.irqchip, shared, ports, places)))
    }
    const ending = new MachineEnding({
      vm,
      workers,
      tripleFaultResets: options.tripleFaultResets,
      consoleTail: options.consoleTail,
      onEnd: () => {
        ports.drain(true)
        ports.drain(true) // what KVM kept behind a full ring
      }
    })
    const rendezvous = new FreezeRendezvous({
      vm,
      workers,
      ending,
      limit: options.freezeTimeout,
      onFrozen: () => ports.drain(false), // what a frozen guest has sent is there
      onThaw: wakeMain // for what the devices left
    })
    /** Serve the guest's requests to its devices. The memory of a guest that is to be frozen is left alone. */
    const serve = () => {
      for (const [index, mmio] of registers.entries()) {
        if (!rendezvous.wanted && !ending.over && serveDevice(vm.memory, devices[index], mmio)) wakeMain()
      }
    }
    const watch = makeNativeWatch(vm, workers, rendezvous)
    yield* Effect.forkScoped(ports.forward(() => ending.over))
    yield* Effect.forkScoped(Effect.gen(function*() {
      for (;;) {
        const seen = Atomics.load(words, Word.EVENTS)
        serve()
        if (ending.settle()) return
        yield* watch.look
        yield* changed(words, Word.EVENTS, seen, Infinity)
      }
    }))
    for (const worker of workers) worker.onBroken(wakeMain)
    // the first to run: nobody touches the VM's descriptors and memory any more, and whoever waits for its end is told
    yield* Effect.addFinalizer(() => Effect.sync(() => ending.close()))
    if (options.irqchip) yield* Effect.forkScoped(watchForHalt(vm, workers, rendezvous, ending))

    return {
      freeze: rendezvous.freeze,
      threads: Effect.sync(() => workers.map((worker) => worker.word(VcpuWord.THREAD))),
      watchWrites: watch.watchWrites,
      ended: ending.ended,
      drain: () => {
        if (!ending.over) ports.drain(false)
      },
      receive: (port, bytes) => Effect.sync(() => ending.over ? bytes.length : ports.receive(port, bytes)),
      ring: (index) =>
        Effect.sync(() => {
          registers[index].locked(() => registers[index].leaveWork())
          wakeMain()
        }),
      configure: (index, config) =>
        Effect.sync(() => {
          if (!ending.over) registers[index].locked(() => registers[index].configure(config))
        })
    }
  })

/** The registers of the devices, seen from the main thread. */
const plugIn = (
  { native, vm }: KvmVm,
  devices: ReadonlyArray<VirtioDevice>,
  places: ReadonlyArray<VirtioPlace>,
  irqchip: boolean
): ReadonlyArray<VirtioMmio> => {
  const parts = { irqLine: Request.KVM_IRQ_LINE, abi: Virtio, queueSize: QUEUE_SIZE, Lock: FutexLock }
  return places.map((place, index) => {
    const mmio = new VirtioMmio(place, native, irqchip ? vm : undefined, parts)
    mmio.locked(() => mmio.configure(devices[index].config))
    return mmio
  })
}

const threadData = (
  vm: KvmVm,
  id: number,
  irqchip: boolean,
  words: SharedArrayBuffer,
  ports: SerialPorts,
  virtio: ReadonlyArray<VirtioPlace>
): VcpuThreadData => ({
  id,
  vm: vm.vm,
  vcpu: vm.vcpus[id],
  runBytes: vm.runBytes,
  irqchip,
  words,
  uarts: ports.places,
  portRing: ports.portRing,
  virtio,
  abi
})
