//! The ports that the service opens: free, or held by the service itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::finding::{Finding, Findings};
use super::keys::Keys;
use super::net;
use crate::config::Config;

pub(super) async fn check(config: &Config, keys: Keys<'_>) -> Vec<Finding> {
    let admin = config.admin.listen;
    let is_running = answers_livez(admin).await;
    let mut findings = Findings::about("admin");
    port(admin, &keys.place("admin.listen"), is_running, &mut findings).await;
    let mut found = findings.found;
    let webhook = &config.source.webhook;
    if webhook.enabled {
        let mut findings = Findings::about("source.webhook");
        port(webhook.listen, &keys.place("source.webhook.listen"), is_running, &mut findings).await;
        found.extend(findings.found);
    }
    found
}

async fn port(address: SocketAddr, key: &str, is_running: bool, findings: &mut Findings) {
    if address.port() == 0 {
        return findings.ok("port", "any free port");
    }
    match TcpListener::bind(address).await {
        Ok(_) => findings.ok("port", format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            if is_running {
                return findings.ok("port", format!("{address} is in use, and the service answers /livez"));
            }
            let port = address.port();
            let mend = format!("find out by whom: ss -ltnp 'sport = :{port}'; or change {key}");
            findings.failed("port", format!("{address} is in use, and not by this service"), mend);
        }
        Err(error) => {
            let mend = match error.kind() {
                std::io::ErrorKind::AddrNotAvailable => {
                    format!(
                        "{} is no address of this machine; correct {key} (0.0.0.0 is all of them)",
                        address.ip()
                    )
                }
                std::io::ErrorKind::PermissionDenied => {
                    format!("ports below 1024 are for root; use a higher one in {key}")
                }
                _ => format!("correct {key}"),
            };
            findings.failed("port", format!("can't listen on {address}: {error}"), mend);
        }
    }
}

/// Whether somebody says at `address` that his process turns, in this service's words.
async fn answers_livez(address: SocketAddr) -> bool {
    let asking = async {
        let mut stream = TcpStream::connect(reachable(address)).await?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.take(2048).read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match timeout(net::LIMIT, asking).await {
        Ok(Ok(answer)) => answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok\n"),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// An address to connect to, for one to listen on.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn verdict(address: &str, is_running: bool) -> &'static str {
        let mut findings = Findings::about("admin");
        port(address.parse().unwrap(), "admin.listen", is_running, &mut findings).await;
        findings.found[0].verdict.as_str()
    }

    #[tokio::test]
    async fn a_port_in_use_is_fine_only_if_the_service_itself_uses_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        assert_eq!(verdict(&address, false).await, "failed");
        assert_eq!(verdict(&address, true).await, "ok");
        drop(taken);
        assert_eq!(verdict(&address, false).await, "ok");
        assert_eq!(verdict("127.0.0.1:0", false).await, "ok");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_fails() {
        // TEST-NET-1, which no machine has.
        assert_eq!(verdict("192.0.2.1:9090", false).await, "failed");
    }

    #[tokio::test]
    async fn the_service_is_told_from_another_server() {
        for (answer, is_service) in
            [("HTTP/1.1 200 OK\r\n\r\nok\n", true), ("HTTP/1.1 200 OK\r\n\r\nhello", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let (answers, ()) = tokio::join!(answers_livez(address), answering);
            assert_eq!(answers, is_service, "{answer}");
        }
    }
}
