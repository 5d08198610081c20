-- A batch is handed over as one array of rows. What follows holds up writers for one or two seconds per million invites.
CREATE TYPE new_invite AS (
    account         text,
    pk              int8,
    owner           int8,
    generation      int8,
    state           text,
    lane            int2,
    due             int8,
    attempts        int8,
    tries           int8,
    ever_unknown    boolean,
    not_found_since int8,
    failure_class   text,
    failure_code    text,
    accepted_at     int8,
    begun_at        int8,
    ended_at        int8,
    event_id        text,
    event_source    text,
    trucker         text,
    traceparent     text,
    tracestate      text
);
CREATE TYPE moved_invite AS (
    account         text,
    pk              int8,
    fence           int8,                         -- of the version that is written over
    from_state      text,
    owner           int8,
    generation      int8,
    state           text,
    lane            int2,
    due             int8,
    attempts        int8,
    tries           int8,
    ever_unknown    boolean,
    not_found_since int8,
    failure_class   text,
    failure_code    text,
    begun_at        int8,
    code            text,
    fingerprint     bytea,
    previous        bytea,
    origin          text,
    ready_at        int8,
    ended_at        int8
);

-- Each write of an invite enters its new version into every index: the fewer of them the better. Without this one a
-- person's list of the newest goes through all invites: half a second for a million.
DROP INDEX invites_seq;

-- Most keys differ in their number, which is compared faster than a text.
ALTER TABLE invites DROP CONSTRAINT invites_pkey, ADD PRIMARY KEY (pk, account);

-- From here on `events` has those that joined an invite; the first one stands in the invite itself.
