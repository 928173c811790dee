// Made of the contract by `npm run generate`; not to be edited.

export type Levels_00 = null | boolean | number | string;
export type Levels_01 = Levels_00[];
export type Levels_02 = Levels_01[];
export type Levels_03 = Levels_02[];
export type Levels_04 = Levels_03[];
export type Levels_05 = Levels_04[];
export type Levels_06 = Levels_05[];
export type Levels_07 = Levels_06[];
export type Levels_08 = Levels_07[];
export type Levels_09 = Levels_08[];
export type Levels_10 = Levels_09[];
export type Levels_11 = Levels_10[];
export type Levels_12 = Levels_11[];
export type Levels_13 = Levels_12[];
export type Levels_14 = Levels_13[];

/**
 * Hands the payment to the gateway. Allowed from waiting, input, rejected and error.
 */
export interface PaymentProcess {
  /**
   * Copied to every event that the command causes.
   */
  correlationid?: string | null;
  data?: {
    /**
     * Whether a process captures at once; overrides the variant's `capture`.
     */
    capture?: boolean | null;
    /**
     * The gateway's own object: a payment method's token, return_url, ...
     */
    process?: {
      [k: string]: Levels_14;
    } | null;
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
  type: 'payment.process';
  [k: string]: unknown;
}
