import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const gateway = process.env["SENTINEL_URL"] ?? "http://127.0.0.1:8189";

/**
 * Fills in the page state that the gateway writes in production.
 *
 * `/sign-in.html?state={"page":"register","first_admin":true}` shows any page under `npm run dev`.
 */
function pageStateForDevelopment(): Plugin {
  return {
    name: "sentinel-page-state",
    apply: "serve",
    transformIndexHtml(html, context) {
      const query = new URL(context.originalUrl ?? "/", "http://localhost").searchParams;
      const state = (query.get("state") ?? "{}").replaceAll("&", "&amp;").replaceAll('"', "&quot;");
      return html.replace("<!--sentinel:state-->", `<meta name="sentinel-state" content="${state}">`);
    },
  };
}

export default defineConfig({
  base: "/sentinel/",
  experimental: {
    // The gateway puts the addresses in the pages below the path of a reverse proxy; scripts and styles find each other
    // from where they are.
    renderBuiltUrl: (_, { hostType }) => (hostType === "html" ? undefined : { relative: true }),
  },
  plugins: [svelte(), pageStateForDevelopment()],
  build: {
    // The content security policy of the pages has no place for inlined files.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    rolldownOptions: {
      input: ["index.html", "sign-in.html", "waiting.html", "account.html", "gallery.html"],
    },
  },
  server: {
    fs: { allow: [".."] },
    proxy: Object.fromEntries(
      ["/sentinel/api", "/login", "/register", "/generate_token", "/logout"].map((path) => [
        path,
        { target: gateway, changeOrigin: true },
      ]),
    ),
  },
  test: { include: ["src/**/*.test.ts"], setupFiles: ["test-setup.ts"] },
});
