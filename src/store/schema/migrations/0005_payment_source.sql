-- Whose a payment is: the source of the command that created it. Workers of before write none; then that command says it,
-- for as long as it is kept.

ALTER TABLE payments ADD COLUMN source text;

COMMENT ON COLUMN payments.source IS 'The CloudEvents source of the payment.create, where a worker wrote it.';
