-- After a reissue: the fingerprint of the code that is being replaced.
ALTER TABLE invites ADD COLUMN previous BLOB;

-- The work list, the longest dead first.
CREATE INDEX invites_dead    ON invites (ended_at) WHERE state = 'dead';
-- What may be retired, in the order in which its time comes.
CREATE INDEX invites_retired ON invites (ended_at) WHERE state = 'published' AND lane = 0;

-- What people asked for: dead invites back to work, new codes.
CREATE TABLE orders (
    seq     INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL UNIQUE,
    at      INTEGER NOT NULL,
    by      TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    target  TEXT    NOT NULL,
    count   INTEGER NOT NULL
) STRICT;
