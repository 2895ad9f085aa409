const MOST_POINTS = 64
const LEAST_MILLIS = 100

/** The points of a series, in milliseconds from a run's start: evenly within its 10th to 90th percent. */
export const pointsOf = (points: number, runMillis: number): ReadonlyArray<number> => {
  const room = runMillis * 0.8
  const fitting = Math.max(0, Math.floor(room / LEAST_MILLIS) - 1)
  const count = Math.max(0, Math.min(Math.trunc(points) || 0, MOST_POINTS, fitting))
  return Array.from({ length: count }, (_, i) => runMillis * 0.1 + (i + 1) * room / (count + 1))
}
