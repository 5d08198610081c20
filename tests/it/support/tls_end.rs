//! An end that is reached over TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// Takes connections over TLS and passes their bytes on to a target in plain text. Ends with its handle.
pub(crate) struct TlsEnd {
    pub(crate) address: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

impl TlsEnd {
    /// An end before `target`; `server.crt` and `server.key` are in the directory `certificate`.
    pub(crate) async fn before(target: SocketAddr, certificate: &Path) -> Self {
        // Only the first caller installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let chain = CertificateDer::pem_file_iter(certificate.join("server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(certificate.join("server.key")).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(chain.map(Result::unwrap).collect(), key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the handle")]
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // Whoever does not trust the certificate hangs up.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let Ok(mut target) = TcpStream::connect(target).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut target).await;
                });
            }
        });
        Self { address, _accepting: AbortOnDropHandle::new(accepting) }
    }
}
