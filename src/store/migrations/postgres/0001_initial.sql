-- One row per trucker that an event asked for. Times are milliseconds since the Unix epoch, on the server's clock.
CREATE TABLE invites (
    account         text    NOT NULL,
    pk              int8    NOT NULL,
    seq             int8    NOT NULL GENERATED ALWAYS AS IDENTITY,   -- the order of acceptance
    generation      int8    NOT NULL,
    fence           int8    NOT NULL DEFAULT 0,   -- counts the writes; every write names the one it saw
    owner           int8,                         -- the process that holds it while `due` is a lease
    state           text    NOT NULL,
    lane            int2    NOT NULL,             -- 0 nothing to do, 1-7 pending sinks (bits), 8 API
    due             int8,
    attempts        int8    NOT NULL,
    tries           int8    NOT NULL,             -- failed reads, or refusals of a sink
    ever_unknown    boolean NOT NULL,
    not_found_since int8,
    failure_class   text,
    failure_code    text,
    accepted_at     int8    NOT NULL,
    begun_at        int8    NOT NULL,
    code            text,                         -- erased after store.erase_codes_after
    fingerprint     bytea,
    previous        bytea,                        -- after a reissue: of the code that is being replaced
    origin          text,
    ready_at        int8,
    ended_at        int8,                         -- published or dead since
    event_id        text    NOT NULL,
    event_source    text    NOT NULL,
    trucker         text,                         -- JSON of the included fields
    traceparent     text,
    tracestate      text,
    PRIMARY KEY (account, pk)
) WITH (
    -- A row is written three or four times within a second and then rests: room for its versions on its page, and
    -- an autovacuum that does not wait for a fifth of a big table.
    fillfactor = 75, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02
);

CREATE UNIQUE INDEX invites_seq    ON invites (seq);
CREATE INDEX invites_due_api       ON invites (account, due) WHERE lane = 8;
CREATE INDEX invites_due_publish   ON invites (lane, due)    WHERE lane BETWEEN 1 AND 7;
CREATE INDEX invites_with_code     ON invites (ended_at)     WHERE state = 'published' AND code IS NOT NULL;

CREATE INDEX invites_dead          ON invites (ended_at)     WHERE state = 'dead';
CREATE INDEX invites_retired       ON invites (ended_at, seq) WHERE state = 'published' AND lane = 0;

-- Every accepted event, for as long as store.retention: a sender that repeats itself is recognised.
CREATE TABLE events (
    seq         int8 NOT NULL GENERATED ALWAYS AS IDENTITY,
    account     text NOT NULL,
    pk          int8 NOT NULL,
    id          text NOT NULL,
    source      text NOT NULL,
    accepted_at int8 NOT NULL,
    PRIMARY KEY (account, pk, id, source)
);

-- Truckers whose invite was removed after store.retention: their next code is the next generation.
CREATE TABLE retired (
    account    text NOT NULL,
    pk         int8 NOT NULL,
    generation int8 NOT NULL,
    PRIMARY KEY (account, pk)
);

-- How many invites are in which state: nobody counts a million rows. Whoever moves invites notes it in the same
-- transaction. Notes are only ever added, so that no writer waits for another; now and then they are summed up.
CREATE TABLE moves (
    account    text NOT NULL,
    from_state text,                              -- empty for new invites
    to_state   text,                              -- empty for removed ones
    n          int8 NOT NULL
) WITH (
    -- Short-lived rows: their pages are used again, and nobody is locked out to give them back.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, vacuum_truncate = off
);

CREATE TABLE counts (
    account text NOT NULL,
    state   text NOT NULL,
    n       int8 NOT NULL,
    PRIMARY KEY (account, state)
);

CREATE VIEW tally AS
    SELECT account, state, sum(n)::int8 AS n FROM (
        SELECT account, state, n FROM counts
        UNION ALL SELECT account, from_state, -n FROM moves WHERE from_state IS NOT NULL
        UNION ALL SELECT account, to_state, n FROM moves WHERE to_state IS NOT NULL
    ) AS noted GROUP BY account, state;

CREATE TABLE gates (
    account text PRIMARY KEY,
    reason  text NOT NULL,
    until   int8 NOT NULL,
    strikes int8 NOT NULL
);

-- The processes at work. They share the rate of each account.
CREATE TABLE replicas (
    owner int8 PRIMARY KEY,
    seen  int8 NOT NULL
);

-- What people asked for: dead invites back to work, new codes.
CREATE TABLE orders (
    seq    int8 PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id     text NOT NULL UNIQUE,
    at     int8 NOT NULL,
    by     text NOT NULL,
    kind   text NOT NULL,
    target text NOT NULL,
    count  int8 NOT NULL
);

-- Written now and then, so that a store that takes no writes is noticed, and its recovery as well.
CREATE TABLE pulse (
    one int2 PRIMARY KEY CHECK (one = 1),
    at  int8 NOT NULL
);

CREATE TABLE secrets (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);
