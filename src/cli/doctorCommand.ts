import * as Command from "@effect/cli/Command"
import { handler } from "./handler.ts"
import { output, timeLimit } from "./source/options.ts"

/** `ktstr doctor` */
export const doctor = Command.make(
  "doctor",
  { json: output.json, ...timeLimit },
  handler(() => import("./doctor.ts"), (module) => module.doctor)
).pipe(Command.withDescription("Check this host: what works, what is missing, how to fix it"))
