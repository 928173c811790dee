// Made of the contract by `npm run generate`; not to be edited.

/**
 * Takes authorized money. Allowed from preauth.
 */
export interface PaymentCapture {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data?: {
    /**
     * How much; left out: the total. A part of it ends the authorization.
     */
    amount?: string | null;
    /**
     * Whether it is the last capture; more than one is not supported for now.
     */
    final?: true | null;
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
  type: 'payment.capture';
  [k: string]: unknown;
}
