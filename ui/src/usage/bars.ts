/** The mathematics of a chart with one stacked bar for each day. */

export interface DayBar {
  /** Such as `2026-11-25`. */
  day: string;
  /** One value for each series, in their order. */
  values: number[];
}

export interface Block {
  series: number;
  x: number;
  y: number;
  width: number;
  height: number;
}

const dayLength = 86_400_000;
const minute = 60;
const hour = 60 * minute;

/** Ends of the axis for seconds of work, each easily halved. */
const ceilings = [
  ...[1, 2, 4, 10, 20, 30].map((count) => count * minute),
  ...[1, 1.5, 2, 3, 4, 6, 8, 12, 16, 20, 24, 36, 48, 72, 96].map((count) => count * hour),
];

/** The end of the axis: the first of a few plain amounts that is not below the highest bar. */
export function axisEnd(bars: readonly DayBar[]): number {
  const highest = Math.max(0, ...bars.map(({ values }) => sum(values)));
  return ceilings.find((end) => end >= highest) ?? Math.ceil(highest / (24 * hour)) * 24 * hour;
}

/** The last `count` days up to `today`, oldest first; days without work are there as well. */
export function daysUntil(today: string, count: number): string[] {
  const last = Date.parse(`${today}T00:00:00Z`);
  return Array.from({ length: count }, (_, index) =>
    new Date(last - (count - 1 - index) * dayLength).toISOString().slice(0, 10),
  );
}

/** The day in the local calendar. */
export function dayOf(now: number): string {
  const date = new Date(now);
  const twoDigits = (value: number): string => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${twoDigits(date.getMonth() + 1)}-${twoDigits(date.getDate())}`;
}

/** The rectangles of one bar, from the ground up, in a box of `width` by `height` that holds `count` bars. */
export function blocksOf(
  { values }: DayBar,
  index: number,
  { count, width, height, top }: { count: number; width: number; height: number; top: number },
): Block[] {
  const slot = width / Math.max(1, count);
  const gap = Math.min(slot * 0.28, 10);
  let ground = height;
  return values.flatMap((value, series) => {
    if (!(value > 0)) return [];
    // A little work is seen all the same.
    const size = Math.max(1, (Math.min(value, top) / top) * height);
    ground -= size;
    return [
      {
        series,
        x: round(index * slot + gap / 2),
        y: round(ground),
        width: round(slot - gap),
        height: round(size),
      },
    ];
  });
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
