/** What the types of @paybus/contract hold. The compiler is the test: what it should refuse, and does not, is an error. */

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';

import type { Amount, Command, Event, PaymentCreateCommandData } from '@paybus/contract';

const named = { specversion: '1.0' as const, source: 'shop', id: '1', subject: '0192f0c1-7c5e-7000-8000-0000000000aa' };
const data: PaymentCreateCommandData = { variant: 'cards', total: '12.50', currency: 'EUR', metadata: { order: '1021' } };

export const good: Command[] = [
  { ...named, type: 'payment.create', data, time: '2026-11-22T12:00:00Z', correlationid: null },
  { ...named, type: 'payment.create', data: { ...data, process: { payment_method: 'pm_card_visa', nested: [{}] } } },
  { ...named, type: 'payment.refund', data: {} },
  { ...named, type: 'payment.sync' },
  { specversion: '1.0', source: 'shop', id: '1', type: 'events.resend', data: { after: '0' } },
];

// @ts-expect-error An amount is a text.
export const number: Amount = 12.5;
// @ts-expect-error No such currency.
export const currency: PaymentCreateCommandData = { ...data, currency: 'eur' };
// @ts-expect-error A misspelt field.
export const field: PaymentCreateCommandData = { ...data, meta_data: {} };
// @ts-expect-error No total.
export const total: PaymentCreateCommandData = { variant: 'cards', currency: 'EUR' };
// @ts-expect-error A refund of all is asked for by an empty object, and not by leaving it out.
export const all: Command = { ...named, type: 'payment.refund' };
// @ts-expect-error A field of another command.
export const other: Command = { ...named, type: 'payment.refund', data: { final: true } };
// @ts-expect-error A misspelt attribute.
export const attribute: Command = { ...named, type: 'payment.sync', correlationId: '1' };
// @ts-expect-error No payment.
export const subject: Command = { specversion: '1.0', source: 'shop', id: '1', type: 'payment.sync' };

export function told(event: Event): string {
  switch (event.type) {
    case 'payment.status_changed': {
      const { status, captured_amount } = event.data.payment;
      // @ts-expect-error No such status.
      if (status === 'paid') return '';
      // @ts-expect-error Money is no number.
      return String(captured_amount * 1);
    }
    case 'command.rejected':
      // A code of tomorrow is a text.
      return event.data.code === 'not_allowed' ? 'no' : event.data.code.toUpperCase();
    default:
      // @ts-expect-error Not each event has it.
      return event.sequence.length;
  }
}

test('the schemas and the table of codes are in the package', () => {
  const require = createRequire(import.meta.url);
  const codes: { code: string }[] = require('@paybus/contract/codes.json');
  const schema: { title: string } = require('@paybus/contract/commands/payment.create.json');
  assert.equal(schema.title, 'payment.create command');
  assert.ok(codes.some(({ code }) => code === 'not_allowed'));
});
