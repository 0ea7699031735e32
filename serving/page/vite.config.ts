import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

import { licences } from "./licences";

// The gateway serves index.html at / and every other file under /page/.
export default defineConfig({
  base: "/page/",
  plugins: [react(), licences({ write: true })],
  build: {
    outDir: "../cytoray_serving/page",
    emptyOutDir: true,
    sourcemap: false,
    // A data: address for a script or a style would need a wider content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1000, // kB; the start page may have 400 kB, gzipped
  },
  worker: { format: "es", plugins: () => [licences({ write: false })] },
});
