import { mount } from "svelte";
import "../design/tokens.css";
import "../design/base.css";
import { applyTheme } from "../browser/theme.svelte";
import { applyLanguage } from "../i18n/language.svelte";
import { readPageState } from "../page-state";
import App from "./App.svelte";
import { chooseBackend } from "./backend/choose";
import { Confirmation } from "./backend/confirmation.svelte";

applyTheme();
applyLanguage();
const target = document.getElementById("page");
if (target) {
  const confirmation = new Confirmation();
  const backend = await chooseBackend(confirmation);
  mount(App, { target, props: { state: readPageState(), backend, confirmation } });
}
