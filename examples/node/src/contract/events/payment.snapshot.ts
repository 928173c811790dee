// Made of the contract by `npm run generate`; not to be edited.

/**
 * The payment as it is, for who asked by payment.snapshot; it is none of the counted events.
 */
export interface PaymentSnapshot {
  /**
   * The id of the command that caused it.
   */
  causationid?: string;
  /**
   * As the command that caused it has it.
   */
  correlationid?: string;
  data: {
    command: Command;
    payment: Payment;
    /**
     * The number of the payment's last event: the payment is as it was after that.
     */
    sequence: string;
    [k: string]: unknown;
  };
  datacontenttype: 'application/json';
  /**
   * The same at every resend: what was seen under it is to be dropped. Also the AMQP message_id.
   */
  id: string;
  /**
   * The payment's id, or what stands for one where a command's subject is none.
   */
  partitionkey: string;
  source: 'paybus';
  specversion: '1.0';
  /**
   * The payment's id; in the answer to a command, its subject as it was written.
   */
  subject: string;
  /**
   * When it was decided.
   */
  time: string;
  /**
   * W3C trace context.
   */
  traceparent?: string;
  /**
   * W3C trace context.
   */
  tracestate?: string;
  type: 'payment.snapshot';
  [k: string]: unknown;
}
/**
 * The command that caused it.
 */
export interface Command {
  /**
   * Whether this is its answer: each gets exactly one.
   */
  final: boolean;
  /**
   * Its id.
   */
  id: string;
  /**
   * Its source.
   */
  source: string;
  /**
   * Its type, as it was written.
   */
  type: string;
  [k: string]: unknown;
}
/**
 * The whole payment as stored after the change.
 */
export interface Payment {
  /**
   * What is authorized.
   */
  authorized_amount: string;
  /**
   * Where to bill.
   */
  billing_address_1: string;
  /**
   * Where to bill.
   */
  billing_address_2: string;
  /**
   * Where to bill.
   */
  billing_city: string;
  /**
   * State, county or province.
   */
  billing_country_area: string;
  /**
   * Two letters of ISO 3166.
   */
  billing_country_code: string;
  /**
   * Whom to write to.
   */
  billing_email: string;
  /**
   * Whom to bill.
   */
  billing_first_name: string;
  /**
   * Whom to bill.
   */
  billing_last_name: string;
  /**
   * Whom to call.
   */
  billing_phone: string;
  /**
   * Where to bill.
   */
  billing_postcode: string;
  /**
   * What was captured minus what was refunded, never below zero.
   */
  captured_amount: string;
  /**
   * When it was stored.
   */
  created: string;
  /**
   * ISO 4217.
   */
  currency: string;
  /**
   * Where the customer came from.
   */
  customer_ip_address: {
    [k: string]: unknown;
  } & (
    | ({
        [k: string]: unknown;
      } & string)
    | ({
        [k: string]: unknown;
      } & null)
  );
  /**
   * Of the total, delivery.
   */
  delivery: string;
  /**
   * What it is for.
   */
  description: string;
  /**
   * What the gateway told beside, bounded.
   */
  extra_data: {
    [k: string]: unknown;
  };
  /**
   * The gateway's words on fraud.
   */
  fraud_message: string;
  /**
   * What the gateway thinks of fraud.
   */
  fraud_status: 'unknown' | 'accept' | 'reject' | 'review';
  /**
   * Chosen by the publisher of its create.
   */
  id: string;
  /**
   * The gateway's last message.
   */
  message: string;
  /**
   * When it last changed.
   */
  modified: string;
  /**
   * Where the customer must act, while the status is input.
   */
  redirect_url?: string;
  /**
   * What was refunded.
   */
  refunded_amount: string;
  /**
   * Where it stands.
   */
  status: 'waiting' | 'input' | 'preauth' | 'confirmed' | 'rejected' | 'refunded' | 'error' | 'cancelled';
  /**
   * Of the total, tax.
   */
  tax: string;
  /**
   * The gross sum.
   */
  total: string;
  /**
   * Its id at the gateway; empty before there is one.
   */
  transaction_id: string;
  /**
   * The configured gateway.
   */
  variant: string;
  [k: string]: unknown;
}
