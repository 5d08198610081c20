//! The API, as lean as can be: it answers every POST with a code, after a pause. Also the collector of the traces.
//!
//! `as-stub LATENCY_MS`; it writes its port into the file that the second argument names. A line on its standard input
//! changes what it does: `throttle` refuses every call with 429, `open` ends that.

use std::io::BufRead as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) fn main(arguments: &[String]) {
    let latency = Duration::from_millis(arguments[0].parse().unwrap());
    let throttling = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&throttling);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            switch.store(line == "throttle", Ordering::Relaxed);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        // Renamed into place, so that nobody reads half of it.
        let unfinished = format!("{}.unfinished", arguments[1]);
        std::fs::write(&unfinished, port).unwrap();
        std::fs::rename(&unfinished, &arguments[1]).unwrap();
        let mut serving = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            serving.spawn(serve(stream, latency, Arc::clone(&throttling)));
            while serving.try_join_next().is_some() {}
        }
    });
}

async fn serve(mut stream: TcpStream, latency: Duration, throttling: Arc<AtomicBool>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let Some(head) = find(&buffer, b"\r\n\r\n") else {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
                return;
            }
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head]).unwrap_or_default();
        let whole = head + 4 + content_length(text);
        let pk = pk_of(text);
        while buffer.len() < whole {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
                return;
            }
        }
        buffer.drain(..whole);
        let answer = match pk {
            None => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
            Some(_) if throttling.load(Ordering::Relaxed) => {
                "HTTP/1.1 429 Too Many Requests\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            Some(pk) => {
                if !latency.is_zero() {
                    tokio::time::sleep(latency).await;
                }
                let body = format!(r#"{{"pk":{pk},"invite_code":"B{:05X}"}}"#, pk & 0xF_FFFF);
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn content_length(head: &str) -> usize {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

fn pk_of(head: &str) -> Option<u64> {
    let rest = head.split_once("/manager-truckers/")?.1;
    rest.split('/').next()?.parse().ok()
}
