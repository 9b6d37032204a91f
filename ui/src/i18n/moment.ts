/** Amounts and moments for those who are waiting; without the pages' state, so that the overlay can use them too. */

const minute = 60;
const hour = 60 * minute;
const day = 86_400_000;

/**
 * "4 min", "1.5 hr": a guess, and no more exact than one. `null` is less than a minute, which people say in words:
 * jobs are too different for seconds to come true.
 */
export function roughly(seconds: number, language: string): string | null {
  if (seconds < minute) return null;
  const [value, unit, digits] =
    seconds < 59.5 * minute
      ? [Math.round(seconds / minute), "minute", 0]
      : ([seconds / hour, "hour", 1] as const);
  return new Intl.NumberFormat(language, {
    style: "unit",
    unit,
    unitDisplay: "short",
    maximumFractionDigits: digits,
  }).format(value);
}

/** "18:00" today, "Thu 08:00" within a week, else with the date. */
export function moment(timestamp: string, now: number, language: string): string {
  const at = new Date(timestamp);
  const time = { hour: language === "en" ? "numeric" : "2-digit", minute: "2-digit" } as const;
  const today = at.toDateString() === new Date(now).toDateString();
  const soon = Math.abs(at.getTime() - now) < 6 * day;
  return new Intl.DateTimeFormat(language, {
    ...time,
    ...(today ? {} : soon ? { weekday: "short" } : { day: "numeric", month: "short" }),
  }).format(at);
}
