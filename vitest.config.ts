import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "./test/support/workspace.ts",
    reporters: ["default", "./test/support/ClosingLine.ts"],
    testTimeout: 60_000,
    hookTimeout: 300_000,
    // Guests take both cores of a small machine; two at once would only slow each other down.
    fileParallelism: false,
    pool: "forks"
  }
})
