import { defineConfig } from "vite";

/** The overlay is one classic script with a fixed name: ComfyUI's page carries a plain `<script src>` to it. */
export default defineConfig({
  build: {
    outDir: "dist/assets",
    emptyOutDir: false,
    copyPublicDir: false,
    target: "es2022",
    lib: {
      entry: "src/overlay/overlay.ts",
      formats: ["iife"],
      name: "sentinelOverlay",
      fileName: () => "overlay.js",
    },
  },
});
