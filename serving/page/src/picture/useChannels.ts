import { useEffect, useMemo, useState } from "react";

import type { Channel } from "../service/contract";
import type { ChannelSetting } from "./channelSettings";
import { keepSettings, loadSettings } from "./channelSettings";
import type { Look } from "./imageSource";

export interface Channels {
  settings: ChannelSetting[];
  look: Look;
  change: (settings: ChannelSetting[], moving: boolean) => void;
}

const STILL_MILLISECONDS = 300;

/** The look of the channels of an image at a place in time and depth. */
export function useChannels({ channels }: { channels: Channel[] }, place: { t: number; z: number }): Channels {
  const [settings, setSettings] = useState(() => loadSettings(channels));
  const [moving, setMoving] = useState(false);
  useEffect(() => {
    if (!moving) return undefined;
    const timer = setTimeout(() => setMoving(false), STILL_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [moving, settings]);
  const look = useMemo(
    () => ({
      ...place,
      channels: settings.map(({ visible, ...appearance }) => (visible ? appearance : null)),
      exact: !moving,
    }),
    [settings, moving, place],
  );
  const change: Channels["change"] = (next, nextMoving) => {
    setSettings(next);
    setMoving(nextMoving);
    keepSettings(channels, next);
  };
  return { settings, look, change };
}
