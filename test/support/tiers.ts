import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

/** The tiers, quickest first: what a test needs, not what it tests. */
const TIERS = ["unit", "files", "package", "guest", "live", "kvm", "scx", "harness"] as const
export type Tier = typeof TIERS[number]

/**
 * How often a failed test of a tier is tried again: once where guests run beside other work on shared processors. The
 * run's end names such a test with its first failure, which is a fault all the same, ours or the test's.
 */
export const retriesOf = (tier: Tier): number => ["guest", "live", "kvm", "scx", "harness"].includes(tier) ? 1 : 0

/** Folders, and files, whose tier does not follow from their imports. */
const BY_PLACE: ReadonlyArray<readonly [Tier, RegExp]> = [
  ["package", /^test\/package\//],
  ["scx", /^test\/scx\//],
  ["harness", /^test\/harness\/run\/(?!RunFolder\.)/],
  ["files", /^test\/(harness\/agent\/Protocol|bpf\/report\/WalkThread)\./],
  ["kvm", /^test\/kvm\/native\/(?!abi\/)/],
  ["live", /^test\/(live|bpf\/live)\//],
  [
    "guest",
    /^test\/(guest\/|library\/(programs|vm)\.|cli\/(boot|vm\/(vm|onFailure|onFailureKilled|snapshots|wrongDebugger))\.|kvm\/(qemu\/Qemu|spec\/Topology)\.)/
  ]
]

/** What a file imports of the test's own helpers says what it needs; the unit tier needs nothing but Node. */
const BY_IMPORT: ReadonlyArray<readonly [Tier, RegExp]> = [
  ["live", /from "[^"]*\/live\/support\.ts"/],
  ["guest", /from "[^"]*\/(guest|image|capture|crowdedGuest|liveInGuest|scx)\.ts"/],
  [
    "files",
    /from "([^"]*\/(kernels|cli|compileC|miniKernel|processes|bpftool|samples|kernelEntries|cacheEntries|httpServer)\.ts|node:child_process)"/
  ]
]

/** The tier of a test file, by its path from the checkout's root and its text. */
const tierOf = (path: string, text: string): Tier =>
  BY_PLACE.find(([, place]) => place.test(path))?.[0] ?? BY_IMPORT.find(([, imported]) => imported.test(text))?.[0]
    ?? "unit"

/** Every test file of the checkout, by tier. */
export const filesByTier = (): ReadonlyMap<Tier, ReadonlyArray<string>> => {
  const found = new Map<Tier, Array<string>>(TIERS.map((tier) => [tier, []]))
  for (const name of readdirSync("test", { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".test.ts")) continue
    const path = join("test", name)
    found.get(tierOf(path, readFileSync(path, "utf8")))!.push(path)
  }
  return found
}
