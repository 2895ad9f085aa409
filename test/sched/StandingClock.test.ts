import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { boot, freezeAndAttach } from "../../src/Ktstr.ts"
import { readSched } from "../../src/sched/index.ts"
import { compileBpf, HostLive, scratch } from "../support/guest.ts"
import { needsStockScx, stockScx } from "../support/scx.ts"

/** Both CPUs are busy; after the script's end CPU 1 stays in an interrupt, and CPU 0 goes on. */
const SCRIPT = `set -e
  bpftool prog load /include-files/standing.bpf.o /sys/fs/bpf/standing autoattach
  printf '#!/bin/sh\\nwhile :; do :; done\\n' >/tmp/stand
  chmod +x /tmp/stand
  taskset 1 sh -c 'while :; do :; done' &
  (sleep 1; exec taskset 2 /tmp/stand) &`

/** The guest, stopped again and again until something stands. */
const standing = (includes: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const kernel = "debian:6.12-cloud"
    const vm = yield* boot({ kernel, cpus: 2, includes, script: SCRIPT })
    const look = Effect.scoped(Effect.map(freezeAndAttach(vm, kernel), ({ kernel }) => readSched(kernel)))
    return yield* Effect.repeat(Effect.delay(look, "200 millis"), {
      until: ({ findings }) => findings.some(({ name }) => name === "clock-stands")
    })
  })

describe("a run queue's clock", () => {
  beforeEach(needsStockScx) // for its bpftool: Debian 12's cannot attach
  it.scopedLive("that stands while its CPU is busy is found", () =>
    Effect.gen(function*() {
      const objects = yield* compileBpf(yield* scratch, "standing")
      const { findings, runQueues } = yield* standing([(yield* stockScx).bpftool, ...objects])
      if ("kind" in runQueues) return assert.fail(runQueues.text)
      const [other, own] = runQueues.map(({ clock }) => Number(clock))
      assert.deepStrictEqual(
        findings.filter(({ name }) => name === "clock-stands").map(({ cpu, measured }) => [cpu, measured]),
        [[1, Math.round((other - own) / 1e6)]]
      )
    }).pipe(Effect.provide(HostLive)), 120_000)
})
