//! The broker's first words, which the client library reads and keeps to itself: what it is, and its version.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;

use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::protocol::{AMQPClass, connection, parse_class};
use lapin::tcp::AsyncTcpStream;
use lapin::types::AMQPValue;

use super::connection::CONNECT_TIMEOUT;
use super::tls::secured;
use super::{Endpoint, Error};

/// What a client of AMQP 0-9-1 says first.
const HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// Largest greeting that is read; RabbitMQ's has about 500 bytes.
const GREETING_MAX: usize = 16 * 1024;

/// What a broker says of itself, before any login. It could say anything: text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// For example `RabbitMQ`.
    pub product: String,
    /// For example `4.0.5`.
    pub version: String,
}

/// Connects, hears the greeting and leaves. Proves name resolution, TCP and TLS; credentials are not sent.
pub async fn greet(endpoint: &Endpoint) -> Result<Server, Error> {
    match tokio::time::timeout(CONNECT_TIMEOUT, hear(endpoint)).await {
        Ok(heard) => heard.map_err(|error| Error::Lost(error.to_string())),
        Err(_) => Err(Error::Timeout { doing: "connecting", limit: CONNECT_TIMEOUT }),
    }
}

async fn hear(endpoint: &Endpoint) -> io::Result<Server> {
    let addresses = tokio::net::lookup_host((endpoint.host(), endpoint.port())).await?;
    let runtime = lapin::runtime::default_runtime().map_err(io::Error::other)?;
    let stream = AsyncTcpStream::connect(&runtime, addresses.collect::<Vec<_>>()).await?;
    let mut stream = secured(stream, endpoint).await?;
    say(&mut stream, HEADER).await?;
    // A frame: type, channel, size of the payload, payload, end mark.
    let start = listen(&mut stream, 7).await?;
    if start[..3] != [1, 0, 0] {
        return Err(io::Error::new(ErrorKind::InvalidData, "it answers, but not in AMQP 0-9-1"));
    }
    let size = u32::from_be_bytes([start[3], start[4], start[5], start[6]]) as usize;
    if size > GREETING_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "its greeting is too long"));
    }
    let payload = listen(&mut stream, size).await?;
    read(&payload).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "its greeting can't be read"))
}

fn read(payload: &[u8]) -> Option<Server> {
    let Ok((_, AMQPClass::Connection(connection::AMQPMethod::Start(start)))) = parse_class(payload) else {
        return None;
    };
    let property = |name: &str| match start.server_properties.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        Some(_) | None => None,
    };
    let unnamed = || "(unnamed)".to_owned();
    Some(Server {
        product: property("product").unwrap_or_else(unnamed),
        version: property("version").unwrap_or_else(unnamed),
    })
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)).await?;
        bytes = &bytes[written..];
    }
    poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await
}

async fn listen(stream: &mut (impl AsyncRead + Unpin), size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut n_read = 0;
    while n_read < size {
        match poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut bytes[n_read..])).await? {
            0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it hung up without a word")),
            n => n_read += n,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn answered_with(answer: &'static [u8]) -> Result<Server, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://{}", listener.local_addr().unwrap());
        let endpoint = Endpoint::parse(&url.into()).unwrap();
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 8]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(greet(&endpoint), answering).0
    }

    #[tokio::test]
    async fn what_the_broker_says_of_itself_is_heard() {
        // Connection.Start 0-9 with the table {product: "MQ", version: "4"}, mechanisms "PLAIN", locales "en".
        let greeting = b"\x01\x00\x00\x00\x00\x00\x36\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x1d\
            \x07productS\x00\x00\x00\x02MQ\x07versionS\x00\x00\x00\x014\
            \x00\x00\x00\x05PLAIN\x00\x00\x00\x02en\xce";
        let server = answered_with(greeting).await.unwrap();
        assert_eq!(server, Server { product: "MQ".into(), version: "4".into() });
    }

    #[tokio::test]
    async fn something_that_is_no_broker_is_told_apart() {
        let error = answered_with(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap_err();
        assert!(error.to_string().contains("not in AMQP"), "{error}");
        let error = answered_with(b"").await.unwrap_err();
        assert!(error.to_string().contains("hung up"), "{error}");
    }
}
