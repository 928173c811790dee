// Made of the contract by `npm run generate`; not to be edited.
import type { PaymentCancel as PaymentCancelCommand } from './commands/payment.cancel.js';
import type { PaymentCapture as PaymentCaptureCommand } from './commands/payment.capture.js';
import type { PaymentCreate as PaymentCreateCommand } from './commands/payment.create.js';
import type { PaymentNotification as PaymentNotificationCommand } from './commands/payment.notification.js';
import type { PaymentProcess as PaymentProcessCommand } from './commands/payment.process.js';
import type { PaymentRefund as PaymentRefundCommand } from './commands/payment.refund.js';
import type { PaymentRelease as PaymentReleaseCommand } from './commands/payment.release.js';
import type { PaymentResend as PaymentResendCommand } from './commands/payment.resend.js';
import type { PaymentResolve as PaymentResolveCommand } from './commands/payment.resolve.js';
import type { PaymentSnapshot as PaymentSnapshotCommand } from './commands/payment.snapshot.js';
import type { PaymentSync as PaymentSyncCommand } from './commands/payment.sync.js';
export type Command =
  | PaymentCancelCommand
  | PaymentCaptureCommand
  | PaymentCreateCommand
  | PaymentNotificationCommand
  | PaymentProcessCommand
  | PaymentRefundCommand
  | PaymentReleaseCommand
  | PaymentResendCommand
  | PaymentResolveCommand
  | PaymentSnapshotCommand
  | PaymentSyncCommand;
import type { CommandDelayed as CommandDelayedEvent } from './events/command.delayed.js';
import type { CommandFailed as CommandFailedEvent } from './events/command.failed.js';
import type { CommandRejected as CommandRejectedEvent } from './events/command.rejected.js';
import type { CommandSucceeded as CommandSucceededEvent } from './events/command.succeeded.js';
import type { PaymentCreated as PaymentCreatedEvent } from './events/payment.created.js';
import type { PaymentSnapshot as PaymentSnapshotEvent } from './events/payment.snapshot.js';
import type { PaymentStatusChanged as PaymentStatusChangedEvent } from './events/payment.status_changed.js';
import type { PaymentUpdated as PaymentUpdatedEvent } from './events/payment.updated.js';
export type Event =
  | CommandDelayedEvent
  | CommandFailedEvent
  | CommandRejectedEvent
  | CommandSucceededEvent
  | PaymentCreatedEvent
  | PaymentSnapshotEvent
  | PaymentStatusChangedEvent
  | PaymentUpdatedEvent;
