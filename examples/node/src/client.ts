/** A small client of paybus: sends commands and awaits their answers, follows events and gets whole again after a gap. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Command, Event } from '@paybus/contract';
import amqp from 'amqplib';

export type { Command, Event };

const JSON_TYPE = 'application/cloudevents+json; charset=utf-8';
const DIRECT_REPLY = 'amq.rabbitmq.reply-to';

/** The broker did not take the command: it was returned or refused. Nothing happened. */
export class NotSent extends Error {}

/** Nobody knows whether the broker has the command. Send the very same one again: it is the same command. */
export class Unknown extends Error {}

interface Session {
  /** paybus may go by the user, which the broker checks against the one that is logged in. */
  userId: string;
  connection: amqp.ChannelModel;
  channel: amqp.ConfirmChannel;
  /** Ids of messages that came back, until their confirm. */
  returned: Set<string>;
}

/** Opens a connection with one channel, which has confirms. */
async function open(url: string, userId = userOf(url)): Promise<Session> {
  const connection = await amqp.connect(url);
  // Told by the rejection of whatever is under way; without a listener it would end the process.
  connection.on('error', () => {});
  const channel = await connection.createConfirmChannel();
  channel.on('error', () => {});
  const returned = new Set<string>();
  // The broker sends a return before the confirm of that message.
  channel.on('return', (message: amqp.Message) => returned.add(String(message.properties.messageId)));
  return { userId, connection, channel, returned };
}

function userOf(url: string): string {
  return decodeURIComponent(new URL(url).username) || 'guest';
}

/** Publishes one command, and returns when the broker has it. */
function publish(
  { userId, channel, returned }: Session, exchange: string, variant: string, command: Command, replyTo?: string,
): Promise<void> {
  const messageId = randomUUID();
  const options = {
    persistent: true, mandatory: true, contentType: JSON_TYPE, userId, messageId, replyTo, correlationId: command.id,
  };
  const body = Buffer.from(JSON.stringify(command));
  return new Promise((sent, failed) => {
    const lost = (error: unknown) => failed(new Unknown(`${command.type} ${command.id}: ${String(error)}`));
    try {
      channel.publish(exchange, `${variant}.${command.type}`, body, options, (error: Error | null) => {
        if (returned.delete(messageId)) failed(new NotSent(`no queue takes ${command.type}`));
        else if (error?.message === 'message nacked') failed(new NotSent(`the broker refuses ${command.type}`));
        else if (error) lost(error);
        else sent();
      });
    } catch (error) {
      lost(error);
    }
  });
}

/**
 * Sends commands, each confirmed by the broker.
 *
 * `userId` is the name by which the broker knows you, where that is not the user of the address.
 */
export class Publisher {
  #session?: Promise<Session>;
  readonly #waiting = new Map<string, (answer?: Event) => void>();

  constructor(private readonly url: string, private readonly prefix = 'paybus', private readonly userId?: string) {}

