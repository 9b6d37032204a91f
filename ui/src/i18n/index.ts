import { de } from "./de";
import { en } from "./en";
import { zh } from "./zh";

export type MessageKey = keyof typeof en;
export type Catalogue = Record<MessageKey, string>;

export const languages = ["en", "de", "zh"] as const;
export type Language = (typeof languages)[number];

export const languageNames: Record<Language, string> = { en: "English", de: "Deutsch", zh: "中文" };

export const catalogues: { en: typeof en } & Record<Language, Catalogue> = { en, de, zh };

/** The first of the browser's languages that there is a catalogue for. */
export function preferredLanguage(wanted: readonly string[]): Language {
  for (const tag of wanted) {
    const found = languages.find((language) => tag.toLowerCase().split("-")[0] === language);
    if (found) return found;
  }
  return "en";
}

/** Puts values into the `{name}` places of a text. */
export function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (place, name: string) => String(values[name] ?? place));
}
