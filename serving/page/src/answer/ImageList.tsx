import type { ReactElement } from "react";
import { useState } from "react";

import { Notice } from "../parts/Notice";
import { routeTo } from "../parts/route";
import { useAction } from "../parts/useAction";
import { megabytes, moment } from "../parts/words";
import { deleteImage } from "../service/calls";
import type { StoredImage } from "../service/contract";

interface Props {
  images: StoredImage[];
  current: string | undefined;
  onDeleted: (id: string) => void;
}

/** The images that the service keeps for the person. */
export function ImageList({ images, current, onDeleted }: Props): ReactElement {
  const action = useAction();
  const [asked, setAsked] = useState<string | null>(null);
  const remove = (image: StoredImage): void => {
    setAsked(null);
    void action.run(`Deleting ${image.name}`, async () => {
      await deleteImage(image.id);
      onDeleted(image.id);
    });
  };
  return (
    <section className="panel" aria-labelledby="images-title">
      <h2 id="images-title">Your images</h2>
      {images.length === 0 && (
        <p className="hint">No images yet. The service keeps an image until 24 hours after its last use.</p>
      )}
      <ul className="list">
        {images.map((image) => (
          <li key={image.id} className={image.id === current ? "current" : ""}>
            <a href={routeTo("images", image.id)} aria-current={image.id === current ? "page" : undefined}>
              <span className="name">{image.name}</span>
              <span className="hint">
                {sizeOf(image)}, {megabytes(image.bytes)}, kept until {moment(image.expires)}
              </span>
            </a>
            {asked === image.id ? (
              <span className="confirm">
                <button type="button" className="danger" onClick={() => remove(image)}>
                  Delete
                </button>
                <button type="button" className="quiet" onClick={() => setAsked(null)}>
                  Keep
                </button>
              </span>
            ) : (
              <button
                type="button"
                className="quiet"
                aria-label={`Delete ${image.name}`}
                title="Delete"
                onClick={() => setAsked(image.id)}
              >
                ✕
              </button>
            )}
          </li>
        ))}
      </ul>
      {action.refusal && <Notice refusal={action.refusal} onRetry={action.retry} />}
    </section>
  );
}

/** The size of an image in words, such as "512 × 512, 2 channels, 10 frames". */
export function sizeOf({ axes, rgb }: Pick<StoredImage, "axes" | "rgb">): string {
  const several = (count: number | undefined, word: string): string[] => ((count ?? 1) > 1 ? [`${count} ${word}`] : []);
  return [
    `${axes.X} × ${axes.Y}`,
    ...(rgb ? ["RGB"] : several(axes.C, "channels")),
    ...several(axes.Z, "planes"),
    ...several(axes.T, "frames"),
  ].join(", ");
}
