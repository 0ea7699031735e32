import OpenSeadragon from "openseadragon";

/**
 * Mark the document as if OpenSeadragon had added its inline styles, which the content security policy refuses.
 *
 * They only hide the focus of touch screens.
 */
function skipInlineStyle(): void {
  if (document.querySelector("style[data-openseadragon-mobile-css]") !== null) return;
  // Outside of the namespace of HTML it has the name of a style and is none, so that the policy has nothing to refuse.
  const style = document.createElementNS(null, "style");
  style.setAttribute("data-openseadragon-mobile-css", "true");
  document.head.append(style);
}

/** Return a viewer that draws on a canvas, without buttons of its own and without WebGL. */
export function createViewer(element: HTMLElement, label: string): OpenSeadragon.Viewer {
  skipInlineStyle();
  const viewer = OpenSeadragon({
    element,
    drawer: "canvas",
    showNavigationControl: false,
    showNavigator: false,
    animationTime: 0.3,
    springStiffness: 10,
    visibilityRatio: 0.3,
    minZoomImageRatio: 0.5,
    maxZoomPixelRatio: 40,
    // Only the level that is shown is fetched, not those below it.
    immediateRender: true,
    imageLoaderLimit: 6,
    maxImageCacheCount: 300,
    tileRetryMax: 1,
    tileRetryDelay: 1000,
    zoomPerClick: 1,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true, pinchRotate: false },
  } as OpenSeadragon.Options);
  // The pixels of an image are data: enlarged they stay squares.
  viewer.addHandler("open", () => setSmoothing(viewer));
  viewer.addHandler("zoom", () => setSmoothing(viewer));
  viewer.canvas.setAttribute("role", "application");
  viewer.canvas.setAttribute("aria-label", label);
  return viewer;
}

function setSmoothing(viewer: OpenSeadragon.Viewer): void {
  const image = viewer.world.getItemCount() > 0 ? viewer.world.getItemAt(0) : null;
  if (image === null) return;
  const zoom = image.viewportToImageZoom(viewer.viewport.getZoom(true));
  viewer.drawer.setImageSmoothingEnabled(zoom * window.devicePixelRatio < 1);
}

/** Keep two viewers at the same place; returns the function that ends it. */
export function linkViewers(one: OpenSeadragon.Viewer, other: OpenSeadragon.Viewer): () => void {
  let following = false;
  const follow = (leader: OpenSeadragon.Viewer, follower: OpenSeadragon.Viewer) => (): void => {
    if (following) return;
    following = true;
    follower.viewport.zoomTo(leader.viewport.getZoom(true), undefined, true);
    follower.viewport.panTo(leader.viewport.getCenter(true), true);
    following = false;
  };
  const pairs = [
    { viewer: one, handler: follow(one, other) },
    { viewer: other, handler: follow(other, one) },
  ];
  for (const { viewer, handler } of pairs) viewer.addHandler("viewport-change", handler);
  pairs[0]!.handler();
  return () => {
    for (const { viewer, handler } of pairs) viewer.removeHandler("viewport-change", handler);
  };
}
