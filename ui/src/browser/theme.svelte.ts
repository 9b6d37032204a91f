/** Light or dark: as the system says, unless somebody chose. */
export const themes = ["system", "light", "dark"] as const;
export type Theme = (typeof themes)[number];

const key = "sentinel.theme";

let chosen = $state<Theme>(remembered());

export function currentTheme(): Theme {
  return chosen;
}

export function setTheme(theme: Theme): void {
  chosen = theme;
  applyTheme();
  try {
    if (theme === "system") localStorage.removeItem(key);
    else localStorage.setItem(key, theme);
  } catch {
    // Storage is switched off: the choice holds for this page.
  }
}

export function applyTheme(): void {
  if (chosen === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = chosen;
}

function remembered(): Theme {
  try {
    const value = localStorage.getItem(key);
    return themes.find((theme) => theme === value) ?? "system";
  } catch {
    return "system";
  }
}
