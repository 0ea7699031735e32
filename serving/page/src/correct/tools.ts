/** The tools of the editor: what a gesture in the picture means, and how it is drawn. */

import type { Gesture, Place } from "../picture/Picture";
import type { Painter } from "../picture/vectors";
import type { Level } from "../service/contract";
import type { Edit, Point, Region } from "../service/datasets";

export type Tool = "select" | "outline" | "brush" | "eraser" | "split" | "region";

export const TOOLS: { tool: Tool; name: string; key: string; help: string }[] = [
  {
    tool: "select",
    name: "Select",
    key: "v",
    help: "Click objects; hold Shift to select several. Drag to move the picture.",
  },
  { tool: "outline", name: "Add", key: "a", help: "Draw the outline of a new object." },
  { tool: "brush", name: "Brush", key: "b", help: "Paint the selected object larger; without one, a new one." },
  { tool: "eraser", name: "Eraser", key: "e", help: "Erase a part of the selected object." },
  { tool: "split", name: "Split", key: "s", help: "Draw a line through the selected object." },
  { tool: "region", name: "Finished region", key: "f", help: "Draw around a region in which everything is correct." },
];

const NEAREST = 0.5; // pixels of the image between two points of a line

/** Return the edit that a finished gesture means, or the sentence that says why there is none. */
export function editOf(
  tool: Tool,
  points: Place[],
  place: { t: number; z: number },
  selected: number[],
  radius: number,
): Edit | string {
  const path = thinned(points);
  const label = selected.length === 1 ? selected[0]! : null;
  switch (tool) {
    case "outline":
      return path.length < 3
        ? "An outline needs more points: draw around the object."
        : { op: "add", ...place, outline: path };
    case "region":
      return path.length < 3
        ? "A region needs more points: draw around it."
        : { op: "finish", region: { ...place, outline: path } };
    case "brush":
    case "eraser":
      if (label === null && (tool === "eraser" || selected.length > 1)) return "Select one object first.";
      return { op: "paint", label, ...place, stroke: path, radius, erase: tool === "eraser" };
    case "split":
      if (label === null) return "Select one object first.";
      return path.length < 2 ? "Draw a line through the object." : { op: "split", label, t: place.t, line: path };
    case "select":
      return "";
  }
}

/** Return what draws a gesture. */
export function gesturePainter(tool: Tool, gesture: Gesture, radius: number): Painter {
  return (context, view) => {
    const wide = tool === "brush" || tool === "eraser";
    context.beginPath();
    for (const { x, y } of gesture.points) context.lineTo(view.x + x * view.scale, view.y + y * view.scale);
    // A line of no length is not drawn, but a dab of the brush is one.
    if (gesture.points.length === 1)
      context.lineTo(view.x + gesture.points[0]!.x * view.scale + 0.1, view.y + gesture.points[0]!.y * view.scale);
    if (tool === "outline" || tool === "region") context.closePath();
    context.lineCap = "round";
    context.lineJoin = "round";
    context.lineWidth = wide ? 2 * radius * view.scale : 2;
    context.strokeStyle = tool === "eraser" ? "rgb(255 80 80 / 60%)" : wide ? "rgb(255 255 255 / 50%)" : "#ffffff";
    context.stroke();
  };
}

/** Return what draws the finished regions of a plane and frame. */
export function regionPainter(regions: Region[], place: { t: number; z: number }, whole: Level): Painter {
  return (context, view) => {
    context.setLineDash([8, 5]);
    context.lineWidth = 2;
    context.strokeStyle = "#7dff9b";
    for (const { t, z, outline } of regions) {
      if ((t ?? place.t) !== place.t || (z ?? place.z) !== place.z) continue;
      context.beginPath();
      for (const [x, y] of outline ?? cornersOf(whole)) context.lineTo(view.x + x * view.scale, view.y + y * view.scale);
      context.closePath();
      context.stroke();
    }
    context.setLineDash([]);
  };
}

function cornersOf({ width, height }: Level): Point[] {
  return [
    [0, 0],
    [width, 0],
    [width, height],
    [0, height],
  ];
}

/** Drop the points that add nothing. */
function thinned(points: Place[]): Point[] {
  const path: Point[] = [];
  for (const { x, y } of points) {
    const last = path.at(-1);
    if (last !== undefined && Math.hypot(last[0] - x, last[1] - y) < NEAREST) continue;
    path.push([Math.round(x * 10) / 10, Math.round(y * 10) / 10]);
  }
  return path;
}