  /**
   * Returns when the broker has the command.
   *
   * @throws NotSent where it does not take it, Unknown where that cannot be told.
   */
  async send(variant: string, command: Command, replyTo?: string): Promise<void> {
    let session: Session;
    try {
      session = await (this.#session ??= this.#open());
    } catch (error) {
      this.#session = undefined;
      throw new Unknown(`${command.type} ${command.id}: ${String(error)}`);
    }
    await publish(session, `${this.prefix}.commands`, variant, command, replyTo);
  }

  /**
   * Sends a command and awaits its final answer; undefined where that does not come in time, or the connection is lost.
   *
   * A direct reply is lost with its channel: ask once more by the same command, which is carried out once and answered
   * again. The answer is also an event, for who follows those.
   */
  async ask(variant: string, command: Command, milliseconds = 30_000): Promise<Event | undefined> {
    const answer = new Promise<Event | undefined>((answered) => this.#waiting.set(command.id, answered));
    const patience = setTimeout(() => this.#waiting.get(command.id)?.(undefined), milliseconds);
    try {
      await this.send(variant, command, DIRECT_REPLY);
      return await answer;
    } finally {
      clearTimeout(patience);
      this.#waiting.delete(command.id);
    }
  }

  /** Closes the connection; the next command opens another one. */
  async close(): Promise<void> {
    const session = await this.#session?.catch(() => undefined);
    this.#session = undefined;
    // It may be lost already.
    await session?.connection.close().catch(() => {});
  }

  async #open(): Promise<Session> {
    const session = await open(this.url, this.userId);
    session.connection.on('close', () => {
      this.#session = undefined;
      for (const answered of this.#waiting.values()) answered(undefined);
    });
    const onAnswer = (message: amqp.ConsumeMessage | null) => {
      if (!message) return;
      const event = JSON.parse(String(message.content));
      // One that was asked for once more is told first that it goes on.
      if (event.data.command.answer) this.#waiting.get(String(message.properties.correlationId))?.(event);
    };
    // Direct replies come only to the channel that the command was sent on.
    await session.channel.consume(DIRECT_REPLY, onAnswer, { noAck: true });
    return session;
  }
}

/** What you know, kept where your own data is. */
export interface Store {
  /** The number of the last event of this payment that was applied; 0 for none. */
  last(payment: string): Promise<number>;
  /**
   * Applies an event and stores its number, in one transaction. Numbered events come once, in order and without gaps;
   * others, such as `command.rejected`, may come twice, under the same id. Pass over types, statuses and members that you
   * do not know.
   */
  apply(event: Event, number?: number): Promise<void>;
}

/** How far you are, by variant; kept where your own data is. */
export interface Positions {
  /** Up to which position no event of the variant is missing; 0 for none: then you get all that are kept. */
  position(variant: string): Promise<number>;
  /** Stores it. Every event up to it was applied. */
  reached(variant: string, position: number): Promise<void>;
}

/** A page of events that was asked for. */
interface Page {
  id: string;
  after: number;
  /** Up to where a heartbeat says that something is missing. */
  until: number;
  askedAt: number;
  arrived: Set<number>;
}

/** How long a page may take before it is asked for again. */
const PAGE_MILLISECONDS = 30_000;

/** A store for trying things; it forgets everything. */
export class Memory implements Store, Positions {
  readonly numbers = new Map<string, number>();
  readonly events: Event[] = [];
  readonly positions = new Map<string, number>();

  async position(variant: string): Promise<number> {
    return this.positions.get(variant) ?? 0;
  }

  async reached(variant: string, position: number): Promise<void> {
    this.positions.set(variant, position);
  }

  async last(payment: string): Promise<number> {
    return this.numbers.get(payment) ?? 0;
  }

  async apply(event: Event, number?: number): Promise<void> {
    if (number === undefined && this.events.some((known) => known.id === event.id)) return;
    this.events.push(event);
    if (number !== undefined) this.numbers.set(event.subject, number);
  }
}

export interface Options {
  /** The installation's `amqp.prefix`. */
  prefix?: string;
  /** Which events there are to be. */
  keys?: string[];
  /** False where `deploy/rabbitmq/grant service` has made the queues: that user may declare nothing. */
  declares?: boolean;
  positions?: Positions;
  /** As a publisher's. */
  userId?: string;
}

/**
 * Follows events from a durable queue of its own, through any number of lost connections.
 *
 * With `positions` it also follows heartbeats: whatever is missing, the last event too, is found and asked for.
 */
export class Subscriber {
  readonly queue: string;
  /** paybus answers only to queues whose names begin so; see `amqp.reply_to`. */
  readonly replies: string;
  /** By variant: the positions of events that were applied, behind the one that was reached. */
  readonly #seen = new Map<string, Set<number>>();
  readonly #pages = new Map<string, Page>();
  private readonly prefix: string;
  private readonly keys: string[];
  private readonly declares: boolean;
  private readonly positions?: Positions;
  private readonly userId?: string;

  constructor(
    private readonly url: string,
    private readonly name: string,
    private readonly store: Store,
    { prefix = 'paybus', keys = ['*.payment.#', '*.command.#'], declares = true, positions, userId }: Options = {},
  ) {
    this.prefix = prefix;
    this.keys = keys;
    this.declares = declares;
    this.positions = positions;
    this.userId = userId;
    this.queue = `${name}.events`;
    this.replies = `reply.${name}.catch-up`;
  }

  /** Applies events until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    let delay = 100;
    while (!signal.aborted) {
      try {
        const session = await this.#open();
        delay = 100;
        await this.#follow(session, signal);
      } catch {
        await sleep(delay);
        delay = Math.min(2 * delay, 30_000);
      }
    }
  }

  /** Makes the queues: from then on no event is missed. */
  async declare(): Promise<void> {
    const session = await this.#open();
    await session.connection.close();
  }

  async #open(): Promise<Session> {
    const session = await open(this.url, this.userId);
    try {
      if (this.declares) await this.#declare(session);
      await session.channel.prefetch(100);
    } catch (error) {
      session.connection.close().catch(() => {});
      throw error;
    }
    return session;
  }

  async #declare(session: Session): Promise<void> {
    for (const queue of [this.queue, this.replies]) {
      await session.channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
    }
    for (const key of this.keys) await session.channel.bindQueue(this.queue, `${this.prefix}.events`, key);
    if (this.positions) await session.channel.bindQueue(this.queue, `${this.prefix}.heartbeats`, '#');
  }

  /** Until the connection is lost, or an event cannot be applied: then it is delivered again. */
  #follow(session: Session, signal: AbortSignal): Promise<void> {
    return new Promise((ended, failed) => {
      // One after the other: the order is what this is for.
      let turn = Promise.resolve();
      const fail = (error: unknown) => {
        session.connection.close().catch(() => {});
        failed(error);
      };
      const onEvent = (message: amqp.ConsumeMessage | null) => {
        if (!message) return fail(new Error('the broker cancelled the consumer'));
        turn = turn.then(async () => {
          await this.#on(session, message, JSON.parse(String(message.content)));
          // Last: what dies before this is delivered again.
          session.channel.ack(message);
        });
        turn.catch(fail);
      };
      session.connection.on('close', () => (signal.aborted ? ended() : failed(new Error('the connection is lost'))));
      const stop = () => void turn.finally(() => session.connection.close()).catch(ended);
      signal.addEventListener('abort', stop, { once: true });
      for (const queue of [this.queue, this.replies]) session.channel.consume(queue, onEvent).catch(fail);
      if (signal.aborted) stop();
    });
  }

