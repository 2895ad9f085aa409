import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { bootAndFreeze } from "../../../src/Ktstr.ts"
import { ProvedSymbols } from "../../../src/memory/evidence/ProvedSymbols.ts"
import { GuestKernel, type GuestKernelService } from "../../../src/memory/GuestKernel.ts"
import { findVmcoreinfo } from "../../../src/memory/Vmcoreinfo.ts"
import { HostLive } from "../../support/guest.ts"
import { guestImage } from "../../support/image.ts"
import { arm64Matrix } from "../../support/kernels.ts"

/** Symbols by how a kernel tells them. */
const EXPORTED = ["init_task", "init_pid_ns", "nr_cpu_ids", "__cpu_possible_mask", "jiffies_64", "cgrp_dfl_root"]
const BY_FORM = ["__start_BTF", "__stop_BTF", "fair_sched_class"]
const BY_USERS = [
  "map_idr",
  "prog_idr",
  "link_idr",
  "bpf_kallsyms",
  "runqueues",
  "psi_system",
  "clocksource_jiffies",
  "tick_next_period",
  "sd_flag_debug"
]

/** What is proved of a kernel whose table of symbols has data too, as if it had functions only: nothing that the table denies. */
const proved = ({ memory, release, space, symbols }: GuestKernelService): ReadonlySet<string> => {
  const addresses = new Map<string, Set<bigint>>()
  const functions: Array<{ readonly name: string; readonly address: bigint }> = []
  const [text, textEnd] = ["_stext", "_etext"].map((name) => symbols.address(name) ?? assert.fail(name))
  const [init, initEnd] = ["_sinittext", "_einittext"].map((name) => symbols.address(name) ?? assert.fail(name))
  for (const symbol of symbols.entries()) {
    const { address, name } = symbol
    addresses.set(name, (addresses.get(name) ?? new Set()).add(address))
    if (address >= text && address <= textEnd || address >= init && address <= initEnd) functions.push(symbol)
  }
  const byName = new Map(functions.toReversed().map(({ address, name }) => [name, address]))
  const info = findVmcoreinfo(memory, (info) => info.release === release) ?? assert.fail("no VMCOREINFO")
  const found = new ProvedSymbols(space, info, {
    address: (name) => byName.get(name),
    at: (address) => symbols.at(address),
    entries: () => functions
  })
  const names = new Set<string>()
  for (const { address, name } of found.entries()) {
    if (byName.has(name)) continue
    assert.isTrue(addresses.get(name)?.has(address), `${name} is not at 0x${address.toString(16)}`)
    names.add(name)
  }
  return names
}

describe("symbols of data that a table of functions lacks", () => {
  it.live(
    "are what the whole table says, of a kernel for x86-64: its exports, its BTF, its scheduling classes",
    () =>
      Effect.gen(function*() {
        const names = proved(yield* GuestKernel.open(yield* guestImage))
        assert.includeMembers([...names], [...EXPORTED, ...BY_FORM])
        for (const name of BY_USERS) assert.isFalse(names.has(name), name)
      }).pipe(Effect.scoped, Effect.provide(HostLive)),
    300_000
  )

  const whole = arm64Matrix.filter((name) => !name.startsWith("6.1-"))
  if (whole.length === 0) it.skip("are so of kernels for arm64, with what their code uses: `npm run matrix` boots them")
  for (const name of whole) {
    it.live(`are so of ${name}, with what its code uses`, () =>
      Effect.gen(function*() {
        const { kernel } = yield* bootAndFreeze({ kernel: `debian:${name}`, script: "true", timeout: "4 minutes" })
        const names = proved(kernel)
        assert.includeMembers([...names], [...EXPORTED, ...BY_FORM])
        yield* Effect.logInfo(`${name}: not ${BY_USERS.filter((name) => !names.has(name)).join(", ")}`)
      }).pipe(Effect.scoped, Effect.provide(HostLive)), 600_000)
  }
})
