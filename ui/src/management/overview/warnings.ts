import type { PageName } from "../route";
import { optional } from "../text";

export interface Advice {
  text: string;
  /** Where something can be done about it. */
  page: PageName | null;
}

const known: readonly (readonly [RegExp, string, PageName])[] = [
  [/\bforce_https\b/, "encryption", "sharing"],
  [/\bmanager_admin_only\b/, "manager", "settings"],
  [/share one ComfyUI/, "one_for_all", "settings"],
  [/whitelist|allow list/i, "allow_list", "access"],
  [/blacklist|deny list/i, "deny_list", "access"],
];

/** A warning of the gateway in the language of the page, as far as it is one that the page knows. */
export function advise(warning: string): Advice {
  for (const [pattern, name, page] of known) {
    if (pattern.test(warning)) {
      const text = name.endsWith("_list") ? null : optional(`warning.${name}`);
      return { text: text ?? warning, page };
    }
  }
  return { text: warning, page: null };
}
