import { describe, expect, test } from "vitest";
import { catalogues, fill, languages, preferredLanguage } from ".";
import { catalogues as management } from "../management/text";
import { catalogues as gallery } from "../gallery/text";
import { catalogues as guests } from "../sign-in/text";
import * as overlay from "../overlay/texts";

/** A text may be empty where English has none either. */
function places(text: string): string[] {
  return [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1] ?? "").sort();
}

const sets: Record<string, Record<string, Record<string, string>>> = {
  pages: catalogues,
  management,
  gallery,
  guests,
  overlay: { en: overlay.en, de: overlay.de, zh: overlay.zh },
};

describe.each(Object.entries(sets))("the catalogues of the %s", (_name, set) => {
  const english = set["en"] ?? {};

  test.each(languages)("%s has exactly the English keys", (language) => {
    expect(Object.keys(set[language] ?? {}).sort()).toEqual(Object.keys(english).sort());
  });

  test.each(languages)("%s has the English places in every text, and no empty text", (language) => {
    for (const [key, text] of Object.entries(set[language] ?? {})) {
      expect(places(text), key).toEqual(places(english[key] ?? ""));
      expect(text === "", key).toBe(english[key] === "");
    }
  });
});

test("the first language of the browser that there is wins", () => {
  expect(preferredLanguage(["fr-FR", "de-AT", "en"])).toBe("de");
  expect(preferredLanguage(["zh-Hant-TW"])).toBe("zh");
  expect(preferredLanguage(["fr"])).toBe("en");
  expect(preferredLanguage([])).toBe("en");
  expect(overlay.textsFor(["", "fr", "de-DE"])).toBe(overlay.de);
  expect(overlay.textsFor(["constructor"])).toBe(overlay.en);
});

test("values go into their places, and unknown places stay visible", () => {
  expect(fill("{name} has {count}, {other}", { name: "Mara", count: 2 })).toBe("Mara has 2, {other}");
  expect(fill("{name}", { name: "{count}" })).toBe("{count}");
});
