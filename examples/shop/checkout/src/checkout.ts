/**
 * The checkout: takes orders, sends the commands of their payments one after the other, and keeps each final answer.
 *
 * Where no answer comes in time, and whatever dies, there is one way on: another connection, so another queue for replies,
 * and the very same command again.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

import { type Command, type Event, NotSent, Publisher, Unknown } from './client.js';
import { Journal } from './journal.js';
import { commands, take, VARIANT } from './orders.js';

function variable(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

const [URL, PREFIX, COUNT] = [variable('SHOP_AMQP_URL'), variable('SHOP_PREFIX'), Number(variable('SHOP_ORDERS'))];
/** Over how long the orders come in. */
const MILLISECONDS = 1000 * Number(variable('SHOP_SECONDS'));
const TILLS = 12;
/** The first runs out before any worker has the command, the next while it is being carried out, the last seldom. */
const PATIENCE = [5, 50, 500, 5000];

const journal = new Journal(variable('SHOP_JOURNAL'));

/** Asks until there is a final answer. */
async function settle(publisher: Publisher, command: Command, patience: number): Promise<Event> {
  for (; ; patience = Math.min(4 * patience, 8000)) {
    try {
      const answer = await publisher.ask(VARIANT, command, patience);
      if (answer) return answer;
    } catch (error) {
      // Not there, or perhaps: either way it may be sent again.
      if (!(error instanceof NotSent || error instanceof Unknown)) throw error;
      await sleep(200);
    }
    journal.write({ again: command.id });
    await publisher.close();
  }
}

/** A customer who lost the page, and looks once more: the answer is the one that was given. */
async function askAgain(publisher: Publisher, command: Command, answer: Event): Promise<void> {
  journal.write({ again: command.id });
  await publisher.close();
  const again = await settle(publisher, command, 5000);
  if (!isDeepStrictEqual(again, answer)) {
    throw new Error(`${command.id} was answered ${JSON.stringify(answer)}, and then ${JSON.stringify(again)}`);
  }
}

async function serve(publisher: Publisher, number: number): Promise<void> {
  let order = journal.orders.get(String(number));
  if (!order) journal.write((order = take(number)));
  for (const [index, command] of commands(order).entries()) {
    if (journal.answers.has(command.id)) continue;
    if (!journal.commands.has(command.id)) journal.write({ command });
    const asked = journal.commands.get(command.id)!;
    const turn = number + index;
    const event = await settle(publisher, asked, PATIENCE[turn % PATIENCE.length]!);
    journal.write({ answered: command.id, event });
    if (turn % 3 === 0) await askAgain(publisher, asked, event);
  }
}

let next = 0;

async function till(): Promise<void> {
  const publisher = new Publisher(URL, PREFIX);
  for (let number = next++; number < COUNT; number = next++) {
    await sleep(Math.max(0, journal.opened + (number / COUNT) * MILLISECONDS - Date.now()));
    await serve(publisher, number);
  }
  await publisher.close();
}

await Promise.all(Array.from({ length: TILLS }, till));
journal.close();
