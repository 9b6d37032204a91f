/** Failed sign-ins for which Sentinel itself banned an address; `undefined`: a person wrote the reason. */
export function failedSignIns(reason: string): number | undefined {
  const count = /^(\d+) failed sign-ins$/.exec(reason)?.[1];
  return count === undefined ? undefined : Number(count);
}
