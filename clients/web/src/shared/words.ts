/** Errors in words for a person. */
import { Disconnected, ErrorCode, ProtocolError, QueueEnded, Refused, TimedOut } from "reileta-client";

/** What an error means. Fields of a form have words of their own: see `fieldWords`. */
export function words(error: unknown): string {
  if (error instanceof Refused) return refusal(error);
  if (error instanceof Disconnected) return "The server can't be reached. Check the network, and try again.";
  if (error instanceof TimedOut) return "The server did not answer in time. Try again in a moment.";
  if (error instanceof ProtocolError) return "The answer is not that of a Reileta server.";
  if (error instanceof QueueEnded) return `Your place in line is gone: ${QUEUE_ENDS[error.reason] ?? error.reason}.`;
  return error instanceof Error ? error.message : String(error);
}

/** The sentences of a refusal by field, to be shown beside each. */
export function fieldWords(error: unknown): Record<string, string> {
  if (!(error instanceof Refused)) return {};
  const found: Record<string, string> = {};
  for (const { field, message } of error.details) {
    if (field in found) continue;
    found[field] = `${message.charAt(0).toUpperCase()}${message.slice(1)}.`.replace(/\.\.$/, ".");
  }
  return found;
}

const QUEUE_ENDS: Record<string, string> = {
  withdrawn: "you left the line",
  refused: "a host refused it",
  kicked: "a moderator removed you",
  banned: "a moderator banned you",
  closed: "the instance closed",
};

const MEANINGS: Readonly<Record<number, string>> = {
  [ErrorCode.LoginInvalid]: "The username or the password is wrong.",
  [ErrorCode.ServiceDisabled]: "This server takes no new accounts. Ask its operator for one.",
  [ErrorCode.CredentialInvalid]: "You are no longer logged in. Log in again.",
  [ErrorCode.InstanceNotFound]: "This instance does not exist. It may have closed.",
  [ErrorCode.InstanceFull]: "This instance is full.",
  [ErrorCode.NotAllowed]: "You may not do this here.",
  [ErrorCode.Banned]: "You are banned from this instance.",
  [ErrorCode.QuotaReached]: "You have as many as one user may have.",
  [ErrorCode.Overloaded]: "The server is busy. Try again in a moment.",
  [ErrorCode.InternalError]: "The server failed. Try again in a moment.",
};

function refusal(error: Refused): string {
  if (error.code === ErrorCode.TooManyRequests) {
    const seconds = Math.ceil((error.retryAfterMs ?? 1000) / 1000);
    return `That was too often. Wait ${seconds} s, and try again.`;
  }
  const details = Object.entries(fieldWords(error)).map(([field, text]) => `${field}: ${text}`);
  const meaning = MEANINGS[error.code] ?? `${error.message}.`;
  return details.length > 0 ? `${meaning} ${details.join(" ")}` : meaning;
}
