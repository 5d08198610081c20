//! The shared store: a server that is new enough, may be written to, keeps what it commits and agrees on the time.

use std::time::Duration;

use super::finding::Findings;
use crate::store::postgres::{AddressSource, CONNECTIONS, Inspection, OLDEST_SERVER, SCHEMA, Tls, inspect};
use crate::time;

/// Times are the server's; a clock that is this far away makes logs and events hard to compare.
const SKEW_MAX: Duration = Duration::from_secs(5);

pub(super) async fn check(source: &AddressSource, url: &str, mut findings: Findings) -> Findings {
    let asked = time::now();
    let found = match inspect(source).await {
        Ok(found) => found,
        Err(error) => {
            let mend = format!(
                "start the server, or correct host, port, user, password and database of {url}; a certificate that \
                 the system does not know goes into store.ca_file"
            );
            findings.failed("server", error.to_string(), mend);
            return findings;
        }
    };
    server(&found, &mut findings);
    encryption(&found, url, &mut findings);
    schema(&found, &mut findings);
    rights(&found, url, &mut findings);
    durability(&found, &mut findings);
    failover(&found, &mut findings);
    connections(&found, &mut findings);
    let (early, late) = (asked.since(found.now), found.now.since(time::now()));
    let skew = early.max(late);
    if skew > SKEW_MAX {
        let evidence = format!("the server's clock is {} s away from this machine's", skew.as_secs());
        findings.warning("clock", evidence, "synchronise both clocks (NTP); leases are on the server's");
    } else {
        findings.ok("clock", "agrees with this machine's");
    }
    findings
}

fn server(found: &Inspection, findings: &mut Findings) {
    let evidence = format!("{} is PostgreSQL {}", found.address, found.version);
    if found.major < OLDEST_SERVER {
        let mend = format!("upgrade the server to PostgreSQL {OLDEST_SERVER} or later");
        findings.failed("server", evidence, mend);
    } else {
        findings.ok("server", evidence);
    }
}

fn encryption(found: &Inspection, url: &str, findings: &mut Findings) {
    match found.tls {
        Tls::Verified => findings.ok("tls", "encrypted, and the certificate is verified"),
        Tls::Local => findings.ok("tls", "in plain text, within this machine"),
        Tls::Disabled => {
            let mend = format!("take sslmode=disable out of {url}");
            findings.warning("tls", "in plain text over the network: codes can be read on the way", mend);
        }
    }
}

fn schema(found: &Inspection, findings: &mut Findings) {
    match found.schema {
        None | Some(0) => findings.ok("schema", "not there yet; the service makes it"),
        Some(schema) if schema > SCHEMA => findings.failed(
            "schema",
            format!("schema {schema}, written by a newer version; this one knows {SCHEMA}"),
            "run that version, or restore a backup",
        ),
        Some(schema) if schema < SCHEMA => {
            findings.ok("schema", format!("schema {schema}; the service brings it to {SCHEMA}"));
        }
        Some(schema) => findings.ok("schema", format!("schema {schema}")),
    }
}

fn rights(found: &Inspection, url: &str, findings: &mut Findings) {
    match &found.rights {
        Ok(()) => findings.ok("rights", "tables can be made and rows can be written"),
        Err(why) => {
            let mend = format!(
                "let the role of {url} create and write in its schema: GRANT CREATE, USAGE ON SCHEMA public TO ROLE; \
                 tables that another role made: ALTER TABLE … OWNER TO ROLE"
            );
            findings.failed("rights", why.clone(), mend);
        }
    }
}

fn durability(found: &Inspection, findings: &mut Findings) {
    let mode = &found.synchronous_commit;
    if !found.crash_safe {
        let evidence = "fsync or full_page_writes is off: a power cut can destroy the database";
        findings.warning("durability", evidence, "set fsync = on and full_page_writes = on on the server");
    } else if matches!(mode.as_str(), "on" | "remote_apply") {
        findings.ok("durability", format!("synchronous_commit = {mode}"));
    } else {
        let evidence = format!("synchronous_commit = {mode} on the server; the service's sessions set it on");
        findings.ok("durability", evidence);
    }
}

/// A base backup or a logical subscriber counts as a standby too, while it runs: nothing tells them apart for a role without
/// privileges.
fn failover(found: &Inspection, findings: &mut Findings) {
    match (found.standbys, found.waits_for_standbys) {
        (0, false) => findings.ok("failover", "the server has no standby that it knows of"),
        (0, true) => findings.failed(
            "failover",
            "commits wait for a standby (synchronous_standby_names), and none follows: nothing can be committed",
            "bring a standby back, or take it out of synchronous_standby_names on the server",
        ),
        (_, true) => findings.ok("failover", "commits wait for the standbys in synchronous_standby_names"),
        (standbys, false) => {
            let evidence = format!(
                "commits wait for none of the standbys ({standbys}): if one takes over, the last commits are gone, and \
                 with them events that were acknowledged and codes that were announced"
            );
            let mend = "name the standbys that may take over in synchronous_standby_names on the server; nothing to do \
                        if none of them ever does";
            findings.warning("failover", evidence, mend);
        }
    }
}

fn connections(found: &Inspection, findings: &mut Findings) {
    let evidence = format!("{} free, {CONNECTIONS} needed for each replica", found.free_connections);
    if usize::try_from(found.free_connections).is_ok_and(|free| free >= CONNECTIONS) {
        findings.ok("connections", evidence);
    } else {
        let mend = "raise max_connections on the server, or close connections that nobody uses";
        findings.warning("connections", evidence, mend);
    }
}
