import { currentLanguage } from "./language.svelte";

const minute = 60;
const hour = 60 * minute;
const day = 24 * hour;

/** "42 seconds", "3 minutes, 5 seconds". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / hour), "hour"],
    [Math.floor((whole % hour) / minute), "minute"],
    [whole % minute, "second"],
  ];
  const texts = parts
    .filter(([value], index) => value > 0 || (index === 2 && whole === 0))
    .map(([value, unit]) =>
      new Intl.NumberFormat(currentLanguage(), { style: "unit", unit, unitDisplay: "long" }).format(value),
    );
  return new Intl.ListFormat(currentLanguage(), { type: "unit", style: "short" }).format(texts);
}

/** "0:42", "12:05", "1:02:03". */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const twoDigits = (value: number): string => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / minute) % 60;
  const hours = Math.floor(whole / hour);
  const tail = twoDigits(whole % minute);
  return hours > 0 ? `${hours}:${twoDigits(minutes)}:${tail}` : `${minutes}:${tail}`;
}

/** "3 hours ago", "in 30 days". */
export function relative(timestamp: string, now: number): string {
  const seconds = (Date.parse(timestamp) - now) / 1000;
  const format = new Intl.RelativeTimeFormat(currentLanguage(), { numeric: "auto" });
  const distance = Math.abs(seconds);
  if (distance < 45) return format.format(0, "second");
  if (distance < 45 * minute) return format.format(Math.round(seconds / minute), "minute");
  if (distance < 22 * hour) return format.format(Math.round(seconds / hour), "hour");
  return format.format(Math.round(seconds / day), "day");
}

/** "4 March 2027". */
export function date(timestamp: string): string {
  return new Intl.DateTimeFormat(currentLanguage(), { dateStyle: "medium" }).format(new Date(timestamp));
}

export function dateAndTime(timestamp: string): string {
  return new Intl.DateTimeFormat(currentLanguage(), { dateStyle: "medium", timeStyle: "short" }).format(
    new Date(timestamp),
  );
}
