import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Constant, Request, Struct } from "./abi/KvmAbi.ts"
import { KvmError, kvmSync, succeeded } from "./abi/KvmError.ts"
import { checkExtension, type KvmVm } from "./abi/KvmVm.ts"
import { FutexLock } from "./thread/FutexLock.ts"
import { PortRing, type PortRingPlace } from "./thread/PortRing.ts"
import { Word } from "./thread/SharedWords.ts"
import { Uart, type UartPlace, uartPlaces } from "./thread/Uart.ts"
import { changed } from "./WaitForWord.ts"

/** Bytes that each direction of a serial port holds back. */
const RING = 2 ** 16
/**
 * How long a guest that sends on a serial port is left to, in milliseconds, before what it sent is taken: at first, and at
 * most when it goes on. On few CPUs each read costs guest time; but a ring half full must not stop the guest.
 */
const GATHER_MILLIS = { first: 10, most: 80 }
/** Longest that a byte which KVM keeps waits for the guest to do anything else with its ports, in milliseconds. */
const KEPT_MILLIS = 200

export interface SerialPortsOptions {
  readonly irqchip: boolean
  /** Takes the guest's output on a serial port. Called from the event loop. */
  readonly onSerial: (port: number, bytes: Uint8Array) => void
  /** Whether what the guest sends on a serial port has to wait; `drain` when it has no more. */
  readonly holdsSerial?: ((port: number) => boolean) | undefined
}

/** A machine's serial ports, seen from the main thread. */
export interface SerialPorts {
  /** The UARTs' places, from which the vCPU threads make theirs. */
  readonly places: ReadonlyArray<UartPlace>
  /** Undefined where KVM keeps no bytes for ports. */
  readonly portRing: PortRingPlace | undefined
  /** Bytes for port `port`; how many there was room for. */
  readonly receive: (port: number, bytes: Uint8Array) => number
  /** Hand over what the guest has sent, on a port that is held only when `all`; how many bytes it was. */
  readonly drain: (all: boolean) => number
  /** Hand over what the guest sends, until `over`. */
  readonly forward: (over: () => boolean) => Effect.Effect<void>
}

/**
 * The two serial ports of a VM. Until the scope closes it holds a mapping of the first vCPU's, where KVM keeps bytes.
 * @param words those that the machine shares with its threads
 */
export const makeSerialPorts = (
  vm: KvmVm,
  words: Int32Array,
  options: SerialPortsOptions
): Effect.Effect<SerialPorts, KvmError, Scope.Scope> =>
  Effect.gen(function*() {
    const { native } = vm
    const lock = new FutexLock(words, Word.LOCK)
    const places = uartPlaces.map((place) => ({ ...place, memory: new SharedArrayBuffer(Uart.HEADER + 2 * RING) }))
    const irqchip = options.irqchip ? vm.vm : undefined
    const uarts = places.map((place) => new Uart(place, native, irqchip, Request.KVM_IRQ_LINE))
    const mapping = yield* Effect.acquireRelease(
      kvmSync(() => {
        const mapping = native.map(vm.vcpus[0], 0, vm.runBytes)
        if (typeof mapping === "number") throw KvmError.of("mmap", -mapping)
        return mapping
      }),
      (mapping) => Effect.sync(() => native.unmap(mapping))
    )
    const portRing = yield* kvmSync(() => keepPorts(vm))
    const kept = portRing && new PortRing(mapping.bytes, portRing, uarts)
    const drain = (all: boolean): number => {
      let count = 0
      for (const [port, uart] of uarts.entries()) {
        if (!all && options.holdsSerial?.(port) === true) continue
        const bytes = lock.hold(() => {
          kept?.send()
          return uart.take()
        })
        if (bytes.length > 0) options.onSerial(port, bytes)
        count += bytes.length
      }
      return count
    }
    const forward = (over: () => boolean) =>
      Effect.gen(function*() {
        for (let gather = GATHER_MILLIS.first; !over();) {
          const seen = Atomics.load(words, Word.SENT)
          const sent = drain(false)
          if (sent > 0) { // more comes behind it: waking up for each byte would take longer than sending it
            yield* Effect.sleep(gather)
            gather = sent < RING / 16 ? Math.min(2 * gather, GATHER_MILLIS.most) : GATHER_MILLIS.first
          } else {
            yield* changed(words, Word.SENT, seen, KEPT_MILLIS)
            gather = GATHER_MILLIS.first
          }
        }
      })
    const receive = (port: number, bytes: Uint8Array) => lock.hold(() => uarts[port].receive(bytes))
    return { places, portRing, receive, drain, forward }
  })

/** Have KVM keep what the guest sends on its serial ports, where it can (since Linux 4.20). @throws KvmError */
const keepPorts = ({ kvm, native, vm }: KvmVm): PortRingPlace | undefined => {
  if (checkExtension(native, kvm, "KVM_CAP_COALESCED_PIO") <= 0) return undefined
  for (const { base } of uartPlaces) {
    const zone = new DataView(new ArrayBuffer(Struct.kvm_coalesced_mmio_zone.size))
    const { addr, pio, size } = Struct.kvm_coalesced_mmio_zone.fields
    zone.setBigUint64(addr, BigInt(base), true)
    zone.setUint32(size, 1, true)
    zone.setUint32(pio, 1, true)
    const result = native.ioctl(vm, Request.KVM_REGISTER_COALESCED_MMIO, new Uint8Array(zone.buffer))
    succeeded("KVM_REGISTER_COALESCED_MMIO", result)
  }
  return {
    offset: Constant.KVM_COALESCED_MMIO_PAGE_OFFSET * 4096,
    ring: Struct.kvm_coalesced_mmio_ring,
    entry: Struct.kvm_coalesced_mmio
  }
}
