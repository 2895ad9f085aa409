import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { GuestKernel } from "../../memory/GuestKernel.ts"
import { type BpfUnreadable, MapAccessor, type MapAccessorService } from "../MapAccessor.ts"
import { GuestMaps } from "./GuestMaps.ts"

/**
 * The maps and programs in a guest's memory.
 * @param consistency what the guest does meanwhile: `frozen`: it stands still, `racing`: it runs on
 *
 * @since 0.1.0
 * @category constructors
 */
export const makeWith = (
  consistency: "frozen" | "racing"
): Effect.Effect<MapAccessorService, BpfUnreadable, GuestKernel> =>
  Effect.gen(function*() {
    const guest = yield* GuestMaps.make(yield* GuestKernel)
    return MapAccessor.make({
      maps: { items: guest.maps.items.map(({ info }) => info), problems: guest.maps.problems },
      programs: guest.programs,
      reader: (map) => Effect.sync(() => guest.reader(map, consistency))
    })
  }).pipe(Effect.withSpan("GuestMapAccessor.make"))

/**
 * Those of a guest that stands still.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<MapAccessorService, BpfUnreadable, GuestKernel> = makeWith("frozen")

/**
 * `MapAccessor` over the `GuestKernel`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<MapAccessor, BpfUnreadable, GuestKernel> = Layer.effect(
  MapAccessor,
  make
)
