import type { ReactElement } from "react";

import type { Look, Tiled } from "../picture/imageSource";
import { Picture } from "../picture/Picture";
import type { Overlay } from "./useOverlay";

interface Props {
  label: string;
  tiled: Tiled;
  look: Look;
  overlay: Overlay;
}

/** The image with the objects of an answer. */
export function Stage({ label, tiled, look, overlay }: Props): ReactElement {
  return (
    <Picture
      label={label}
      tiled={tiled}
      look={look}
      labels={overlay.labels}
      style={overlay.style}
      colours={overlay.colours}
      painters={overlay.painters}
      centre={overlay.centre}
      onHover={overlay.hover}
      onPick={overlay.pick}
    />
  );
}
