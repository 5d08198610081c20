//! A broker that is reached over TLS.

use std::path::{Path, PathBuf};

use invite_relay::broker::{Error, connect, greet};
use secrecy::SecretString;
use tempfile::TempDir;

use super::endpoint;
use crate::support::certificates::certificates;
use crate::support::rabbitmq::RabbitMq;

/// A broker with a certificate for 127.0.0.1, and the directory of its authority.
fn broker() -> (RabbitMq, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let broker = tokio::task::block_in_place(|| {
        certificates(directory.path());
        RabbitMq::start_with_tls(directory.path())
    });
    (broker, directory)
}

async fn enter(url: &SecretString, ca_file: Option<&Path>) -> Result<(), Error> {
    // Only the first caller installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = endpoint(url).with_ca_file(ca_file.map(PathBuf::from));
    greet(&endpoint).await?;
    connect(&endpoint, "test").await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_trusted_by_its_certificate_only() {
    let (broker, directory) = broker();
    let file = |name: &str| directory.path().join(name);
    let url = broker.url_with_tls("127.0.0.1");
    enter(&url, Some(&file("ca.crt"))).await.unwrap();

    let refused = async |url: &SecretString, ca_file: Option<&str>| {
        let ca_file = ca_file.map(file);
        enter(url, ca_file.as_deref()).await.unwrap_err().to_string()
    };
    for ca_file in [None, Some("other.crt")] {
        let error = refused(&url, ca_file).await;
        assert!(error.contains("certificate") && error.contains("UnknownIssuer"), "{error}");
    }
    // The right authority, for another host.
    let error = refused(&broker.url_with_tls("localhost"), Some("ca.crt")).await;
    assert!(error.contains("certificate not valid for name"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_authorities_that_can_not_be_used_is_named_and_trusts_nobody() {
    let (broker, directory) = broker();
    let url = broker.url_with_tls("127.0.0.1");
    let good = std::fs::read_to_string(directory.path().join("ca.crt")).unwrap();
    std::fs::write(directory.path().join("empty.crt"), "").unwrap();
    std::fs::write(directory.path().join("cut.crt"), format!("{good}{}", &good[..good.len() / 2])).unwrap();
    for (name, why) in [
        ("missing.crt", "No such file"),
        ("empty.crt", "no readable PEM certificate"),
        ("server.key", "no readable PEM certificate"),
        ("cut.crt", "can't be read as PEM"),
    ] {
        let file = directory.path().join(name);
        let endpoint = endpoint(&url).with_ca_file(Some(file.clone()));
        let errors =
            [greet(&endpoint).await.unwrap_err(), Box::pin(connect(&endpoint, "test")).await.err().unwrap()];
        for error in errors.map(|error| error.to_string()) {
            assert!(error.contains(&format!("ca_file {}", file.display())) && error.contains(why), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_that_are_renewed_in_their_file_count_from_the_next_connection_on() {
    let (broker, directory) = broker();
    let (url, file) = (broker.url_with_tls("127.0.0.1"), directory.path().join("trusted.crt"));
    std::fs::copy(directory.path().join("other.crt"), &file).unwrap();
    let endpoint = endpoint(&url).with_ca_file(Some(file.clone()));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let error = connect(&endpoint, "test").await.err().unwrap().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    std::fs::copy(directory.path().join("ca.crt"), &file).unwrap();
    connect(&endpoint, "test").await.unwrap();
}
