import type { View } from "./view";

/** Draws shapes over the image; coordinates are those of the frame. */
export type Painter = (context: CanvasRenderingContext2D, view: View) => void;

/** The canvas for shapes: tracks, boxes, the outline that a person draws. */
export interface VectorLayer {
  show(painters: Painter[]): void;
  follow(view: View): void;
  destroy(): void;
}

export function createVectorLayer(frame: HTMLElement): VectorLayer {
  const canvas = document.createElement("canvas");
  canvas.className = "vectors";
  canvas.setAttribute("aria-hidden", "true");
  frame.append(canvas);
  const context = canvas.getContext("2d")!;
  let painters: Painter[] = [];
  let view: View | null = null;
  let empty = true;

  function draw(): void {
    if (view === null || (empty && painters.length === 0)) return;
    const ratio = window.devicePixelRatio;
    const [width, height] = [Math.round(view.width * ratio), Math.round(view.height * ratio)];
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      canvas.style.width = `${view.width}px`;
      canvas.style.height = `${view.height}px`;
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, view.width, view.height);
    for (const painter of painters) painter(context, view);
    empty = painters.length === 0;
  }

  return {
    show(next) {
      painters = next;
      draw();
    },
    follow(next) {
      view = next;
      draw();
    },
    destroy: () => canvas.remove(),
  };
}
