import type { DragEvent, FormEvent, ReactElement } from "react";
import { useRef, useState } from "react";

import { Busy } from "../parts/Busy";
import { Notice } from "../parts/Notice";
import { useAction } from "../parts/useAction";
import { megabytes } from "../parts/words";
import { blurredDisks, SIZE } from "../samples/disks";
import { greyTiff } from "../samples/tiff";
import { sendImage, sendUri } from "../service/calls";
import type { StoredImage } from "../service/contract";
import { Refusal } from "../service/refusal";

interface Props {
  limitMegabytes: number | null;
  onStored: (image: StoredImage) => void;
}

/** The ways to bring an image: a file, an address, or one that the page draws. */
export function ImageIntake({ limitMegabytes, onStored }: Props): ReactElement {
  const action = useAction();
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  const [uri, setUri] = useState("");

  const send = async (files: File[]): Promise<void> => {
    for (const file of files) {
      const sent = await action.run(`Sending ${file.name} (${megabytes(file.size)})`, async (signal) => {
        checkSize(file, limitMegabytes);
        onStored(await sendImage(file, file.name, signal));
      });
      if (!sent) break;
    }
  };
  const drop = (event: DragEvent): void => {
    event.preventDefault();
    setOver(false);
    void send([...event.dataTransfer.files]);
  };
  const openUri = (event: FormEvent): void => {
    event.preventDefault();
    void action.run("Opening the image", async (signal) => {
      onStored(await sendUri(uri.trim(), signal));
      setUri("");
    });
  };
  const sample = (): void => {
    const seed = Date.now() % 100000;
    void send([new File([greyTiff(blurredDisks(seed), SIZE, SIZE)], `made-sample-${seed}.tif`)]);
  };
  return (
    <section className="panel" aria-labelledby="intake-title">
      <h2 id="intake-title">New image</h2>
      <div
        className={over ? "drop over" : "drop"}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={drop}
      >
        <p>Drop an image here, or</p>
        <button type="button" onClick={() => input.current?.click()} disabled={action.busy !== null}>
          Choose files
        </button>
        <input
          ref={input}
          type="file"
          multiple
          hidden
          aria-label="Image files"
          onChange={(event) => {
            void send([...(event.target.files ?? [])]);
            event.target.value = "";
          }}
        />
        <button type="button" className="quiet" onClick={sample} disabled={action.busy !== null}>
          Try a made sample
        </button>
        {limitMegabytes !== null && <p className="hint">At most {limitMegabytes.toLocaleString("en")} MB.</p>}
      </div>
      <form className="uri" onSubmit={openUri}>
        <label htmlFor="uri">Address of an image that the service can read</label>
        <div className="line">
          <input
            id="uri"
            type="text"
            required
            spellCheck={false}
            placeholder="file:///data/x.ome.zarr"
            value={uri}
            onChange={(event) => setUri(event.target.value)}
          />
          <button type="submit" disabled={action.busy !== null}>
            Open
          </button>
        </div>
      </form>
      {action.busy !== null && <Busy label={action.busy} onCancel={action.cancel} />}
      {action.refusal && <Notice refusal={action.refusal} onRetry={action.retry} />}
    </section>
  );
}

function checkSize(file: File, limitMegabytes: number | null): void {
  if (file.size === 0) throw new Refusal(`${file.name} is empty.`, "Choose another file.", 0);
  if (limitMegabytes === null || file.size <= limitMegabytes * 1e6) return;
  throw new Refusal(
    `${file.name} has ${megabytes(file.size)}; the service accepts at most ${limitMegabytes.toLocaleString("en")} MB.`,
    "Put the file where the service can read it, and open its address.",
    413,
  );
}
