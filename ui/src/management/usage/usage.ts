/** What the table and the chart show, from the gateway's rows. */
import { sum, type DayBar } from "../../usage/bars";
import type { Usage } from "../types";

export const ranges = [7, 30, 90] as const;

/** As many people as the chart tells apart; the others come together. */
const shownPeople = 5;

export interface UserTotal {
  id: string;
  name: string;
  gpuSeconds: number;
  jobs: number;
  failed: number;
  /** How long a job waited on average; `null` without jobs. */
  averageWait: number | null;
  /** `null` where it is not known. */
  bytes: number | null;
}

/** One row for each person who has worked or keeps files; who used the graphics card longest comes first. */
export function totalsOf(usage: Usage): UserTotal[] {
  const totals = new Map<string, UserTotal & { waited: number }>();
  const rowOf = (id: string, name: string): UserTotal & { waited: number } => {
    const found = totals.get(id);
    if (found) return found;
    const made = { id, name, gpuSeconds: 0, jobs: 0, failed: 0, averageWait: null, bytes: null, waited: 0 };
    totals.set(id, made);
    return made;
  };
  for (const day of usage.days) {
    const row = rowOf(day.user_id, day.username);
    row.gpuSeconds += day.gpu_seconds;
    row.jobs += day.jobs;
    row.failed += day.failed;
    row.waited += day.waiting_seconds;
  }
  for (const { user_id: id, username, bytes } of usage.storage) rowOf(id, username).bytes = bytes;
  return [...totals.values()]
    .map(({ waited, ...row }) => ({ ...row, averageWait: row.jobs > 0 ? waited / row.jobs : null }))
    .sort((left, right) => right.gpuSeconds - left.gpuSeconds || left.name.localeCompare(right.name));
}

/** The stacked bars of the given days; `others` names those who have no colour of their own. */
export function chartOf(
  usage: Usage,
  days: readonly string[],
  others: string,
): { bars: DayBar[]; series: string[] } {
  const people = totalsOf(usage).filter(({ gpuSeconds }) => gpuSeconds > 0);
  // A single other one has a name of his own.
  const named = people.slice(0, people.length === shownPeople + 1 ? shownPeople + 1 : shownPeople);
  const hasOthers = people.length > named.length;
  const bars = days.map((day) => {
    const rows = usage.days.filter((row) => row.day === day);
    const of = (id: string): number =>
      sum(rows.filter(({ user_id: user }) => user === id).map((row) => row.gpu_seconds));
    const values = named.map(({ id }) => of(id));
    const rest = sum(rows.map((row) => row.gpu_seconds)) - sum(values);
    return { day, values: hasOthers ? [...values, Math.max(0, rest)] : values };
  });
  return { bars, series: [...named.map(({ name }) => name), ...(hasOthers ? [others] : [])] };
}
