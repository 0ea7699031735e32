import type OpenSeadragon from "openseadragon";
import type { ReactElement, RefObject } from "react";
import { useEffect, useRef, useState } from "react";

import { Notice } from "../parts/Notice";
import type { Refusal } from "../service/refusal";
import { asRefusal } from "../service/refusal";
import { createImageLayer } from "./imageLayer";
import type { ImageLayer } from "./imageLayer";
import type { Look, Tiled } from "./imageSource";
import { createLabelLayer } from "./labelLayer";
import type { LabelLayer } from "./labelLayer";
import type { LabelStyle, LabelTiles } from "./labelMessages";
import type { Painter, VectorLayer } from "./vectors";
import { createVectorLayer } from "./vectors";
import type { View } from "./view";
import { imagePoint, viewOf } from "./view";
import { createViewer } from "./viewer";
import { ViewButtons } from "./ViewButtons";

export interface Place {
  x: number;
  y: number;
}

/** A drag or click with the tool of an editor, in pixels of the image. */
export interface Gesture {
  phase: "press" | "drag" | "release";
  points: Place[];
}

export interface PictureProps {
  label: string;
  tiled: Tiled;
  look: Look;
  labels?: LabelTiles | null;
  style?: LabelStyle;
  colours?: Uint32Array | null;
  painters?: Painter[];
  /** The picture moves there when the object changes. */
  centre?: Place | null;
  onHover?: (label: number, at: Place | null) => void;
  onPick?: (label: number, at: Place, several: boolean) => void;
  /** If set, a drag is for the editor and does not move the picture. */
  onGesture?: ((gesture: Gesture) => void) | null;
  viewer?: (viewer: OpenSeadragon.Viewer | null) => void;
}

interface Layers {
  viewer: OpenSeadragon.Viewer;
  image: ImageLayer;
  labels: LabelLayer;
  vectors: VectorLayer;
}

const NO_PAINTERS: Painter[] = [];
const NO_LABELS: LabelStyle = { mode: "outlines", opacity: 1, lineWidth: 2, selected: [] };

/** An image that one can move in, with labels and shapes over it. To show another image, give it another key. */
export function Picture(props: PictureProps): ReactElement {
  const {
    tiled,
    look,
    labels = null,
    style = NO_LABELS,
    colours = null,
    painters = NO_PAINTERS,
    centre = null,
  } = props;
  const frame = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  latest.current = props;
  const [layers, setLayers] = useState<Layers | null>(null);
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  const imageWidth = tiled.levels[0]?.width ?? 1;

  useEffect(() => {
    const made = createLayers(frame.current!, latest, setRefusal);
    const follow = (): void => {
      const view = viewOf(made.viewer, latest.current.tiled.levels[0]?.width ?? 1);
      made.labels.follow(view);
      made.vectors.follow(view);
    };
    for (const event of ["update-viewport", "resize", "open"] as const) made.viewer.addHandler(event, follow);
    const end = followPointer(made, latest);
    setLayers(made);
    latest.current.viewer?.(made.viewer);
    return () => {
      end();
      latest.current.viewer?.(null);
      made.labels.destroy();
      made.vectors.destroy();
      made.viewer.destroy();
      setLayers(null);
    };
  }, []);

  useEffect(() => layers?.image.show(tiled, look), [layers, tiled, look]);
  useEffect(() => layers?.labels.setColours(colours), [layers, colours]);
  useEffect(() => layers?.labels.show(labels, style), [layers, labels, style]);
  useEffect(() => layers?.vectors.show(painters), [layers, painters]);
  const editing = Boolean(props.onGesture);
  useEffect(() => {
    layers?.viewer.setMouseNavEnabled(!editing);
  }, [layers, editing]);
  useEffect(() => {
    if (layers !== null && centre !== null) moveTo(layers.viewer, centre, imageWidth);
  }, [layers, centre, imageWidth]);

  const retry = (): void => {
    setRefusal(null);
    layers?.image.show(tiled, look);
    layers?.labels.retry();
  };
  return (
    <div className="picture">
      <div className="frame" ref={frame} />
      {layers && <ViewButtons viewer={layers.viewer} />}
      {refusal && <Notice refusal={refusal} onRetry={retry} />}
    </div>
  );
}

function createLayers(
  frame: HTMLDivElement,
  latest: RefObject<PictureProps>,
  setRefusal: (refusal: Refusal | null) => void,
): Layers {
  const viewer = createViewer(
    frame,
    `${latest.current.label}. Arrow keys move it, plus and minus change its size, 0 shows all of it.`,
  );
  return {
    viewer,
    image: createImageLayer(viewer, (error) => setRefusal(asRefusal(error))),
    labels: createLabelLayer(viewer.canvas, setRefusal),
    vectors: createVectorLayer(viewer.canvas),
  };
}

function moveTo(viewer: OpenSeadragon.Viewer, { x, y }: Place, imageWidth: number): void {
  const point = viewer.viewport.getCenter();
  point.x = x / imageWidth;
  point.y = y / imageWidth;
  viewer.viewport.panTo(point);
}

/** Report what is under the pointer, clicks, and drags for an editor; returns the function that ends it. */
function followPointer(layers: Layers, latest: RefObject<PictureProps>): () => void {
  const element = layers.viewer.canvas;
  const place = (event: PointerEvent | MouseEvent): Place => {
    const box = element.getBoundingClientRect();
    return imagePoint(currentView(layers, latest), event.clientX - box.left, event.clientY - box.top);
  };
  let asking = false;
  let points: Place[] | null = null;

  const move = (event: PointerEvent): void => {
    const at = place(event);
    if (points !== null) {
      points.push(at);
      latest.current.onGesture?.({ phase: "drag", points });
    }
    if (asking || latest.current.onHover === undefined) return;
    asking = true;
    void layers.labels.labelAt(at.x, at.y).then((label) => {
      asking = false;
      latest.current.onHover?.(label, at);
    });
  };
  const leave = (): void => latest.current.onHover?.(0, null);
  const press = (event: PointerEvent): void => {
    if (!latest.current.onGesture || event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    points = [place(event)];
    latest.current.onGesture({ phase: "press", points });
  };
  const release = (): void => {
    if (points === null) return;
    latest.current.onGesture?.({ phase: "release", points });
    points = null;
  };
  // OpenSeadragon reports a click only if the pointer did not move.
  const click = (event: OpenSeadragon.CanvasClickEvent): void => {
    if (!event.quick || latest.current.onPick === undefined) return;
    const mouse = event.originalEvent as MouseEvent;
    const at = place(mouse);
    void layers.labels.labelAt(at.x, at.y).then((label) => latest.current.onPick?.(label, at, mouse.shiftKey));
  };
  element.addEventListener("pointermove", move);
  element.addEventListener("pointerleave", leave);
  element.addEventListener("pointerdown", press);
  element.addEventListener("pointerup", release);
  element.addEventListener("pointercancel", release);
  layers.viewer.addHandler("canvas-click", click);
  return () => {
    element.removeEventListener("pointermove", move);
    element.removeEventListener("pointerleave", leave);
    element.removeEventListener("pointerdown", press);
    element.removeEventListener("pointerup", release);
    element.removeEventListener("pointercancel", release);
  };
}

function currentView({ viewer }: Layers, latest: RefObject<PictureProps>): View {
  return viewOf(viewer, latest.current.tiled.levels[0]?.width ?? 1);
}
