/** The gateway's rules for lists of addresses, so that a page can judge them while somebody types. */

export interface ListLine {
  line: number;
  text: string;
}

/** The lines that are neither an address nor a range; `#` starts a comment. */
export function badLines(text: string): ListLine[] {
  return entries(text).filter(({ text: entry }) => !isAddressOrRange(entry));
}

export function countEntries(text: string): number {
  return entries(text).length;
}

/** Whether an address in the list, or a range that holds it, meets this address. Only for IPv4. */
export function listCovers(text: string, address: string): boolean {
  const number = ipv4(address);
  if (number === null) return false;
  return entries(text).some(({ text: entry }) => {
    const [network = "", length = "32"] = entry.split("/");
    const base = ipv4(network);
    if (base === null || !isAddressOrRange(entry)) return false;
    const size = 2 ** (32 - Number(length));
    return Math.floor(base / size) === Math.floor(number / size);
  });
}

export function isAddressOrRange(entry: string): boolean {
  const [address = "", length, ...rest] = entry.split("/");
  if (rest.length > 0) return false;
  const bits = ipv4(address) !== null ? 32 : isIpv6(address) ? 128 : null;
  if (bits === null) return false;
  return length === undefined || (/^\d{1,3}$/.test(length) && Number(length) <= bits);
}

function entries(text: string): ListLine[] {
  return text
    .split("\n")
    .map((line, index) => ({ line: index + 1, text: (line.split("#")[0] ?? "").trim() }))
    .filter(({ text: entry }) => entry !== "");
}

function ipv4(text: string): number | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  let value = 0;
  for (const part of parts) {
    // A leading zero would be read as octal elsewhere.
    if (!/^(?:0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return null;
    value = value * 256 + Number(part);
  }
  return value;
}

function isIpv6(text: string): boolean {
  if (!text.includes(":") || /[^0-9a-fA-F:.]/.test(text)) return false;
  const halves = text.split("::");
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === "" ? [] : half.split(":")));
  let count = groups.length;
  const last = groups.at(-1);
  if (last?.includes(".")) {
    if (ipv4(last) === null || text.endsWith("::")) return false;
    groups.pop();
    count += 1;
  }
  if (!groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return false;
  return halves.length === 2 ? count <= 7 : count === 8;
}
