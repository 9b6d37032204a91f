import { catalogues, fill, languages, preferredLanguage, type Language, type MessageKey } from ".";

export type { Language, MessageKey } from ".";

/** Shared with the overlay in ComfyUI's page. */
export const languageKey = "sentinel.language";

type Places<Text extends string> = Text extends `${string}{${infer Name}}${infer Rest}`
  ? Name | Places<Rest>
  : never;

type Values<Text extends string> = [Places<Text>] extends [never]
  ? []
  : [values: Record<Places<Text>, string | number>];

/** Gives the text for a key in the present language. */
export type Translate<English extends Record<string, string>> = <Key extends keyof English & string>(
  key: Key,
  ...values: Values<English[Key]>
) => string;

let chosen = $state<Language | null>(remembered());
const language = $derived(chosen ?? preferredLanguage(navigator.languages));

/** For pages with texts of their own, so that the others need not load them. */
export function translator<English extends Record<string, string>>(
  sets: { en: English } & Record<Language, Record<keyof English & string, string>>,
): Translate<English> {
  return (key, ...values) => fill(sets[language][key], values[0] ?? {});
}

/** The text for a key in the present language; a component that uses it follows a change of the language. */
export const t = translator(catalogues);

export function hasText(key: string): key is MessageKey {
  return Object.hasOwn(catalogues.en, key);
}

export function currentLanguage(): Language {
  return language;
}

/** What somebody chose here, now or earlier; `null` while it is the browser's language. */
export function chosenLanguage(): Language | null {
  return chosen;
}

export function setLanguage(choice: Language): void {
  chosen = choice;
  applyLanguage();
  try {
    localStorage.setItem(languageKey, choice);
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
