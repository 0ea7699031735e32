/** Draws tracks: where cells came from in the last frames, and where one became two. */

import type { Objects } from "../service/contract";
import { cssColour, labelColour } from "./colours";
import type { Painter } from "./vectors";
import type { View } from "./view";

export interface TrackPoint {
  t: number;
  x: number;
  y: number;
}

export interface Tracks {
  /** The points of every track by its number, in the order of frames. */
  points: Map<number, TrackPoint[]>;
  parents: Map<number, number>;
}

const TAIL = 10; // frames
const MARK = 5; // pixels of the screen

/** Read tracks from an object table; null if it has no columns for them. */
export function tracksOf({ columns, rows }: Objects): Tracks | null {
  const [track, parent, t, x, y] = ["label", "parent", "t", "x", "y"].map((name) => columns.indexOf(name)) as [
    number,
    number,
    number,
    number,
    number,
  ];
  if (Math.min(track, parent, t, x, y) < 0) return null;
  const tracks: Tracks = { points: new Map(), parents: new Map() };
  for (const row of rows) {
    const number = Number(row[track]);
    const points = tracks.points.get(number) ?? [];
    points.push({ t: Number(row[t]), x: Number(row[x]), y: Number(row[y]) });
    tracks.points.set(number, points);
    const origin = row[parent];
    if (origin !== null && Number(origin) > 0) tracks.parents.set(number, Number(origin));
  }
  for (const points of tracks.points.values()) points.sort((one, other) => one.t - other.t);
  return tracks;
}

/** Return what draws the tails that end in a frame, and a mark where a cell divided within them. */
export function trackPainter(tracks: Tracks, frame: number): Painter {
  return (context, view) => {
    context.lineWidth = 2;
    context.lineJoin = "round";
    const divisions: TrackPoint[] = [];
    for (const [number, points] of tracks.points) {
      const tail = points.filter((point) => point.t <= frame && point.t > frame - TAIL);
      if (tail.length === 0 || !tail.some((point) => inView(view, point))) continue;
      context.strokeStyle = cssColour(labelColour(number));
      line(context, view, tail);
      const parent = tracks.points.get(tracks.parents.get(number) ?? 0)?.at(-1);
      if (parent === undefined || tail[0] !== points[0]) continue;
      context.setLineDash([4, 3]);
      line(context, view, [parent, tail[0]!]);
      context.setLineDash([]);
      divisions.push(parent);
    }
    // After all lines, or a track that passes would hide them.
    for (const division of divisions) mark(context, view, division);
  };
}

function line(context: CanvasRenderingContext2D, view: View, points: TrackPoint[]): void {
  context.beginPath();
  for (const { x, y } of points) context.lineTo(view.x + (x + 0.5) * view.scale, view.y + (y + 0.5) * view.scale);
  context.stroke();
}

/** A diamond at the place where a cell divided. */
function mark(context: CanvasRenderingContext2D, view: View, { x, y }: TrackPoint): void {
  const [left, top] = [view.x + (x + 0.5) * view.scale, view.y + (y + 0.5) * view.scale];
  context.beginPath();
  context.moveTo(left, top - MARK);
  context.lineTo(left + MARK, top);
  context.lineTo(left, top + MARK);
  context.lineTo(left - MARK, top);
  context.closePath();
  context.fillStyle = "#ffffff";
  context.fill();
  context.lineWidth = 1.5;
  context.strokeStyle = "#000000";
  context.stroke();
}

function inView(view: View, { x, y }: TrackPoint): boolean {
  const [left, top] = [view.x + x * view.scale, view.y + y * view.scale];
  return left >= 0 && top >= 0 && left <= view.width && top <= view.height;
}
