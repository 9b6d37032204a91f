import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

test("the dark theme is the same by choice and by the system", () => {
  const text = readFileSync(new URL("./tokens.css", import.meta.url), "utf8");
  const values = (block: string | undefined): string[] =>
    [...(block ?? "").replaceAll(/\s+/g, " ").matchAll(/--[\w-]+: [^;]+;/g)].map(([value]) => value);
  const system = /:root:not\(\[data-theme="light"\]\) \{(.*?)\n {2}\}/s.exec(text)?.[1];
  const chosen = /:root\[data-theme="dark"\] \{(.*?)\n\}/s.exec(text)?.[1];
  expect(values(system).length).toBeGreaterThan(20);
  expect(values(chosen)).toEqual(values(system));
});
