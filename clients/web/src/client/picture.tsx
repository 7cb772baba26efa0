/** The picture of a world: its thumbnail, or hills in a colour of its own. */
import { useEffect, useState } from "preact/hooks";

import { SERVER } from "../shared/base.js";
import type { World } from "./live_lists.js";
import { hueOf } from "./scene/look.js";
import { client } from "./session.js";

export function Picture({ id, world }: { id: string; world: World | undefined }) {
  const [source, setSource] = useState<string | undefined>(undefined);
  const stamp = world?.thumbnail ? `${id} ${world.updated_at}` : undefined;
  useEffect(() => {
    setSource(undefined);
    if (stamp === undefined) return undefined;
    const cancel = new AbortController();
    let url: string | undefined;
    // Private worlds show theirs to some users only, so the request needs the credential.
    const headers: Record<string, string> = client.token ? { Authorization: `Bearer ${client.token}` } : {};
    fetch(`${SERVER}/api/worlds/${id}/thumbnail`, { headers, signal: cancel.signal })
      .then((answer) => (answer.ok ? answer.blob() : undefined))
      .then((blob) => {
        if (!blob || cancel.signal.aborted) return;
        url = URL.createObjectURL(blob);
        setSource(url);
      })
      .catch(() => {}); // the drawn picture stays
    return () => {
      cancel.abort();
      if (url) URL.revokeObjectURL(url);
    };
  }, [stamp]);
  if (source) return <img class="picture" src={source} alt="" />;
  const hue = Math.round(hueOf(id) * 360);
  const shift = hue % 40;
  return (
    <svg class="picture" viewBox="0 0 160 90" preserveAspectRatio="xMidYMid slice" aria-hidden="true">
      <rect width="160" height="90" fill={`hsl(${hue} 55% 80%)`} />
      <circle cx={40 + 2 * shift} cy="30" r="10" fill={`hsl(${hue} 80% 94%)`} />
      <path d={`M0 62 Q${30 + shift} 34 80 58 T160 50 V90 H0z`} fill={`hsl(${hue} 38% 62%)`} />
      <path d={`M0 76 Q40 ${58 - shift / 8} 92 74 T160 68 V90 H0z`} fill={`hsl(${hue} 40% 46%)`} />
      <path d="M0 86 Q70 74 160 84 V90 H0z" fill={`hsl(${hue} 42% 36%)`} />
    </svg>
  );
}
