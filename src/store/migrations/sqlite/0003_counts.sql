-- How many invites are in which state, kept up to date by every commit: to count a million at the start takes seconds.
CREATE TABLE counts (
    account TEXT    NOT NULL,
    state   TEXT    NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (account, state)
) STRICT, WITHOUT ROWID;

INSERT INTO counts SELECT account, state, count(*) FROM invites GROUP BY account, state;