  async #on(session: Session, message: amqp.ConsumeMessage, event: Event): Promise<void> {
    if (event.type === 'paybus.heartbeat') {
      const { from, to, events } = event.data;
      await this.#onHeartbeat(session, event.subject, Number(from), Number(to), events);
    } else if (event.type === 'command.succeeded' && event.data.page) {
      const { to, events } = event.data.page;
      await this.#onPage(session, Number(to), events, String(message.properties.correlationId));
    } else {
      const isApplied = await this.#take(session, message, event);
      this.#note(message, isApplied);
    }
  }

  /** Notes the position of an event, to be held against the heartbeats. */
  #note({ fields, properties }: amqp.ConsumeMessage, isApplied: boolean): void {
    const position = Number(properties.headers?.['paybus-position'] ?? 0);
    if (!this.positions || position === 0 || !isApplied) return;
    if (fields.routingKey === this.replies) {
      for (const page of this.#pages.values()) if (page.id === properties.correlationId) page.arrived.add(position);
    } else {
      this.#seenOf(fields.routingKey.split('.')[0] ?? '').add(position);
    }
  }

  #seenOf(variant: string): Set<number> {
    const seen = this.#seen.get(variant) ?? new Set<number>();
    this.#seen.set(variant, seen);
    return seen;
  }

  /** So many events of a variant are in these positions, and no others will ever be. */
  async #onHeartbeat(session: Session, variant: string, from: number, to: number, events: number): Promise<void> {
    if (!this.positions) return;
    const reached = await this.positions.position(variant);
    if (reached >= to) return;
    const seen = [...this.#seenOf(variant)].filter((position) => from < position && position <= to).length;
    const page = this.#pages.get(variant);
    // Where it does not begin here, a heartbeat was missed, or this process is new.
    if (from === reached && seen === events) await this.#reach(variant, to);
    else if (page && Date.now() - page.askedAt <= PAGE_MILLISECONDS) page.until = to;
    else await this.#askPage(session, variant, reached, to, page?.arrived);
  }

  /** The answer to an `events.resend`, which came behind the events that it asked for. */
  async #onPage(session: Session, to: number, events: number, id: string): Promise<void> {
    const [variant, asked] = [...this.#pages].find(([, page]) => page.id === id) ?? [];
    // It took too long, and was asked for again.
    if (variant === undefined || !asked) return;
    const arrived = [...asked.arrived].filter((position) => position <= to).length;
    // Some were lost on their way, or wait for one that was.
    if (arrived < events) return this.#askPage(session, variant, asked.after, asked.until, asked.arrived);
    this.#pages.delete(variant);
    // What is behind the heartbeat counts for the next one.
    for (const position of asked.arrived) this.#seenOf(variant).add(position);
    await this.#reach(variant, Math.min(to, asked.until));
    if (to < asked.until) await this.#askPage(session, variant, to, asked.until);
  }

  async #reach(variant: string, reached: number): Promise<void> {
    await this.positions?.reached(variant, reached);
    const seen = this.#seenOf(variant);
    for (const position of seen) if (position <= reached) seen.delete(position);
  }

  async #askPage(
    session: Session, variant: string, after: number, until: number, arrived = new Set<number>(),
  ): Promise<void> {
    const page = { id: randomUUID(), after, until, askedAt: Date.now(), arrived };
    this.#pages.set(variant, page);
    const asked: Command = {
      specversion: '1.0', source: `${this.name}/catch-up`, id: page.id, type: 'events.resend', data: { after: String(after) },
    };
    await publish(session, `${this.prefix}.commands`, variant, asked, this.replies);
  }

  /** Whether the event is applied now, or was before. */
  async #take(session: Session, message: amqp.ConsumeMessage, event: Event): Promise<boolean> {
    const last = await this.store.last(event.subject);
    if ('sequence' in event && event.sequence !== undefined) {
      const number = Number(event.sequence);
      if (number === last + 1) await this.store.apply(event, number);
      // It comes again, behind those that are missing. So it may be acknowledged once they are asked for.
      else if (number > last + 1) {
        await this.#resend(session, event, last + 1);
        return false;
      }
    } else if (event.type === 'payment.snapshot') {
      const number = Number(event.data.sequence);
      if (number > last) await this.store.apply(event, number);
    } else if (message.fields.routingKey === this.replies && this.#isAnswer(message, event)) {
      await this.#goOn(session, event, last);
    } else {
      // From a page, too: a `command.failed` has no number, and by its position alone is it missed.
      await this.store.apply(event);
    }
    return true;
  }

  /** Whether it answers what was asked here, and is no event that was asked for. */
  #isAnswer({ properties }: amqp.ConsumeMessage, { data }: Event): boolean {
    return (data as { command?: { id?: string } }).command?.id === properties.correlationId;
  }

  /** The answer to a `payment.resend`, which came behind the events that it asked for. */
  async #goOn(session: Session, answer: Event, last: number): Promise<void> {
    if (answer.type !== 'command.succeeded' || Number(answer.data.sequence ?? last) <= last) return;
    // At most 100 come at a time.
    if (answer.data.resent && Number(answer.data.resent.from) <= last + 1) await this.#resend(session, answer, last + 1);
    // Those that are missing are kept no more.
    else await this.#ask(session, answer, { ...this.#about(answer, 'payment.snapshot'), type: 'payment.snapshot', data: {} });
  }

  #resend(session: Session, about: Event, from: number): Promise<void> {
    const type = 'payment.resend';
    return this.#ask(session, about, { ...this.#about(about, `${type}/${from}`), type, data: { from: String(from) } });
  }

  /**
   * Named after what it is about and what it asks for: delivered again, an event asks the same again, or under another
   * name for what is still missing by then.
   */
  #about(event: Event, asks: string) {
    const source = `${this.name}/catch-up`;
    return { specversion: '1.0' as const, source, id: `${event.id}/${asks}`, subject: event.subject };
  }

  async #ask(session: Session, about: Event, command: Command): Promise<void> {
    const { variant } = (about.data as { payment?: { variant?: string } }).payment ?? {};
    if (variant === undefined) return;
    await publish(session, `${this.prefix}.commands`, variant, command, this.replies);
  }
}
