import { catalogues as common } from "../i18n";
import { translator } from "../i18n/language.svelte";
import { de } from "./i18n/de";
import { en } from "./i18n/en";
import { zh } from "./i18n/zh";

export const catalogues = { en, de, zh };

/** The texts of the pages for guests and certificates, which signing in does not load. */
export const t = translator({
  en: { ...common.en, ...en },
  de: { ...common.de, ...de },
  zh: { ...common.zh, ...zh },
});
