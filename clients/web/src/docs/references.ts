/** Resolves references inside of `/openapi.json`, for Swagger UI.
 *
 * Its own resolver reads documents of many kinds from anywhere: it needs seconds for this one, on the
 * page's main thread. Here all references point into the document itself. */

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** The part of the document at that path, with what its references name in their place. A schema that
 * contains itself keeps the inner reference. */
export async function resolveSubtree(
  document: Json,
  path: readonly string[],
): Promise<{ spec: Json | undefined; errors: [] }> {
  return { spec: resolved(document, at(document, path), []), errors: [] };
}

const at = (value: Json | undefined, path: readonly string[]): Json | undefined =>
  path.reduce<Json | undefined>((one, name) => (one as Record<string, Json> | undefined)?.[name], value);

function resolved<Value extends Json | undefined>(document: Json, value: Value, within: string[]): Value {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((one) => resolved(document, one, within)) as Value;
  const { $ref, ...rest } = value as Record<string, Json>;
  if (typeof $ref === "string") {
    const target = at(document, $ref.slice(2).split("/").map(unescaped));
    if (within.includes($ref) || typeof target !== "object" || target === null) return value;
    const whole = resolved(document, target, [...within, $ref]) as Record<string, Json>;
    return { ...whole, ...rest, $$ref: $ref } as unknown as Value;
  }
  const entries = Object.entries(value).map(([name, one]) => [name, resolved(document, one, within)]);
  return Object.fromEntries(entries) as Value;
}

const unescaped = (name: string) => name.replaceAll("~1", "/").replaceAll("~0", "~");
