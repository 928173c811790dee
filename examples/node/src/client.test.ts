/** The client against a real worker, broker and database. Run by ./check. */

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createServer, type AddressInfo } from 'node:net';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

import amqp from 'amqplib';
import pg from 'pg';

import { type Command, type Event, Memory, NotSent, Publisher, Subscriber, Unknown } from './client.js';

function variable(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

const [AMQP, DATABASE, PAYBUS] = [variable('PAYBUS__AMQP__URL'), variable('PAYBUS__DATABASE__URL'), variable('PAYBUS')];
const PREFIX = `node${randomUUID().replaceAll('-', '').slice(0, 10)}`;

let worker: ChildProcess;
let publisher: Publisher;
let payment: string;

async function waitFor(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited 30 s for ${what}`);
    await sleep(50);
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const { port } = server.address() as AddressInfo;
  await new Promise((closed) => server.close(closed));
  return port;
}

before(async () => {
  const admin = new pg.Client({ connectionString: DATABASE });
  await admin.connect();
  await admin.query(`CREATE DATABASE ${PREFIX}`);
  await admin.end();
  const listen = `127.0.0.1:${await freePort()}`;
  const env = {
    ...process.env,
    PAYBUS__AMQP__PREFIX: PREFIX,
    PAYBUS__DATABASE__URL: DATABASE.replace(/\/[^/]*$/, `/${PREFIX}`),
    PAYBUS__HTTP__LISTEN: listen,
    PAYBUS__WORKER__HEARTBEAT: '300ms',
  };
  execFileSync(PAYBUS, ['migrate'], { env, stdio: 'ignore' });
  worker = spawn(PAYBUS, ['worker'], { env, stdio: 'ignore' });
  await waitFor('the worker', () => fetch(`http://${listen}/readyz`).then((answer) => answer.ok, () => false));
});

after(async () => {
  const ended = new Promise((code) => worker.on('exit', code));
  worker.kill('SIGTERM');
  assert.equal(await ended, 0);
});

beforeEach(() => {
  publisher = new Publisher(AMQP, PREFIX);
  payment = randomUUID();
});

afterEach(() => publisher.close());

function named(source: string) {
  return { specversion: '1.0' as const, source, id: randomUUID(), subject: payment };
}

function create(total = '120.00', process = {}): Command {
  const data = { variant: 'default', total, currency: 'EUR' as const, process };
  return { ...named('shop/checkout'), type: 'payment.create', data };
}

async function pay(process = {}): Promise<void> {
  const answer = await publisher.ask('default', create('120.00', process));
  assert.equal(answer?.type, 'payment.status_changed');
}

function refund(amount: string): Command {
  return { ...named('shop/desk'), type: 'payment.refund', data: { amount } };
}

function numbers(store: Memory): (string | undefined)[] {
  const counted = (event: Event): event is Event & { sequence: string } => 'sequence' in event;
  return store.events.filter((event) => event.subject === payment).filter(counted).map((event) => event.sequence);
}

/** Follows events until the condition holds. */
async function follow(subscriber: Subscriber, what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const stop = new AbortController();
  const following = subscriber.run(stop.signal);
  try {
    await waitFor(what, condition);
  } finally {
    stop.abort();
    await following;
  }
}

test('a command is answered once', async () => {
  const command = create();
  const answer = await publisher.ask('default', command);
  assert.ok(answer?.type === 'payment.status_changed');
  assert.equal(answer.data.payment.status, 'confirmed');
  await publisher.send('default', command);
  const told = await publisher.ask('default', { ...named('shop/desk'), type: 'payment.snapshot', data: {} });
  assert.ok(told?.type === 'payment.snapshot');
  assert.deepEqual([told.data.sequence, told.data.payment.captured_amount], ['2', '120.00']);
});

test('what is wrong is rejected with a code', async () => {
  const answer = await publisher.ask('default', create('1.001'));
  assert.ok(answer?.type === 'command.rejected');
  assert.equal(answer.data.code, 'invalid_amount');
});

test('what no queue takes was not sent', async () => {
  // Commands of unknown variants and types have a queue, and are answered; an exchange of another prefix has none.
  const connection = await amqp.connect(AMQP);
  const channel = await connection.createChannel();
  await channel.assertExchange(`${PREFIX}.other.commands`, 'topic', { autoDelete: false, durable: false });
  const other = new Publisher(AMQP, `${PREFIX}.other`);
  await assert.rejects(other.send('default', create()), NotSent);
  await other.close();
  await channel.deleteExchange(`${PREFIX}.other.commands`);
  await connection.close();
});

