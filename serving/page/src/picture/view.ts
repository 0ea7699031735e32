import OpenSeadragon from "openseadragon";

/** Where the image is in its frame: pixel p of the image is drawn at `x + p * scale`, in CSS pixels. */
export interface View {
  x: number;
  y: number;
  scale: number;
  width: number;
  height: number;
}

/** Return where the image is drawn now, in the middle of a movement too. */
export function viewOf(viewer: OpenSeadragon.Viewer, imageWidth: number): View {
  const origin = viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
  const end = viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(1, 0), true);
  const size = viewer.viewport.getContainerSize();
  return { x: origin.x, y: origin.y, scale: (end.x - origin.x) / imageWidth, width: size.x, height: size.y };
}

/** Return the pixel of the image under a position in the frame. */
export function imagePoint(view: View, x: number, y: number): { x: number; y: number } {
  return { x: (x - view.x) / view.scale, y: (y - view.y) / view.scale };
}
