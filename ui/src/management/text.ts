import { catalogues as common, fill } from "../i18n";
import { currentLanguage, translator } from "../i18n/language.svelte";
import { de } from "./i18n/de";
import { en } from "./i18n/en";
import { zh } from "./i18n/zh";

export type ManagementKey = keyof typeof en;

export const catalogues = { en, de, zh };

/** The texts of the app, together with those that all pages share. */
export const t = translator({
  en: { ...common.en, ...en },
  de: { ...common.de, ...de },
  zh: { ...common.zh, ...zh },
});

/** A text that may be missing, such as the one for a key that only a newer gateway knows. */
export function optional(key: string, values: Record<string, string | number> = {}): string | null {
  const texts: Partial<Record<string, string>> = catalogues[currentLanguage()];
  const text = Object.hasOwn(en, key) ? texts[key] : undefined;
  return text === undefined ? null : fill(text, values);
}
