/** A small client of paybus: sends commands and awaits their answers, follows events and gets whole again after a gap. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import amqp from 'amqplib';

import type { Command } from './contract/commands.js';
import type { Event } from './contract/events.js';

export type { Command, Event };

const JSON_TYPE = 'application/cloudevents+json; charset=utf-8';
const DIRECT_REPLY = 'amq.rabbitmq.reply-to';

/** The broker did not take the command: it was returned or refused. Nothing happened. */
export class NotSent extends Error {}

/** Nobody knows whether the broker has the command. Send the very same one again: it is the same command. */
export class Unknown extends Error {}

interface Session {
  connection: amqp.ChannelModel;
  channel: amqp.ConfirmChannel;
  /** Ids of messages that came back, until their confirm. */
  returned: Set<string>;
}

/** Opens a connection with one channel, which has confirms. */
async function open(url: string): Promise<Session> {
  const connection = await amqp.connect(url);
  // Told by the rejection of whatever is under way; without a listener it would end the process.
  connection.on('error', () => {});
  const channel = await connection.createConfirmChannel();
  channel.on('error', () => {});
  const returned = new Set<string>();
  // The broker sends a return before the confirm of that message.
  channel.on('return', (message: amqp.Message) => returned.add(String(message.properties.messageId)));
  return { connection, channel, returned };
}

/** Publishes one command, and returns when the broker has it. */
function publish(
  { channel, returned }: Session, exchange: string, variant: string, command: Command, replyTo?: string,
): Promise<void> {
  const messageId = randomUUID();
  const options = {
    persistent: true, mandatory: true, contentType: JSON_TYPE, messageId, replyTo, correlationId: command.id,
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

/** Sends commands, each confirmed by the broker. */
export class Publisher {
  #session?: Promise<Session>;
  readonly #waiting = new Map<string, (answer?: Event) => void>();

  constructor(private readonly url: string, private readonly prefix = 'paybus') {}

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
   * A direct reply is lost with its channel. The answer is also an event, so that it is not lost for who follows those;
   * the same command once more does not bring the reply again.
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
    const session = await open(this.url);
    session.connection.on('close', () => {
      this.#session = undefined;
      for (const answered of this.#waiting.values()) answered(undefined);
    });
    const onAnswer = (message: amqp.ConsumeMessage | null) => {
      if (message) this.#waiting.get(String(message.properties.correlationId))?.(JSON.parse(String(message.content)));
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

/** A store for trying things; it forgets everything. */
export class Memory implements Store {
  readonly numbers = new Map<string, number>();
  readonly events: Event[] = [];

  async last(payment: string): Promise<number> {
    return this.numbers.get(payment) ?? 0;
  }

  async apply(event: Event, number?: number): Promise<void> {
    if (number === undefined && this.events.some((known) => known.id === event.id)) return;
    this.events.push(event);
    if (number !== undefined) this.numbers.set(event.subject, number);
  }
}

/** Follows events from a durable queue of its own, through any number of lost connections. */
export class Subscriber {
  readonly queue: string;
  /** paybus answers only to queues whose names begin so; see `amqp.reply_to`. */
  readonly replies: string;

  constructor(
    private readonly url: string,
    private readonly name: string,
    private readonly store: Store,
    private readonly prefix = 'paybus',
    private readonly keys = ['*.payment.#', '*.command.#'],
  ) {
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
    const session = await open(this.url);
    for (const queue of [this.queue, this.replies]) {
      await session.channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
    }
    for (const key of this.keys) await session.channel.bindQueue(this.queue, `${this.prefix}.events`, key);
    await session.channel.prefetch(100);
    return session;
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
          await this.#take(session, message.fields.routingKey, JSON.parse(String(message.content)));
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

  async #take(session: Session, routingKey: string, event: Event): Promise<void> {
    const last = await this.store.last(event.subject);
    if ('sequence' in event && event.sequence !== undefined) {
      const number = Number(event.sequence);
      if (number === last + 1) await this.store.apply(event, number);
      // It comes again, behind those that are missing. So it may be acknowledged once they are asked for.
      else if (number > last + 1) await this.#resend(session, event, last + 1);
    } else if (event.type === 'payment.snapshot') {
      const number = Number(event.data.sequence);
      if (number > last) await this.store.apply(event, number);
    } else if (routingKey === this.replies) {
      await this.#goOn(session, event, last);
    } else {
      await this.store.apply(event);
    }
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
    return this.#ask(session, about, { ...this.#about(about, type), type, data: { from: String(from) } });
  }

  /** Named after what it is about: delivered again, this asks the same again. */
  #about(event: Event, type: string) {
    const source = `${this.name}/catch-up`;
    return { specversion: '1.0' as const, source, id: `${event.id}/${type}`, subject: event.subject };
  }

  async #ask(session: Session, about: Event, command: Command): Promise<void> {
    const { variant } = (about.data as { payment?: { variant?: string } }).payment ?? {};
    if (variant === undefined) return;
    await publish(session, `${this.prefix}.commands`, variant, command, this.replies);
  }
}
