/** Tests of schedulers with vitest: `it.ktstr`. Vitest is an optional peer of the package, and is imported here alone. */
export { claim, difference, ratio } from "../claim/Claim.ts"
export { cgroup, cpus, op, scenario, step, work } from "../scenario/Scenario.ts"
export { type DeclareRun, it, type KtstrIt, type KtstrTest, scheduler } from "./KtstrIt.ts"
