-- Calls are looked at twice, as events are: from 'new operations' on when they take long, and from 'operations' on once
-- no earlier one can still be to come. Old events were deleted up to 'purged events'.

INSERT INTO watermarks SELECT 'new operations', position FROM watermarks WHERE name = 'operations';
INSERT INTO watermarks VALUES ('purged events', 0);
