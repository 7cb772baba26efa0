/** What `/asyncapi.json` tells of the sockets, in the form that the page shows. */
import { SERVER } from "../shared/base.js";

interface Reference {
  $ref: string;
}

export interface Schema {
  $ref?: string;
  type?: string | string[];
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
  oneOf?: Schema[];
  enum?: unknown[];
  const?: unknown;
  minimum?: number;
  maximum?: number;
  maxLength?: number;
}

interface Message {
  title: string;
  payload: Reference;
  examples: { payload: unknown }[];
}

interface Channel {
  address: string;
  title: string;
  description: string;
  "x-close-codes": Record<string, string>;
}

interface Operation {
  action: "send" | "receive";
  channel: Reference;
  title: string;
  description: string;
  messages: Reference[];
  reply?: { messages: Reference[] };
}

interface Document {
  channels: Record<string, Channel & { messages: Record<string, Reference> }>;
  operations: Record<string, Operation>;
  components: { schemas: Record<string, Schema>; messages: Record<string, Message> };
}

export interface Field {
  name: string;
  type: string;
  needed: boolean;
  about: string;
}

/** A command or an event. */
export interface Entry {
  id: string;
  kind: "command" | "event";
  name: string;
  about: string;
  /** The fields of `data` or `payload`, or of the message if it has neither. */
  fields: Field[];
  example: unknown;
  replies: { title: string; example: unknown }[];
  /** What a search looks at. */
  text: string;
}

export interface Socket {
  id: string;
  address: string;
  title: string;
  about: string;
  closeCodes: [string, string][];
  entries: Entry[];
}

export async function load(): Promise<Socket[]> {
  const answer = await fetch(`${SERVER}/asyncapi.json`);
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  const document: Document = await answer.json();
  return Object.entries(document.channels).map(([id, channel]) => ({
    id,
    address: channel.address,
    title: channel.title,
    about: channel.description,
    closeCodes: Object.entries(channel["x-close-codes"]),
    entries: Object.entries(document.operations)
      .filter(([, { channel }]) => last(channel) === id)
      .map(([name, operation]) => entryOf(document, name, operation))
      .sort((one, other) => one.kind.localeCompare(other.kind)),
  }));
}

const last = ({ $ref }: { $ref: string }) => $ref.slice($ref.lastIndexOf("/") + 1);

function entryOf({ components }: Document, id: string, operation: Operation): Entry {
  const messageOf = (reference: Reference) => components.messages[last(reference)]!;
  const message = messageOf(operation.messages[0]!);
  const payload = components.schemas[last(message.payload)] ?? {};
  const inner = payload.properties?.["data"] ?? payload.properties?.["payload"] ?? payload;
  const shape = inner.$ref === undefined ? inner : components.schemas[last({ $ref: inner.$ref })] ?? {};
  const fields = Object.entries(shape.properties ?? {}).map(([name, schema]) => ({
    name,
    type: typeOf(schema),
    needed: shape.required?.includes(name) ?? false,
    about: schema.description ?? "",
  }));
  const kind = operation.action === "receive" ? "command" : "event";
  const names = fields.map(({ name, about }) => `${name} ${about}`);
  return {
    id,
    kind,
    name: operation.title,
    about: operation.description,
    fields,
    example: message.examples[0]?.payload,
    replies: (operation.reply?.messages ?? []).map(messageOf).map(({ title, examples }) => ({
      title,
      example: examples[0]?.payload,
    })),
    text: [kind, operation.title, operation.description, ...names].join(" ").toLowerCase(),
  };
}

function typeOf(schema: Schema): string {
  if (schema.$ref !== undefined) return last({ $ref: schema.$ref });
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices !== undefined) return choices.map(typeOf).join(" | ");
  if (schema.items !== undefined) return `${typeOf(schema.items)}[]`;
  const { type = "any", minimum, maximum, maxLength } = schema;
  const bounds =
    maxLength !== undefined ? `, up to ${maxLength}`
    : minimum !== undefined && maximum !== undefined ? `, ${minimum} to ${maximum}`
    : "";
  return [type].flat().join(" | ") + bounds;
}
