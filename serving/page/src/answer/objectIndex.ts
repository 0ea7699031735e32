/** Finds objects in the table of an answer. */

import { classColours } from "../picture/colours";
import type { Objects, Value } from "../service/contract";

export interface ObjectPlace {
  x: number;
  y: number;
  t: number | null;
  z: number | null;
}

/** Return the row of an object; of several (a track has one for each frame) that of the frame. */
export function rowOf({ columns, rows }: Objects, label: number, frame: number): number {
  const time = columns.indexOf("t");
  const first = rows.findIndex((row) => row[0] === label && (time < 0 || row[time] === frame));
  return first >= 0 || time < 0 ? first : rows.findIndex((row) => row[0] === label);
}

/** Return where an object is in the image; null if the table does not say. */
export function placeOf({ columns }: Objects, row: Value[]): ObjectPlace | null {
  const number = (name: string): number | null => {
    const value = row[columns.indexOf(name)];
    return typeof value === "number" ? value : null;
  };
  const [x, y] = [number("x"), number("y")];
  return x === null || y === null ? null : { x, y, t: number("t"), z: number("z") };
}

export interface Classes {
  colours: Map<string, number>;
  /** The colour of every label. */
  table: Uint32Array;
}

/** Return the colours of classes; null if the table has no classes. */
export function classesOf({ columns, rows }: Objects): Classes | null {
  const column = columns.indexOf("class");
  if (column < 0) return null;
  const names = [...new Set(rows.map((row) => row[column]).filter((name) => name !== null && name !== undefined))];
  if (names.length === 0) return null;
  const colours = classColours(names.map(String).sort());
  const largest = rows.reduce((most, row) => Math.max(most, Number(row[0])), 0);
  const table = new Uint32Array(largest + 1);
  for (const row of rows) table[Number(row[0])] = colours.get(String(row[column])) ?? 0;
  return { colours, table };
}
