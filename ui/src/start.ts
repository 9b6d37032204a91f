import { mount, type Component } from "svelte";
import "./design/tokens.css";
import "./design/base.css";
import { applyTheme } from "./browser/theme.svelte";
import { applyLanguage } from "./i18n/language.svelte";
import { readPageState, type PageState } from "./page-state";

/** Shows a page with the state that the gateway wrote into the document. */
export function start(page: Component<{ state: PageState }>): void {
  const target = document.getElementById("page");
  if (!target) return;
  applyTheme();
  applyLanguage();
  mount(page, { target, props: { state: readPageState() } });
}