test('events come once and in order, whatever is sent again', async () => {
  const store = new Memory();
  const subscriber = new Subscriber(AMQP, `${PREFIX}.again`, store, { prefix: PREFIX });
  await subscriber.declare();
  await pay();
  // To everybody, for it names no reply queue.
  await publisher.send('default', { ...named('shop/desk'), type: 'payment.resend', data: { from: '1' } });
  await publisher.ask('default', refund('20.00'));
  const mine = () => store.events.filter((event) => event.subject === payment);
  await follow(subscriber, 'three events and the answer', () => mine().length === 4);
  assert.deepEqual(numbers(store), ['1', '2', '3']);
});

test('a gap is found and mended', async () => {
  const store = new Memory();
  const subscriber = new Subscriber(AMQP, `${PREFIX}.gap`, store, { prefix: PREFIX });
  await subscriber.declare();
  await pay();
  const connection = await amqp.connect(AMQP);
  const channel = await connection.createChannel();
  await waitFor('an event to lose', async () => (await channel.get(subscriber.queue, { noAck: true })) !== false);
  await connection.close();
  await publisher.ask('default', refund('20.00'));
  await follow(subscriber, 'all events', async () => (await store.last(payment)) === 3);
  assert.deepEqual(numbers(store), ['1', '2', '3']);
});

test('what is asked for after some of it came is another command', async () => {
  const store = new Memory();
  const subscriber = new Subscriber(AMQP, `${PREFIX}.smaller-gap`, store, { prefix: PREFIX });
  await subscriber.declare();
  await pay();
  await publisher.ask('default', refund('20.00'));
  const connection = await amqp.connect(AMQP);
  const channel = await connection.createChannel();
  const { queue: asked } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(asked, `${PREFIX}.commands`, '*.payment.resend');
  const events: Buffer[] = [];
  await waitFor('the events', async () => {
    const got = await channel.get(subscriber.queue, { noAck: true });
    if (got) events.push(got.content);
    return events.length === 3;
  });
  const [first, , last] = events as [Buffer, Buffer, Buffer];
  // The last comes behind a gap, and once more when the gap is smaller.
  for (const body of [last, first, last]) channel.sendToQueue(subscriber.queue, body);
  await follow(subscriber, 'all events', async () => (await store.last(payment)) === 3);
  const asks: Command[] = [];
  for (let got; (got = await channel.get(asked, { noAck: true })); ) asks.push(JSON.parse(got.content.toString()));
  await connection.close();
  assert.deepEqual(asks.map(({ data }) => data), [{ from: '1' }, { from: '2' }]);
  assert.notEqual(asks[0]?.id, asks[1]?.id);
  assert.deepEqual(numbers(store), ['1', '2', '3']);
});

test('who was away and lost its queue gets whole again', async () => {
  await pay();
  const store = new Memory();
  const subscriber = new Subscriber(AMQP, `${PREFIX}.away`, store, { prefix: PREFIX });
  await subscriber.declare();
  await publisher.ask('default', refund('20.00'));
  await follow(subscriber, 'all events', async () => (await store.last(payment)) === 3);
  assert.deepEqual(numbers(store), ['1', '2', '3']);
});

/** What a consumer knows of each payment. */
function table(store: Memory): Map<string, string> {
  const known = new Map<string, string>();
  for (const event of store.events) {
    // A snapshot stands for the events that it makes up for.
    if (!('sequence' in event || event.type === 'payment.snapshot')) continue;
    const { id, status, captured_amount } = event.data.payment;
    known.set(id, `${status} ${captured_amount} ${store.numbers.get(id)}`);
  }
  return known;
}

/** The payments that something failed of, and changed nothing. */
function failed(store: Memory): Set<string> {
  return new Set(store.events.filter(({ type }) => type === 'command.failed').map(({ subject }) => subject));
}

