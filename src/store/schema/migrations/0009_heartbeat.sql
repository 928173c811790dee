-- Heartbeats tell how many events there are up to a position: up to 'heartbeat' it was told, at moved_at for the last time.

ALTER TABLE watermarks ADD COLUMN moved_at timestamptz;
COMMENT ON COLUMN watermarks.moved_at IS 'When it was last moved, where that is of interest.';

INSERT INTO watermarks (name, position) SELECT 'heartbeat', coalesce(max(position), 0) FROM events;
