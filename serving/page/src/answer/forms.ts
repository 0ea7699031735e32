/** The forms of answers in words. */

interface FormWords {
  name: string;
  suffix: string;
}

const FORMS: Record<string, FormWords> = {
  "image/tiff": { name: "TIFF image", suffix: ".tif" },
  "application/json": { name: "Table (JSON)", suffix: ".json" },
  "application/geo+json": { name: "Polygons for QuPath (GeoJSON)", suffix: ".geojson" },
  "image/png": { name: "Picture with the answer (PNG)", suffix: ".png" },
  "image/png; content=labels": { name: "Label image (PNG)", suffix: ".png" },
  "image/png; content=heatmap": { name: "Pixels that decided (PNG)", suffix: ".png" },
  "text/csv": { name: "Table (CSV)", suffix: ".csv" },
  "text/csv; content=divisions": { name: "Divisions (CSV)", suffix: ".csv" },
  "application/vnd.apache.arrow.stream": { name: "Table (Arrow)", suffix: ".arrows" },
  "application/zip": { name: "Cell Tracking Challenge (ZIP)", suffix: ".zip" },
  "application/zip; content=geff": { name: "GEFF graph (ZIP)", suffix: ".zip" },
  "application/x-safetensors": { name: "Arrays for programs (safetensors)", suffix: ".safetensors" },
};

export function formName(mediaType: string, kind: string): string {
  if (mediaType === "image/tiff" && kind === "labels") return "Label image (TIFF)";
  if (mediaType === "image/png" && kind === "image") return "Picture (PNG)";
  return FORMS[mediaType]?.name ?? mediaType;
}

export function suffixOf(mediaType: string): string {
  return FORMS[mediaType]?.suffix ?? "";
}
