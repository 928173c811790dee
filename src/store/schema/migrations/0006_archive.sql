-- A payment that was archived keeps its row: its id is never charged again. Operations, movements and events are gone, and so
-- are the texts in the row. Old commands that changed no payment were deleted up to 'old commands'.

ALTER TABLE payments ADD COLUMN archived_at timestamptz;
COMMENT ON COLUMN payments.archived_at IS 'When the payment was archived; its row stays so that its id is not charged again.';

INSERT INTO watermarks VALUES ('old commands', 0);
