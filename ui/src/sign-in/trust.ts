export const guides = ["iphone", "android", "windows", "macos", "linux"] as const;
export type Guide = (typeof guides)[number];

/** The guide for the device that shows the page. */
export function guessGuide(userAgent: string): Guide {
  if (/iPhone|iPad/.test(userAgent)) return "iphone";
  if (userAgent.includes("Android")) return "android";
  if (/Mac OS X|Macintosh/.test(userAgent)) return "macos";
  if (/Linux|CrOS/.test(userAgent)) return "linux";
  return "windows";
}

export function stepsOf<Chosen extends Guide>(guide: Chosen): `trust.${Chosen}.${1 | 2 | 3}`[] {
  return [`trust.${guide}.1`, `trust.${guide}.2`, `trust.${guide}.3`];
}
