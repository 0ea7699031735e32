import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Plugin } from "vite";

const ALLOWED = ["MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC"];
const NAMES = ["LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE"];

interface Package {
  name: string;
  version: string;
  license: string;
  text: string;
}

// Kept between the bundle of the page and the bundle of its worker, which is made inside the first.
const used = new Map<string, Package>();

/**
 * Write the licence of every package in the bundle into licences.txt; refuse other licences than the allowed ones.
 *
 * The bundle of the worker only adds its packages, for both bundles have one list.
 */
export function licences({ write }: { write: boolean }): Plugin {
  return {
    name: "licences",
    generateBundle(_options, bundle) {
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== "chunk") continue;
        for (const file of Object.keys(chunk.modules)) {
          const folder = packageFolder(file);
          if (folder !== null && !used.has(folder)) used.set(folder, readPackage(folder));
        }
      }
      if (!write) return;
      const packages = [...used.values()].sort((one, other) => one.name.localeCompare(other.name));
      const refused = packages.filter((one) => !ALLOWED.includes(one.license));
      if (refused.length > 0) {
        const list = refused.map((one) => `${one.name} (${one.license})`).join(", ");
        this.error(`expected one of the licences ${ALLOWED.join(", ")}, found ${list}`);
      }
      const source = packages
        .map((one) => `${one.name} ${one.version} (${one.license})\n\n${one.text.trim()}\n`)
        .join(`\n${"-".repeat(100)}\n\n`);
      this.emitFile({ type: "asset", fileName: "licences.txt", source });
    },
  };
}

function packageFolder(file: string): string | null {
  const path = file.replace(/^\0+/, "").replace(/\?.*$/, "");
  if (!path.includes("/node_modules/")) return null;
  let folder = dirname(path);
  while (!existsSync(join(folder, "package.json")) || !hasName(folder)) folder = dirname(folder);
  return folder;
}

function hasName(folder: string): boolean {
  return "name" in JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
}

function readPackage(folder: string): Package {
  const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = NAMES.map((name) => join(folder, name)).find(existsSync);
  const text = file === undefined ? "" : readFileSync(file, "utf8");
  return { name: about.name, version: about.version, license: String(about.license), text };
}
