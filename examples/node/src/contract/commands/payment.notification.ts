// Made of the contract by `npm run generate`; not to be edited.

/**
 * A gateway's webhook: verified, then applied. Its subject may be left out.
 */
export interface PaymentNotification {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data: {
    /**
     * Its body, byte for byte, in base64.
     */
    body_base64: string;
    /**
     * Its HTTP headers in their order, as pairs of name and value.
     */
    headers?: [string, string][] | null;
    /**
     * Its HTTP method.
     */
    method?: string | null;
    /**
     * When the webhook came: its age is judged by this.
     */
    received_at: string;
    /**
     * The path and query it came to.
     */
    url?: string | null;
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
  subject?: string | null;
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
  type: 'payment.notification';
  [k: string]: unknown;
}
