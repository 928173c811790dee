// Made of the contract by `npm run generate`; not to be edited.

/**
 * A person says what happened, where the outcome is unknown. The AMQP user_id must name who says so.
 */
export interface PaymentResolve {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data: {
    /**
     * How much, where it was approved; left out: what was asked.
     */
    amount?: string | null;
    /**
     * How the person knows.
     */
    evidence: string;
    /**
     * The operation with the unknown outcome.
     */
    operation: string;
    /**
     * What happened at the gateway.
     */
    outcome: 'approved' | 'declined' | 'not_charged';
    /**
     * The payment's id at the gateway.
     */
    transaction_id?: string | null;
  };
  datacontenttype?: string | null;
  /**
   * Not sent to the gateway for the first time after this; then rejected as `expired`.
   */
  expirytime?: string | null;
  /**
   * With subject and source it names the command: the same three again are the same command.
   */
  id: string;
  /**
   * Who asks, such as shop/checkout.
   */
  source: string;
  specversion: '1.0';
  /**
   * The payment's id, chosen by the publisher.
   */
  subject: string;
  /**
   * When it was made, as RFC 3339; not read.
   */
  time?: {
    [k: string]: unknown;
  };
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  traceparent?: string | null;
  /**
   * W3C trace context; goes on to the gateway and into the events.
   */
  tracestate?: string | null;
  type: 'payment.resolve';
  [k: string]: unknown;
}