/** What paybus has stored. */
async function books(): Promise<Map<string, string>> {
  const client = new pg.Client({ connectionString: DATABASE.replace(/\/[^/]*$/, `/${PREFIX}`) });
  await client.connect();
  const sql = 'SELECT id::text, status, captured_amount::numeric(12, 2)::text AS captured, last_sequence FROM paybus.payments';
  const { rows } = await client.query(sql);
  await client.end();
  return new Map(rows.map((row) => [row.id, `${row.status} ${row.captured} ${row.last_sequence}`]));
}

test('who loses a part of all events and all of the last ones gets whole again', async () => {
  const store = new Memory();
  const subscriber = new Subscriber(AMQP, `${PREFIX}.whole`, store, { prefix: PREFIX, positions: store });
  await subscriber.declare();
  const connection = await amqp.connect(AMQP);
  const thief = await connection.createChannel();
  await thief.prefetch(1);
  await thief.consume(subscriber.queue, (message) => message && thief.ack(message));
  let paid = 0;
  await follow(subscriber, 'payments, of which some is stolen', async () => {
    payment = randomUUID();
    await pay();
    await publisher.ask('default', refund('20.00'));
    paid += 1;
    return paid === 30;
  });
  await thief.close();
  // Nothing takes the last events.
  const cleaner = await connection.createChannel();
  await cleaner.deleteQueue(subscriber.queue);
  await connection.close();
  const last = new Set<string>();
  for (let number = 0; number < 5; number += 1) {
    payment = randomUUID();
    await pay({ token: 'tok_refund_declined' });
    // The end of each is a `command.failed`, which has no number.
    assert.equal((await publisher.ask('default', refund('20.00')))?.type, 'command.failed');
    last.add(payment);
  }
  await follow(subscriber, 'the table to be as the database, and what failed', async () => {
    return isDeepStrictEqual([await books(), last], [table(store), failed(store)]);
  });
});

test('a queue that is deleted is made again, and what was in it is asked for', async () => {
  const store = new Memory();
  const subscriber = new Subscriber(AMQP, `${PREFIX}.deleted`, store, { prefix: PREFIX, positions: store });
  await subscriber.declare();
  await pay();
  let isDeleted = false;
  await follow(subscriber, 'the event after the loss', async () => {
    if (!isDeleted && (await store.last(payment)) === 2) {
      isDeleted = true;
      const connection = await amqp.connect(AMQP);
      await (await connection.createChannel()).deleteQueue(subscriber.queue);
      await connection.close();
      await publisher.ask('default', refund('20.00'));
    }
    return (await store.last(payment)) === 3;
  });
  assert.deepEqual(numbers(store), ['1', '2', '3']);
});

test('every command names the user that sends it', async () => {
  const connection = await amqp.connect(AMQP);
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, `${PREFIX}.commands`, '#');
  await pay();
  const store = new Memory();
  // Its queue is new: it asks for what was before.
  const subscriber = new Subscriber(AMQP, `${PREFIX}.user`, store, { prefix: PREFIX, positions: store });
  await follow(subscriber, 'what was before', async () => (await store.last(payment)) === 2);
  const users = new Map<string, unknown>();
  for (let got; (got = await channel.get(queue, { noAck: true })); ) users.set(got.fields.routingKey, got.properties.userId);
  await connection.close();
  const user = new URL(AMQP).username || 'guest';
  assert.deepEqual(users, new Map([['default.payment.create', user], ['default.events.resend', user]]));
});

const ctl = process.env.PAYBUS_TEST_RABBITMQCTL;
test('a lost connection is made again', { skip: !ctl && 'the broker is not ours to trouble' }, async () => {
  const store = new Memory();
  const subscriber = new Subscriber(AMQP, `${PREFIX}.lost`, store, { prefix: PREFIX });
  await subscriber.declare();
  await pay();
  let troubled = false;
  await follow(subscriber, 'the event after the loss', async () => {
    if (!troubled && (await store.last(payment)) === 2) {
      troubled = true;
      execFileSync(ctl!, ['close_all_connections', 'a test'], { stdio: 'ignore' });
      const command = refund('20.00');
      // Whether the loss is seen before or after it is sent: the same command once more is the same command.
      await publisher.send('default', command).catch((error: unknown) => {
        assert.ok(error instanceof Unknown, String(error));
        return publisher.send('default', command);
      });
    }
    return (await store.last(payment)) === 3;
  });
  assert.deepEqual(numbers(store), ['1', '2', '3']);
});
