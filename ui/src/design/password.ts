/** The gateway's rules for new passwords, so that a page can show them while somebody types. */

export const passwordRules = ["length", "digit", "special", "no_space"] as const;
export type PasswordRule = (typeof passwordRules)[number];

export type Strength = "none" | "weak" | "fair" | "good" | "strong";

export function checkPassword(password: string): Record<PasswordRule, boolean> {
  const length = Array.from(password).length;
  return {
    length: length >= 8 && length <= 1024,
    digit: /[0-9]/.test(password),
    special: /[^\p{L}\p{N}\s]/u.test(password),
    no_space: password !== "" && !/\s/u.test(password),
  };
}

export function isAcceptable(password: string): boolean {
  return Object.values(checkPassword(password)).every(Boolean);
}

/** A rough guess at how long a password withstands guessing; length counts most. */
export function estimateStrength(password: string, username = ""): Strength {
  if (password === "") return "none";
  if (!isAcceptable(password)) return "weak";
  const lower = password.toLowerCase();
  const common = /password|passwort|123456|qwert|abc123|letmein|iloveyou|admin|comfyui|sentinel/.test(lower);
  if (common || (username.length >= 3 && lower.includes(username.toLowerCase()))) return "weak";

  const kinds = [/\p{Ll}/u, /\p{Lu}/u, /[0-9]/, /[^\p{L}\p{N}\s]/u].filter((kind) =>
    kind.test(password),
  ).length;
  const distinct = new Set(password).size;
  const score = distinct + kinds;
  if (score < 10) return "weak";
  if (score < 13) return "fair";
  return score < 17 ? "good" : "strong";
}
