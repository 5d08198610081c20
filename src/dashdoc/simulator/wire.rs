//! What goes over the connection: answers that are whole, cut or dripping, and connections that really reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Bytes per piece of a dripping body.
const DRIP_BYTES: usize = 64;

/// How a request ends on its connection.
pub(super) enum Outcome {
    Answer(Response<Payload>),
    /// The connection is closed without a byte.
    Close,
    /// The connection is reset.
    Reset,
}

impl Outcome {
    pub(super) fn json(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::Answer(response(status, "application/json", Payload::Whole(Some(text.into()))))
    }

    pub(super) fn html(status: StatusCode, text: &'static str) -> Self {
        Self::Answer(response(status, "text/html; charset=utf-8", Payload::Whole(Some(text.into()))))
    }

    /// The first half of `text` under a `Content-Length` of all of it.
    pub(super) fn half(status: StatusCode, text: impl Into<Bytes>) -> Self {
        let mut first = text.into();
        let declared = first.len() as u64;
        first.truncate(first.len() / 2);
        let half = Payload::Half { declared, first: Some(first), flushed: false };
        Self::Answer(response(status, "application/json", half))
    }

    /// `text` in small pieces, with a wait of `every` before each.
    pub(super) fn drip(status: StatusCode, text: impl Into<Bytes>, every: Duration) -> Self {
        let pause = Box::pin(tokio::time::sleep(every));
        Self::Answer(response(status, "application/json", Payload::Drip { rest: text.into(), every, pause }))
    }

    /// The answer with one more header; nothing for other outcomes or a value that is no header.
    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: Option<String>) -> Self {
        if let (Self::Answer(response), Some(Ok(value))) = (&mut self, value.map(HeaderValue::try_from)) {
            response.headers_mut().insert(name, value);
        }
        self
    }

    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Answer(response) => Some(response.status()),
            Self::Close | Self::Reset => None,
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, payload: Payload) -> Response<Payload> {
    let mut response = Response::new(payload);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The body of an answer.
pub(super) enum Payload {
    Whole(Option<Bytes>),
    Half {
        declared: u64,
        first: Option<Bytes>,
        /// Whether the connection had its turn to write `first` out.
        flushed: bool,
    },
    Drip {
        rest: Bytes,
        every: Duration,
        pause: Pin<Box<Sleep>>,
    },
}

/// The service's or the body's way to make hyper drop the connection.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut on purpose")]
pub(super) struct Cut;

impl Body for Payload {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Half { first, flushed, .. } => {
                if let Some(first) = first.take() {
                    return Poll::Ready(Some(Ok(Frame::data(first))));
                }
                if *flushed {
                    return Poll::Ready(Some(Err(Cut)));
                }
                // hyper flushes what it has when a body is pending, and drops it when a body fails.
                *flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Drip { rest, every, pause } => {
                if rest.is_empty() {
                    return Poll::Ready(None);
                }
                ready!(pause.as_mut().poll(cx));
                pause.as_mut().reset(tokio::time::Instant::now() + *every);
                Poll::Ready(Some(Ok(Frame::data(rest.split_to(DRIP_BYTES.min(rest.len()))))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(text) => text.is_none(),
            Self::Half { .. } => false,
            Self::Drip { rest, .. } => rest.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(text) => text.as_ref().map_or(0, |text| text.len() as u64),
            Self::Half { declared, .. } => *declared,
            Self::Drip { rest, .. } => rest.len() as u64,
        })
    }
}

/// Tells a [`Wire`] to reset when it is dropped; held by the service of that connection.
#[derive(Clone, Default)]
pub(super) struct ResetSwitch(Arc<AtomicBool>);

impl ResetSwitch {
    pub(super) fn pull(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A TCP connection that ends with RST instead of FIN once its switch is pulled.
pub(super) struct Wire {
    stream: TcpStream,
    switch: ResetSwitch,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> (Self, ResetSwitch) {
        let switch = ResetSwitch::default();
        (Self { stream, switch: switch.clone() }, switch)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.switch.0.load(Ordering::Acquire) {
            // With no time to linger, the close that follows this sends RST.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
