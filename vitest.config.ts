import { defineConfig } from "vitest/config"
import { LongestFirst } from "./test/support/LongestFirst.ts"
import { filesByTier, retriesOf } from "./test/support/tiers.ts"

// A tier a project, in groups that run one after the other: `vitest run --project unit` asks for one.
const projects = [...filesByTier()].map(([tier, include], groupOrder) => ({
  test: {
    name: tier,
    include: [...include],
    retry: retriesOf(tier),
    testTimeout: 60_000,
    hookTimeout: 300_000,
    pool: "forks" as const,
    sequence: { groupOrder }
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
