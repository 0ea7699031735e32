import type { Value } from "../service/contract";

const UNITS: Record<string, string> = {
  area: "area (px)",
  x: "x (px)",
  y: "y (px)",
  z: "z (px)",
  t: "frame",
};

/** A value as a cell of a table shows it: short, without digits beyond the precision of the measurement. */
export function formatValue(value: Value): string {
  if (value === null) return "–";
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3);
}

/** The name of a column in words. */
export function columnTitle(name: string): string {
  return UNITS[name] ?? name.replaceAll("_", " ");
}
