import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "./test/support/workspace.ts",
    reporters: ["default", "./test/support/ClosingLine.ts"],
    testTimeout: 60_000,
    hookTimeout: 300_000,
    // An emulated guest takes one core: two files at once use a small machine's two, more would only slow each other down.
    maxWorkers: 2,
    minWorkers: 1,
    pool: "forks"
  }
})
