//! What the targets in `fuzz/` call. It exists under `--cfg fuzzing`, and for the tests of this
//! module, so nobody else can.
//!
//! Each function takes what anyone who has the address can send, and asserts more than that it does
//! not panic.

use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request, Uri, header};
use rmcp::model::ClientJsonRpcMessage;

use super::allowed::Allowed;
use super::message::{Content, Message};
use super::{headers, json, mcp};

/// A body. What is accepted, `serde_json` and the protocol's own types read as the same.
///
/// # Panics
///
/// When they do not.
pub fn message(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        json::compare_with_serde(text);
    }
    let Ok(message) = Message::read(Bytes::copy_from_slice(bytes)) else { return };
    let read: ClientJsonRpcMessage = serde_json::from_slice(bytes).expect("no message after all");
    match (message.content(), read) {
        (Content::Call(call), ClientJsonRpcMessage::Request(read)) => {
            assert_eq!(call.id, Some(read.id.into_json_value()));
            assert_eq!(call.method, read.request.method());
        }
        (Content::Call(call), ClientJsonRpcMessage::Notification(_)) => assert_eq!(call.id, None),
        (Content::Response, ClientJsonRpcMessage::Response(_) | ClientJsonRpcMessage::Error(_)) => {
        }
        (content, read) => unreachable!("{content:?} is read as {read:?}"),
    }
    assert_eq!(message.into_bytes(), bytes);
}

/// Headers, one a line. What is served is a loopback name for another parser of URLs, too.
///
/// # Panics
///
/// When it is not.
pub fn headers(bytes: &[u8]) {
    let mut request = Request::new(());
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii()))
        {
            request.headers_mut().append(name, value);
        }
    }
    let (parts, ()) = request.into_parts();
    let tokens = parts.headers.get_all(header::AUTHORIZATION).iter().count();
    assert!(mcp::bearer(&parts.headers).is_none() || tokens == 1);
    let allowed = Allowed::new(&[], &[]).expect("loopback has names");
    if allowed.check(&parts).is_ok() {
        let host = parts.headers[header::HOST].to_str().expect("it was read");
        assert!(is_loopback(&format!("http://{host}/")), "{host}");
        if let Some(origin) = parts.headers.get(header::ORIGIN) {
            let origin = origin.to_str().expect("it was read");
            assert!(is_loopback(&format!("{origin}/")), "{origin}");
        }
    }
    check_agreement(&parts);
}

fn is_loopback(url: &str) -> bool {
    let url: Uri = url.parse().expect("no URL after all");
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    assert_eq!(url.path(), "/");
    assert!(!url.authority().is_some_and(|authority| authority.as_str().contains('@')));
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn check_agreement(parts: &Parts) {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;
    let message = Message::read(Bytes::from_static(body.as_bytes())).expect("a message");
    if headers::check_form(&parts.headers).is_ok()
        && headers::check_body(&parts.headers, &message).is_ok()
    {
        let names =
            [("mcp-method", "tools/call"), ("mcp-name", "a"), ("mcp-name", "=?base64?YQ==?=")];
        for name in ["mcp-method", "mcp-name"] {
            let sent = parts.headers.get(name);
            assert!(sent.is_none_or(|sent| {
                names.iter().any(|known| *known == (name, sent.to_str().unwrap_or_default()))
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The requests of the hostile corpus, heads and bodies apart.
    fn seeds() -> impl Iterator<Item = &'static str> {
        let corpus = include_str!("../../tests/service/hostile_http.txt");
        corpus.split("\n\n").filter(|part| !part.is_empty())
    }

    #[test]
    fn the_seeds_of_the_fuzz_targets_pass() {
        assert!(seeds().count() > 200);
        for seed in seeds() {
            message(seed.as_bytes());
            headers(seed.replace("<<host>>", "localhost").as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_message_with_another_byte_anywhere_is_refused_or_read_as_by_others(
            at in 0..1_000_usize, byte in proptest::num::u8::ANY, seed in 0..400_usize,
        ) {
            let bodies: Vec<_> = seeds().filter(|seed| seed.starts_with('{')).collect();
            let mut body = bodies[seed % bodies.len()].as_bytes().to_vec();
            let length = body.len();
            body[at % length] = byte;
            message(&body);
        }
    }
}
