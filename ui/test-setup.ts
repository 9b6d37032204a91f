/** The little of a browser that the code under test asks for. */
for (const [name, value] of Object.entries({
  navigator: { languages: ["en"] },
  document: { documentElement: { lang: "" }, querySelector: () => null, currentScript: null },
})) {
  Object.defineProperty(globalThis, name, { value, configurable: true });
}
