import { Refusal } from "../service/refusal";
import { currentToken } from "../service/session";
import type { FromWorker, LabelStyle, LabelTiles, Raster, ToWorker } from "./labelMessages";
import LabelWorker from "./labelWorker?worker";
import type { View } from "./view";

/** The labels over an image: a canvas that moves with the image, and the worker that draws it. */
export interface LabelLayer {
  /** Show labels, or nothing. */
  show(tiles: LabelTiles | null, style: LabelStyle): void;
  setColours(colours: Uint32Array | null): void;
  /** Follow the image; draws anew only if the drawing no longer covers what is in view. */
  follow(view: View): void;
  /** Return the label at a pixel of the image, 0 for none. */
  labelAt(x: number, y: number): Promise<number>;
  retry(): void;
  destroy(): void;
}

// The drawing is larger than the frame, so that short movements only move it.
const MARGIN = 0.15;
const LARGEST_RATIO = 2;
// Pixels of the image in one of the screen, from which on wide lines would cover the objects.
const FAR_AWAY = 2.5;

export function createLabelLayer(frame: HTMLElement, onError: (refusal: Refusal) => void): LabelLayer {
  const worker = new LabelWorker();
  const canvas = document.createElement("canvas");
  canvas.className = "labels";
  canvas.setAttribute("aria-hidden", "true");
  frame.append(canvas);
  const context = canvas.getContext("bitmaprenderer")!;
  const answers = new Map<number, (label: number) => void>();

  let tiles: LabelTiles | null = null;
  let style: LabelStyle | null = null;
  let view: View | null = null;
  let drawn: Raster | null = null;
  let asked: Raster | null = null;
  let count = 0;
  let busy = false;
  let stale = false;

  const send = (message: ToWorker): void => worker.postMessage(message);

  worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
    if (data.type === "label") {
      answers.get(data.number)?.(data.label);
      answers.delete(data.number);
    } else if (data.type === "failed") {
      onError(new Refusal(data.message, data.hint, data.status));
    } else {
      if (data.number === count) busy = false;
      if (tiles === null) {
        data.bitmap.close();
        return;
      }
      canvas.width = data.raster.width;
      canvas.height = data.raster.height;
      context.transferFromImageBitmap(data.bitmap);
      canvas.hidden = false;
      drawn = data.raster;
      place();
      if (stale) draw();
    }
  };

  function draw(): void {
    if (tiles === null || style === null || view === null || view.width < 1) return;
    stale = busy;
    if (busy) return;
    busy = true;
    count += 1;
    asked = rasterFor(view);
    const lineWidth = Math.max(1, Math.round((asked.step * ratio() > FAR_AWAY ? 1 : style.lineWidth) * ratio()));
    send({ type: "session", token: currentToken() });
    send({ type: "draw", number: count, tiles, style: { ...style, lineWidth }, raster: asked });
  }

  function place(): void {
    if (drawn === null || view === null) return;
    const scale = drawn.step * view.scale;
    const [left, top] = [view.x + drawn.x * view.scale, view.y + drawn.y * view.scale];
    canvas.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
  }

  return {
    show(nextTiles, nextStyle) {
      tiles = nextTiles;
      style = nextStyle;
      if (tiles === null) {
        canvas.hidden = true;
        drawn = null;
      } else draw();
    },
    setColours(colours) {
      send({ type: "colours", colours });
      draw();
    },
    follow(next) {
      view = next;
      place();
      if (tiles !== null && !covers(asked, next)) draw();
    },
    labelAt(x, y) {
      return new Promise((resolve) => {
        const number = answers.size === 0 ? 1 : Math.max(...answers.keys()) + 1;
        answers.set(number, resolve);
        send({ type: "label", number, x, y });
      });
    },
    retry: draw,
    destroy() {
      worker.terminate();
      canvas.remove();
    },
  };
}

function ratio(): number {
  return Math.min(LARGEST_RATIO, window.devicePixelRatio);
}

/** Return the raster for a view: one pixel of the drawing for one of the screen, on whole pixels of the screen. */
function rasterFor(view: View): Raster {
  const step = 1 / (view.scale * ratio());
  const [marginX, marginY] = [Math.round(view.width * MARGIN), Math.round(view.height * MARGIN)];
  return {
    x: (-marginX - view.x) / view.scale,
    y: (-marginY - view.y) / view.scale,
    step,
    width: Math.round((view.width + 2 * marginX) * ratio()),
    height: Math.round((view.height + 2 * marginY) * ratio()),
  };
}

function covers(raster: Raster | null, view: View): boolean {
  if (raster === null) return false;
  const sameScale = Math.abs(raster.step * view.scale * ratio() - 1) < 1e-3;
  const [left, top] = [-view.x / view.scale, -view.y / view.scale];
  const [right, bottom] = [left + view.width / view.scale, top + view.height / view.scale];
  const inside =
    left >= raster.x &&
    top >= raster.y &&
    right <= raster.x + raster.width * raster.step &&
    bottom <= raster.y + raster.height * raster.step;
  return sameScale && inside;
}
