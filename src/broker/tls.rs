//! The encrypted way to a broker: its certificate is verified, by the system's authorities and those of a file.

use std::io::{self, ErrorKind};

use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::{AsyncTcpStream, TLSConfig};
use lapin::uri::AMQPScheme;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Endpoint;

/// Encrypts the stream if the endpoint's address says `amqps`. The file with the authorities is read anew each time: it
/// may have changed since the last connection.
pub(super) async fn secured<S>(
    stream: AsyncTcpStream<S>,
    endpoint: &Endpoint,
) -> io::Result<AsyncTcpStream<S>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match endpoint.uri().scheme {
        AMQPScheme::AMQP => Ok(stream),
        AMQPScheme::AMQPS => {
            let authorities = authorities(endpoint).await?;
            let config = TLSConfig { cert_chain: authorities.as_deref(), ..TLSConfig::default() };
            stream.into_tls(endpoint.host(), config).await
        }
    }
}

/// The further authorities, as PEM.
async fn authorities(endpoint: &Endpoint) -> io::Result<Option<String>> {
    let Some(path) = endpoint.ca_file() else { return Ok(None) };
    let unusable =
        |why: String| io::Error::new(ErrorKind::InvalidData, format!("ca_file {}: {why}", path.display()));
    let pem = tokio::fs::read_to_string(path).await.map_err(|error| unusable(error.to_string()))?;
    // The client library takes a file without certificates for one that asks for nothing, and names none in its errors.
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(Some(pem)),
        Ok(_) => Err(unusable("it holds no readable PEM certificate".to_owned())),
        Err(error) => Err(unusable(format!("it can't be read as PEM: {error}"))),
    }
}
