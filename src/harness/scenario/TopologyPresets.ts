import * as Either from "effect/Either"
import { parseTopology, resolveTopology, TopologyError, type TopologySpec } from "../../kvm/spec/Topology.ts"

/**
 * Machines to test schedulers on, by name: NUMA nodes, LLCs in all, cores of an LLC, threads of a core.
 *
 * @since 0.1.0
 * @category constants
 */
export const TOPOLOGY_PRESETS: Readonly<Record<string, readonly [number, number, number, number]>> = {
  "tiny-1llc": [1, 1, 4, 1],
  "tiny-2llc": [1, 2, 2, 1],
  "odd-3llc": [1, 3, 3, 1],
  "odd-5llc": [1, 5, 3, 1],
  "odd-7llc": [1, 7, 2, 1],
  "smt-2llc": [1, 2, 2, 2],
  "smt-3llc": [1, 3, 2, 2],
  "medium-4llc": [1, 4, 4, 2],
  "medium-4llc-nosmt": [1, 4, 8, 1],
  "medium-8llc": [1, 8, 4, 2],
  "medium-8llc-nosmt": [1, 8, 8, 1],
  "large-4llc": [1, 4, 16, 2],
  "large-4llc-nosmt": [1, 4, 32, 1],
  "large-8llc": [1, 8, 8, 2],
  "large-8llc-nosmt": [1, 8, 16, 1],
  "near-max-llc": [1, 15, 8, 2],
  "near-max-llc-nosmt": [1, 15, 16, 1],
  "max-cpu": [1, 14, 9, 2],
  "max-cpu-nosmt": [1, 14, 18, 1],
  "numa2-4llc": [2, 4, 4, 1],
  "numa2-8llc": [2, 8, 8, 2],
  "numa2-8llc-nosmt": [2, 8, 16, 1],
  "numa4-8llc": [4, 8, 4, 1],
  "numa4-12llc": [4, 12, 8, 2]
}

/**
 * The topology of a preset's name (`tiny-2llc`), or of `NODES,LLCS,CORES,THREADS`; it can be built. Of the presets `max-cpu`
 * and `max-cpu-nosmt` cannot: their CPUs do not fit into APIC ids of 8 bits.
 *
 * @since 0.1.0
 * @category parsing
 */
export const topologyOf = (text: string): Either.Either<TopologySpec, TopologyError> => {
  const preset = Object.hasOwn(TOPOLOGY_PRESETS, text) ? TOPOLOGY_PRESETS[text] : undefined
  if (preset !== undefined) {
    const [nodes, llcs, cores, threads] = preset
    const topology = { nodes, llcs, cores, threads }
    return Either.map(resolveTopology({ topology }), () => topology)
  }
  return Either.mapLeft(parseTopology(text), (error) =>
    /^[\d,]*$/.test(text)
      ? error
      : new TopologyError({
        why: `not a topology: ${JSON.stringify(text.slice(0, 80))}`,
        hint: `give NODES,LLCS,CORES,THREADS, or one of ${Object.keys(TOPOLOGY_PRESETS).join(", ")}`
      }))
}
