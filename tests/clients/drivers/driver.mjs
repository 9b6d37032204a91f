// What all drivers share: where Sentinel is, by which way in, and the jobs to be done.

import { readFileSync, writeFileSync } from "node:fs";

const { PORT, WAY, USER_NAME, TOKEN, JOBS } = process.env;

export const host = `127.0.0.1:${PORT}`;
export const url = `http://${host}`;
export const way = WAY;
export const user = USER_NAME;
export const token = TOKEN;
/** The credential as headers. */
export const headers = way === "bearer" ? { Authorization: `Bearer ${token}` } : {};

/** Does all jobs by a function from a graph to the bytes of a picture, and ends the program. */
export async function run(make) {
  for (let number = 0; number < Number(JOBS); number += 1) {
    const graph = JSON.parse(readFileSync(`${number}.json`, "utf8"));
    const picture = Buffer.from(await make(graph));
    if (picture.length === 0) throw new Error("no picture");
    writeFileSync(`${number}.png`, picture);
  }
  // Some clients keep timers and sockets that would keep the program.
  process.exit(0);
}
