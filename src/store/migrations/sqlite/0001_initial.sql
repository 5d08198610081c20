-- One row per trucker that an event asked for. Times are milliseconds since the Unix epoch.
CREATE TABLE invites (
    seq             INTEGER PRIMARY KEY,
    account         TEXT    NOT NULL,
    pk              INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    fence           INTEGER NOT NULL DEFAULT 0,   -- counts the writes; every write names the one it saw
    taken           INTEGER NOT NULL DEFAULT 0,   -- 1 while a worker holds it and `due` is a lease
    state           TEXT    NOT NULL,
    lane            INTEGER NOT NULL,             -- 0 nothing to do, 1-7 pending sinks (bits), 8 API
    due             INTEGER,
    attempts        INTEGER NOT NULL,
    tries           INTEGER NOT NULL,             -- failed reads, or refusals of a sink
    ever_unknown    INTEGER NOT NULL,
    not_found_since INTEGER,
    failure_class   TEXT,
    failure_code    TEXT,
    accepted_at     INTEGER NOT NULL,
    begun_at        INTEGER NOT NULL,
    code            TEXT,                         -- erased after store.erase_codes_after
    fingerprint     BLOB,
    origin          TEXT,
    ready_at        INTEGER,
    ended_at        INTEGER,                      -- published or dead since
    event_id        TEXT    NOT NULL,
    event_source    TEXT    NOT NULL,
    trucker         TEXT,                         -- JSON of the included fields
    traceparent     TEXT,
    tracestate      TEXT,
    UNIQUE (account, pk)
) STRICT;

CREATE INDEX invites_due_api     ON invites (account, due) WHERE lane = 8;
CREATE INDEX invites_due_publish ON invites (lane, due)    WHERE lane BETWEEN 1 AND 7;
CREATE INDEX invites_with_code   ON invites (ended_at)     WHERE state = 'published' AND code IS NOT NULL;

-- Every accepted event, for as long as store.retention: a sender that repeats itself is recognised.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY,
    invite      INTEGER NOT NULL,
    id          TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    accepted_at INTEGER NOT NULL,
    UNIQUE (invite, id, source)
) STRICT;

-- Truckers whose invite was removed after store.retention: their next code is the next generation.
CREATE TABLE retired (
    account    TEXT    NOT NULL,
    pk         INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (account, pk)
) STRICT, WITHOUT ROWID;

CREATE TABLE gates (
    account TEXT PRIMARY KEY,
    reason  TEXT    NOT NULL,
    until   INTEGER NOT NULL,
    strikes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Written now and then, so that a store that takes no writes is noticed, and its recovery as well.
CREATE TABLE pulse (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    at  INTEGER NOT NULL
) STRICT;

CREATE TABLE secrets (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
