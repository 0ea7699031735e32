import type OpenSeadragon from "openseadragon";
import type { ReactElement } from "react";
import { useEffect, useMemo, useState } from "react";

import { ChannelPanel } from "../picture/ChannelPanel";
import type { Look, Tiled } from "../picture/imageSource";
import { Picture } from "../picture/Picture";
import { useChannels } from "../picture/useChannels";
import { linkViewers } from "../picture/viewer";
import { answerAddress, imageAddress } from "../service/calls";
import type { StoredAnswer, StoredImage } from "../service/contract";

interface Props {
  image: StoredImage;
  answer: StoredAnswer;
  look: Look;
  place: { t: number; z: number };
}

/** A predicted image beside its input; both show the same place. */
export function Prediction({ image, answer, look, place }: Props): ReactElement {
  const channels = useMemo(() => answer.channels ?? [], [answer]);
  const predicted = useChannels({ channels }, place);
  const [input, setInput] = useState<OpenSeadragon.Viewer | null>(null);
  const [output, setOutput] = useState<OpenSeadragon.Viewer | null>(null);
  const inputTiles = useMemo<Tiled>(() => ({ ...image, address: imageAddress(image.id) }), [image]);
  const outputTiles = useMemo<Tiled>(
    () => ({
      address: answerAddress(image.id, answer.id),
      levels: answer.levels,
      tile: answer.tile,
      rgb: false,
      channels,
    }),
    [image, answer, channels],
  );
  useEffect(() => (input !== null && output !== null ? linkViewers(input, output) : undefined), [input, output]);
  return (
    <>
      <div className="pair">
        <figure>
          <figcaption>Image</figcaption>
          <Picture label={`Image ${image.name}`} tiled={inputTiles} look={look} viewer={setInput} />
        </figure>
        <figure>
          <figcaption>Predicted</figcaption>
          <Picture
            label={`Predicted image of ${image.name}`}
            tiled={outputTiles}
            look={predicted.look}
            viewer={setOutput}
          />
        </figure>
      </div>
      {channels.length > 0 && (
        <details className="predicted-channels">
          <summary>Contrast of the predicted image</summary>
          <ChannelPanel channels={channels} settings={predicted.settings} onChange={predicted.change} />
        </details>
      )}
    </>
  );
}
