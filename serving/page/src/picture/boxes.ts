/** Draws the boxes of classified cells in the colours of their classes. */

import type { Objects } from "../service/contract";
import { cssColour } from "./colours";
import type { Painter } from "./vectors";

const SIDES = ["xmin", "ymin", "xmax", "ymax"] as const;

/** Return the object in whose box a place is, the smallest box of several; 0 for none. */
export function boxAt({ columns, rows }: Objects, { x, y }: { x: number; y: number }): number {
  const sides = SIDES.map((name) => columns.indexOf(name));
  let [found, smallest] = [0, Infinity];
  for (const row of rows) {
    const [xmin, ymin, xmax, ymax] = sides.map((side) => Number(row[side])) as [number, number, number, number];
    const area = (xmax - xmin) * (ymax - ymin);
    if (x < xmin || x >= xmax || y < ymin || y >= ymax || area >= smallest) continue;
    [found, smallest] = [Number(row[0]), area];
  }
  return found;
}

/** Return what draws the boxes; null if the table has none. */
export function boxPainter(objects: Objects, colours: Map<string, number>, selected: number[]): Painter | null {
  const [xmin, ymin, xmax, ymax] = SIDES.map((name) => objects.columns.indexOf(name)) as [
    number,
    number,
    number,
    number,
  ];
  const named = objects.columns.indexOf("class");
  if (Math.min(xmin, ymin, xmax, ymax) < 0) return null;
  const chosen = new Set(selected);
  return (context, view) => {
    for (const row of objects.rows) {
      const left = view.x + Number(row[xmin]) * view.scale;
      const top = view.y + Number(row[ymin]) * view.scale;
      const width = (Number(row[xmax]) - Number(row[xmin])) * view.scale;
      const height = (Number(row[ymax]) - Number(row[ymin])) * view.scale;
      if (left > view.width || top > view.height || left + width < 0 || top + height < 0) continue;
      const isChosen = chosen.has(Number(row[0]));
      context.lineWidth = isChosen ? 4 : 2;
      context.strokeStyle = isChosen ? "#ffffff" : cssColour(colours.get(String(row[named])) ?? 0xffffff);
      context.strokeRect(left, top, width, height);
    }
  };
}
