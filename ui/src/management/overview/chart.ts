/** One reading of a chart; `null` where there was none. */
export type Reading = number | null;

/** The end of the axis: the known limit, or a round number above the highest reading. */
export function ceiling(readings: readonly Reading[], limit: number | null): number {
  if (limit !== null && limit > 0) return limit;
  const highest = Math.max(0, ...readings.filter((reading) => reading !== null));
  if (highest === 0) return 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= highest) ?? 10;
  return step * power;
}

/**
 * The line through the readings as an SVG path in a box of the given size, newest at the right edge; it breaks where
 * readings are missing. `slots` is how many readings fill the width.
 */
export function linePath(
  readings: readonly Reading[],
  { width, height, top, slots }: { width: number; height: number; top: number; slots: number },
): string {
  const step = width / Math.max(1, slots - 1);
  const first = width - (readings.length - 1) * step;
  let path = "";
  let drawing = false;
  readings.forEach((reading, index) => {
    if (reading === null || !Number.isFinite(reading)) {
      drawing = false;
      return;
    }
    const x = round(first + index * step);
    const y = round(height - (Math.min(Math.max(reading, 0), top) / top) * height);
    path += `${drawing ? "L" : "M"}${x} ${y}`;
    drawing = true;
  });
  return path;
}

/** The area below the line, for readings without gaps. */
export function areaPath(line: string, height: number): string {
  const points = [...line.matchAll(/[ML]([\d.-]+) /g)].map((match) => match[1]);
  const first = points[0];
  const last = points.at(-1);
  if (first === undefined || last === undefined || line.lastIndexOf("M") > 0) return "";
  return `${line}L${last} ${height}L${first} ${height}Z`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
