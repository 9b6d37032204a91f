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
.line { height: 1px; margin: 6px 4px; background: var(--border); }
:focus { outline: none; }
.button:focus-visible, .item:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
@media (prefers-reduced-motion: reduce) { .button { transition: none; } }
@media print { :host { display: none; } }
`;
