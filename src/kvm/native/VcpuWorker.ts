import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Worker } from "node:worker_threads"
import { koffiPath } from "./abi/Koffi.ts"
import { type KvmNative, kvmNativeOver } from "./abi/KvmNative.ts"
import { giveBackThread, readyThreads, takeThread } from "./IdleThreads.ts"
import { FutexLock } from "./thread/FutexLock.ts"
import { PortRing } from "./thread/PortRing.ts"
import { ROW, VcpuRequest, VcpuState, VcpuWord } from "./thread/SharedWords.ts"
import { Uart } from "./thread/Uart.ts"
import { VcpuThread, type VcpuThreadData } from "./thread/VcpuThread.ts"
import { VirtioMmio } from "./thread/VirtioMmio.ts"

/** A vCPU's thread, seen from the main thread. */
export interface VcpuWorker {
  readonly id: number
  /** One of `VcpuState`. */
  readonly state: () => number
  readonly word: (word: number) => number
  /** CLOCK_MONOTONIC nanoseconds at which it parked last. */
  readonly parkedAt: () => bigint
  /** Request run, park or stop; also interrupts KVM_RUN. A vCPU that has written to a watched place stays parked. */
  readonly ask: (request: number) => void
  /** Whether the vCPU has written to a watched place since it was asked so last; it is parked then, until it is asked to run. */
  readonly takeHit: () => boolean
  /** Waits until the state is another than now, or for a moment. */
  readonly changes: Effect.Effect<void>
  /** The error of the thread itself, if any. */
  readonly broken: () => string | undefined
  readonly onBroken: (listener: () => void) => void
}

/** Longest single sleep on a shared word, in milliseconds: a notification ends it earlier. */
const NAP_MILLIS = 50
/** Longest wait for a thread to end; it takes a millisecond. */
const END_MILLIS = 10_000

/** How to stop the threads that there are: `process.exit` waits for threads, and these would never end by themselves. */
const stops = new Set<() => void>()
const stopAll = () => stops.forEach((stop) => stop())

/**
 * The program of a thread: it runs a vCPU whenever it is sent one, and sends a message when that has ended. Its parts are
 * the classes' own source text, which use nothing from outside themselves.
 */
const vcpuProgram = `"use strict"
const { parentPort, workerData } = require("node:worker_threads")
const native = (${kvmNativeOver})(require(workerData))
const parts = { FutexLock: ${FutexLock}, Uart: ${Uart}, PortRing: ${PortRing}, VirtioMmio: ${VirtioMmio} }
const Thread = ${VcpuThread}
parentPort.on("message", (data) => {
  new Thread(native, data, parts).run()
  parentPort.postMessage("ended")
})`
const makeThread = () => new Worker(vcpuProgram, { eval: true, execArgv: [], name: "vcpu", workerData: koffiPath() })

/** Have threads for vCPUs start already, while memory and devices are made. */
export const readyVcpuThreads = (cpus: number): Effect.Effect<void, never, Scope.Scope> =>
  readyThreads(cpus, makeThread)

/**
 * Run a vCPU in a thread of its own, at once. The thread has left the guest and holds nothing of it when the scope has
 * closed. It is stopped too when the process exits.
 */
export const startVcpu = (
  native: KvmNative,
  data: VcpuThreadData
): Effect.Effect<VcpuWorker, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const words = new Int32Array(data.words)
        const row = (1 + data.id) * ROW
        const word = (at: number) => Atomics.load(words, row + at)
        const state = () => word(VcpuWord.STATE)
        const { HIT, PARK, RUN, STOP } = VcpuRequest
        const request = row + VcpuWord.REQUEST
        const ask = (wanted: number) => {
          // once told to stop it stays so
          if (word(VcpuWord.REQUEST) === STOP) return
          if (wanted === STOP) Atomics.store(words, request, STOP)
          else Atomics.compareExchange(words, request, wanted === RUN ? PARK : RUN, wanted)
          Atomics.notify(words, request)
          // a thread that is not there yet sees the request first thing; one that has ended must get no signal
          if (wanted !== RUN && state() === VcpuState.RUNNING) native.kick(word(VcpuWord.THREAD))
        }
        let broken: string | undefined
        let listener = () => {}
        const worker = takeThread(makeThread)
        const failed = (error: Error) => {
          broken ??= error.message
          // the thread is gone: no signal may be sent to its number, which may be another's soon
          Atomics.store(words, row + VcpuWord.STATE, VcpuState.ENDED)
          Atomics.notify(words, row + VcpuWord.STATE)
          listener()
        }
        const ended = new Promise<boolean>((resolve) => {
          const gone = () => {
            failed(new Error("its thread has ended"))
            resolve(true)
          }
          worker.once("error", failed).once("exit", gone).once("message", () => {
            giveBackThread(worker.off("error", failed).off("exit", gone))
            resolve(true)
          })
        })
        worker.postMessage(data)
        const stop = () => ask(VcpuRequest.STOP)
        if (stops.size === 0) process.on("exit", stopAll)
        stops.add(stop)
        const thread: VcpuWorker = {
          id: data.id,
          state,
          word,
          parkedAt: () => new BigInt64Array(data.words, (row + VcpuWord.PARKED_AT) * 4, 1)[0],
          ask,
          takeHit: () => Atomics.compareExchange(words, request, HIT, PARK) === HIT,
          changes: Effect.promise(async () =>
            void await Atomics.waitAsync(words, row + VcpuWord.STATE, state(), NAP_MILLIS).value
          ),
          broken: () => broken,
          onBroken: (run) => {
            listener = run
          }
        }
        const end = Effect.promise(async () => {
          stop()
          const late = new Promise<boolean>((resolve) => setTimeout(() => resolve(false), END_MILLIS).unref())
          const inTime = await Promise.race([ended, late])
          stops.delete(stop)
          if (stops.size === 0) process.off("exit", stopAll)
          if (!inTime) throw new Error(`vCPU ${data.id}'s thread is ${END_MILLIS} ms late to end`)
        })
        return { thread, end }
      }),
      ({ end }) => end
    ),
    ({ thread }) => thread
  )
