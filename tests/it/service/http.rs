//! Plain requests to the service.

use std::sync::OnceLock;

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

pub(crate) async fn get(url: String) -> String {
    exchange(client().get(url)).await.expect("the admin port answers").body
}

/// `None` if nobody answers.
pub(crate) async fn post(url: String, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
    let request = client().post(url).body(body.to_owned());
    exchange(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

async fn exchange(request: reqwest::RequestBuilder) -> Option<Answer> {
    let response = client().execute(request.build().unwrap()).await.ok()?;
    let status = response.status().as_u16();
    Some(Answer { status, body: response.text().await.ok()? })
}

/// Without idle connections: each test has a runtime of its own, and a connection ends with the runtime it is on.
fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // Fails only where another test has installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap()
    })
}
