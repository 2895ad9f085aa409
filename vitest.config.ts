import { defineConfig } from "vitest/config"
import { LongestFirst } from "./test/support/LongestFirst.ts"
import { filesByTier, retriesOf } from "./test/support/tiers.ts"

// A tier a project: `vitest run --project unit` asks for one. The unit tier comes first, then all others together: tier by
// tier, each one's longest file would keep a worker idle.
const projects = [...filesByTier()].map(([tier, include]) => ({
  test: {
    name: tier,
    include: [...include],
    retry: retriesOf(tier),
    testTimeout: 60_000,
    hookTimeout: 300_000,
    pool: "forks" as const,
    sequence: { groupOrder: tier === "unit" ? 0 : 1 }
  }
}))

export default defineConfig({
  test: {
    projects,
    globalSetup: "./test/support/workspace.ts",
    sequence: { sequencer: LongestFirst },
    reporters: ["default", "./test/support/ClosingLine.ts"],
    // An emulated guest takes one core: two files at once use a small machine's two, more would only slow each other down.
    maxWorkers: 2,
    minWorkers: 1
  }
})
