import { catalogues, fill, languages, preferredLanguage, type Language, type MessageKey } from ".";
import type { en } from "./en";

export type { Language, MessageKey } from ".";

/** Shared with the overlay in ComfyUI's page. */
export const languageKey = "sentinel.language";

type Places<Text extends string> = Text extends `${string}{${infer Name}}${infer Rest}`
  ? Name | Places<Rest>
  : never;

type Values<Key extends MessageKey> = [Places<(typeof en)[Key]>] extends [never]
  ? []
  : [values: Record<Places<(typeof en)[Key]>, string | number>];

let language = $state<Language>(remembered() ?? preferredLanguage(navigator.languages));

/** The text for a key in the present language; a component that uses it follows a change of the language. */
export function t<Key extends MessageKey>(key: Key, ...values: Values<Key>): string {
  return fill(catalogues[language][key], values[0] ?? {});
}

export function hasText(key: string): key is MessageKey {
  return Object.hasOwn(catalogues.en, key);
}

export function currentLanguage(): Language {
  return language;
}

export function setLanguage(chosen: Language): void {
  language = chosen;
  applyLanguage();
  try {
    localStorage.setItem(languageKey, chosen);
  } catch {
    // Storage is switched off: the choice holds for this page.
  }
}

/** Tells the browser which language the page is in. */
export function applyLanguage(): void {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : language;
}

export function isLanguage(value: string | null): value is Language {
  return languages.some((known) => known === value);
}

function remembered(): Language | null {
  try {
    const value = localStorage.getItem(languageKey);
    return isLanguage(value) ? value : null;
  } catch {
    return null;
  }
}
