import type OpenSeadragon from "openseadragon";
import type { ReactElement } from "react";

/** Buttons for what the wheel and the keys do. */
export function ViewButtons({ viewer }: { viewer: OpenSeadragon.Viewer }): ReactElement {
  const zoom = (factor: number) => (): void => {
    viewer.viewport.zoomBy(factor);
    viewer.viewport.applyConstraints();
  };
  return (
    <div className="view-buttons">
      <button type="button" aria-label="Enlarge" title="Enlarge" onClick={zoom(1.5)}>
        +
      </button>
      <button type="button" aria-label="Reduce" title="Reduce" onClick={zoom(1 / 1.5)}>
        −
      </button>
      <button type="button" onClick={() => viewer.viewport.goHome()}>
        All
      </button>
    </div>
  );
}
