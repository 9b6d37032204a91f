import { currentLanguage } from "./language.svelte";

/** "7.3 GB"; as file managers count. */
export function bytes(amount: number): string {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"] as const;
  let value = Math.max(0, amount);
  let step = 0;
  while (value >= 999.5 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  return new Intl.NumberFormat(currentLanguage(), {
    style: "unit",
    unit: units[step] ?? "byte",
    unitDisplay: "short",
    maximumFractionDigits: value < 10 && step > 0 ? 1 : 0,
  }).format(value);
}

/** "42 %", of a number from 0 to 100. */
export function percent(value: number): string {
  return new Intl.NumberFormat(currentLanguage(), { style: "percent", maximumFractionDigits: 0 }).format(
    value / 100,
  );
}

/** "3 hr", "25 min": how long something has gone on, as short as can be. */
export function age(seconds: number): string {
  const steps = [
    [86_400, "day"],
    [3600, "hour"],
    [60, "minute"],
    [0, "second"],
  ] as const;
  const whole = Math.max(0, Math.floor(seconds));
  const [size, unit] = steps.find(([limit]) => whole >= limit) ?? steps[3];
  return new Intl.NumberFormat(currentLanguage(), { style: "unit", unit, unitDisplay: "short" }).format(
    Math.floor(whole / (size || 1)),
  );
}

/** "3 hr 20 min", "12 min", "40 sec": an amount of work, in its two largest units. */
export function span(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const minutes = Math.round(whole / 60);
  const parts: [number, string][] =
    whole < 60
      ? [[whole, "second"]]
      : [
          [Math.floor(minutes / 60), "hour"],
          [minutes % 60, "minute"],
        ];
  const texts = parts
    .filter(([value], index) => value > 0 || (index === 0 && parts.length === 1))
    .map(([value, unit]) =>
      new Intl.NumberFormat(currentLanguage(), { style: "unit", unit, unitDisplay: "short" }).format(value),
    );
  return new Intl.ListFormat(currentLanguage(), { type: "unit", style: "narrow" }).format(texts);
}

/** "14:03:22". */
export function timeOfDay(timestamp: string): string {
  return new Intl.DateTimeFormat(currentLanguage(), { timeStyle: "medium" }).format(new Date(timestamp));
}
