/** Dark as ComfyUI's own default; light where its page says so. */
export const style = `
:host {
  all: initial;
  position: fixed;
  z-index: 1000;
  --surface: #1f2126;
  --hover: #2f333a;
  --border: #3a3f47;
  --text: #eceef0;
  --muted: #a3aab3;
  --accent: #43cbb4;
  --warning: #f3c669;
  --on-accent: #04211c;
  font: 400 14px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Microsoft YaHei", sans-serif;
  color: var(--text);
}
:host([theme="light"]) {
  --surface: #ffffff;
  --hover: #edf1f0;
  --border: #d5dcda;
  --text: #13201d;
  --muted: #55645f;
  --accent: #0b6f66;
  --warning: #8a5300;
  --on-accent: #ffffff;
}
:host([side="right"]) { right: 0; }
:host([side="left"]) { left: 0; }
* { box-sizing: border-box; }
.button {
  display: grid;
  place-items: center;
  width: 30px;
  height: 36px;
  margin: 0;
  padding: 0;
  border: 1px solid var(--border);
  background: var(--surface);
  color: inherit;
  font: inherit;
  cursor: pointer;
  opacity: 0.72;
  touch-action: none;
  user-select: none;
  -webkit-user-select: none;
  box-shadow: 0 2px 10px rgb(0 0 0 / 0.25);
  transition: opacity 120ms ease-out, width 120ms ease-out;
}
:host([side="right"]) .button { border-right: 0; border-radius: 18px 0 0 18px; }
:host([side="left"]) .button { border-left: 0; border-radius: 0 18px 18px 0; }
.button:hover, .button:focus-visible, .button[aria-expanded="true"] { opacity: 1; width: 34px; }
.dragging .button { cursor: grabbing; opacity: 1; }
.mark {
  position: absolute;
  top: 40px;
  display: grid;
  justify-items: start;
  gap: 1px;
  width: max-content;
  min-width: 30px;
  /* The narrowest side bar of ComfyUI's has 48. */
  max-width: 47px;
  margin: 0;
  padding: 4px 4px 4px 5px;
  border: 1px solid var(--border);
  background: var(--surface);
  color: var(--text);
  font: inherit;
  font-size: 11px;
  line-height: 1.2;
  text-align: left;
  cursor: pointer;
  box-shadow: 0 2px 10px rgb(0 0 0 / 0.25);
}
.mark[hidden] { display: none; }
.mark:hover { background: var(--hover); }
:host([side="right"]) .mark { right: 0; border-right: 0; border-radius: 8px 0 0 8px; }
:host([side="left"]) .mark { left: 0; border-left: 0; border-radius: 0 8px 8px 0; }
.head { display: flex; align-items: center; gap: 3px; font-weight: 650; }
.wait { font-size: 10px; color: var(--muted); white-space: nowrap; }
.wait:empty { display: none; }
.mark svg { flex: none; width: 12px; height: 12px; }
.pill {
  position: absolute;
  top: 4px;
  display: none;
  align-items: center;
  gap: 6px;
  width: max-content;
  max-width: min(440px, calc(100vw - 60px));
  min-height: 28px;
  margin: 0;
  padding: 4px 12px 4px 9px;
  border: 1px solid var(--border);
  border-radius: 14px;
  background: var(--surface);
  color: var(--text);
  font: inherit;
  font-size: 12px;
  line-height: 1.3;
  text-align: left;
  cursor: pointer;
  box-shadow: 0 2px 10px rgb(0 0 0 / 0.25);
}
:host(:hover) .pill, .button:focus-visible ~ .pill { display: flex; }
.pill[hidden] { display: none !important; }
/* The menu says the same, and is in their place. */
:host([open]) .pill, :host([open]) .mark { display: none !important; }
/* Carries the pointer over the gap beside the button. */
.pill::before { content: ""; position: absolute; inset: -6px -10px; z-index: -1; }
.pill:hover { background: var(--hover); }
.pill svg { flex: none; width: 14px; height: 14px; }
.clock { color: var(--accent); }
.pause { color: var(--warning); }
.pause, .held .clock { display: none; }
.held .pause { display: block; }
:host([side="right"]) .pill { right: 40px; }
:host([side="left"]) .pill { left: 40px; }
.initial {
  display: grid;
  place-items: center;
  width: 22px;
  height: 22px;
  border-radius: 50%;
  background: var(--accent);
  color: var(--on-accent);
  font-size: 12px;
  font-weight: 650;
  line-height: 1;
  text-transform: uppercase;
}
.menu {
  position: absolute;
  top: 50%;
  width: max-content;
  min-width: 208px;
  max-width: min(280px, calc(100vw - 64px));
  padding: 6px;
  border: 1px solid var(--border);
  border-radius: 12px;
  background: var(--surface);
  box-shadow: 0 12px 40px rgb(0 0 0 / 0.4);
}
.menu[hidden] { display: none; }
:host([side="right"]) .menu { right: 44px; }
:host([side="left"]) .menu { left: 44px; }
.who { padding: 8px 10px 10px; }
.name { font-weight: 600; overflow-wrap: anywhere; }
.role { font-size: 12px; color: var(--muted); }
.queue { padding: 0 10px 8px; font-size: 12px; }
.queue[hidden] { display: none; }
.queue div + div { margin-top: 2px; color: var(--muted); }
.item {
  display: flex;
  align-items: center;
  gap: 10px;
  width: 100%;
  min-height: 38px;
  padding: 6px 10px;
  border: 0;
  border-radius: 8px;
  background: none;
  color: inherit;
  font: inherit;
  text-align: left;
  text-decoration: none;
  cursor: pointer;
}
.item:hover, .item:focus { background: var(--hover); }
.item svg { flex: none; color: var(--muted); }
.words { flex: 1; min-width: 0; }
.words .label { display: block; }
.hint { display: block; font-size: 12px; line-height: 1.35; color: var(--muted); }
.switch {
  position: relative;
  flex: none;
  width: 32px;
  height: 18px;
  border: 1px solid var(--muted);
  border-radius: 9px;
}
.switch::before {
  content: "";
  position: absolute;
  top: 2px;
  left: 2px;
  width: 12px;
  height: 12px;
  border-radius: 50%;
  background: var(--muted);
}
[aria-checked="true"] .switch { border-color: var(--accent); background: var(--accent); }
[aria-checked="true"] .switch::before { left: 16px; background: var(--on-accent); }
[aria-disabled="true"] { cursor: default; }
[aria-disabled="true"] .switch { opacity: 0.4; }
.line { height: 1px; margin: 6px 4px; background: var(--border); }
:focus { outline: none; }
.button:focus-visible, .item:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
@media (prefers-reduced-motion: reduce) { .button { transition: none; } }
@media print { :host { display: none; } }
`;
