import type { Value } from "../service/contract";

export interface Order {
  column: number;
  descending: boolean;
}

/** Return the places of rows in the order of a column: numbers by size, texts by letters, missing values last. */
export function sortedPlaces(rows: Value[][], order: Order | null): Int32Array {
  const places = Int32Array.from(rows.keys());
  if (order === null) return places;
  const { column, descending } = order;
  const sign = descending ? -1 : 1;
  return places.sort((one, other) => {
    const [left, right] = [rows[one]![column] ?? null, rows[other]![column] ?? null];
    if (left === null || right === null) return left === right ? one - other : left === null ? 1 : -1;
    return sign * compare(left, right) || one - other;
  });
}

function compare(left: NonNullable<Value>, right: NonNullable<Value>): number {
  if (typeof left === "number" && typeof right === "number") return left - right;
  return String(left).localeCompare(String(right), "en", { numeric: true });
}
