import OpenSeadragon from "openseadragon";

import type { Look, Tiled } from "./imageSource";
import { imageSource } from "./imageSource";

/**
 * The picture itself: replaced as a whole if its look changes.
 *
 * The picture before stays below the new one until all tiles in view have arrived, so that sliders do not flicker.
 */
export interface ImageLayer {
  show(tiled: Tiled, look: Look): void;
}

export function createImageLayer(viewer: OpenSeadragon.Viewer, onError: (error: unknown) => void): ImageLayer {
  let number = 0;

  return {
    show(tiled, look) {
      number += 1;
      const mine = number;
      const before = items(viewer);
      viewer.addTiledImage({
        tileSource: imageSource(tiled, look, onError),
        x: 0,
        y: 0,
        width: 1,
        success: (event) => {
          const item = (event as unknown as { item: OpenSeadragon.TiledImage }).item;
          if (mine !== number) {
            viewer.world.removeItem(item);
            return;
          }
          const finish = (): void => {
            for (const old of before) if (items(viewer).includes(old)) viewer.world.removeItem(old);
          };
          if (item.getFullyLoaded()) finish();
          else item.addOnceHandler("fully-loaded-change", finish);
          // Of several pictures that are not loaded yet only the newest is worth loading.
          for (const old of before.slice(1)) if (items(viewer).includes(old)) viewer.world.removeItem(old);
        },
      });
    },
  };
}

function items(viewer: OpenSeadragon.Viewer): OpenSeadragon.TiledImage[] {
  return Array.from({ length: viewer.world.getItemCount() }, (_, place) => viewer.world.getItemAt(place));
}
