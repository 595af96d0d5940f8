use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::response::IntoResponse as _;
use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, DuplexStream};
use tokio::sync::Notify;

use super::*;

const OPTIONS: Options = Options { max_line_bytes: 200, drain_timeout: Duration::from_secs(5) };

/// Answers with what it is sent, in the way that the method names.
#[derive(Clone, Default)]
struct Echo {
    /// Told when a call that does not end is dropped.
    dropped: Arc<Notify>,
    dropped_calls: Arc<AtomicUsize>,
    is_cut: Arc<AtomicBool>,
    /// Of the dropped ones, those that were cut.
    cut_calls: Arc<AtomicUsize>,
}

/// Counts itself when it goes.
struct Hanging(Echo);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.dropped_calls.fetch_add(1, Ordering::Relaxed);
        let is_cut = self.0.is_cut.load(Ordering::Relaxed);
        self.0.cut_calls.fetch_add(usize::from(is_cut), Ordering::Relaxed);
        self.0.dropped.notify_one();
    }
}

impl Endpoint for Echo {
    async fn post(&self, request: Request) -> io::Result<Response> {
        let headers = request.headers().clone();
        let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
        let Ok(message) = serde_json::from_slice::<Value>(&body) else {
            return Ok((StatusCode::BAD_REQUEST, rpc_error(-32_700, "no JSON").to_string())
                .into_response());
        };
        let said = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let result = json!({
            "jsonrpc": "2.0", "id": message["id"], "result": {
                "protocolVersion": "2025-06-18",
                "version": said("mcp-protocol-version"),
                "method": said("mcp-method"),
                "name": said("mcp-name"),
            },
        });
        Ok(match message["method"].as_str().unwrap_or_default() {
            "hang" | LISTEN => {
                let _hanging = Hanging(self.clone());
                std::future::pending().await
            }
            "breaks" => answer_that_breaks("application/json", "{\"jsonrpc\":"),
            "breaks at once" => answer_that_breaks("application/json", ""),
            "stream breaks" => {
                answer_that_breaks("text/event-stream", "data: {\"method\":\"x\"}\n\n")
            }
            "stream ends" => {
                let event = "data: {\"method\":\"x\"}\n\n";
                ([(header::CONTENT_TYPE, "text/event-stream")], event).into_response()
            }
            "away" => return Err(io::ErrorKind::ConnectionRefused.into()),
            "refused" => (
                StatusCode::FORBIDDEN,
                [(header::CONTENT_TYPE, "application/json")],
                rpc_error(-31_000, "no").to_string(),
            )
                .into_response(),
            "stream" => (
                [(header::CONTENT_TYPE, "text/event-stream")],
                format!(
                    ": well\n\ndata: {{\"method\":\"x\",\"progress\":1}}\n\nid: 7\ndata: {result}\n\n"
                ),
            )
                .into_response(),
            _ if message["id"].is_null() => StatusCode::ACCEPTED.into_response(),
            _ => axum::Json(result).into_response(),
        })
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }
}

/// One that begins with `text` and is not whole.
fn answer_that_breaks(content: &'static str, text: &'static str) -> Response {
    let text = (!text.is_empty()).then_some(Ok(text));
    let broken = text.into_iter().chain([Err(io::Error::from(io::ErrorKind::ConnectionReset))]);
    let body = Body::from_stream(futures_util::stream::iter(broken));
    ([(header::CONTENT_TYPE, content)], body).into_response()
}

/// JSON-RPC of the messages in `lines`.
fn rpc(lines: &str) -> String {
    let line = |line: &str| match line.strip_prefix("{\"") {
        Some(rest) => format!("{{\"jsonrpc\":\"2.0\",\"{rest}"),
        None => line.to_owned(),
    };
    lines.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// What the lines of `input` are answered with, the input having ended after them.
async fn answers(input: &str) -> Vec<Value> {
    let mut output = Vec::new();
    let input = io::Cursor::new(rpc(input));
    let stopping = CancellationToken::new();
    serve(Echo::default(), input, &mut output, OPTIONS, stopping).await.unwrap();
    let lines = output.strip_suffix(b"\n").map(|lines| lines.split(|byte| *byte == b'\n'));
    let lines = lines.into_iter().flatten();
    // A line that broke off is none.
    lines.map(|line| serde_json::from_slice(line).unwrap_or_default()).collect()
}

#[tokio::test]
async fn each_request_has_one_answer_and_a_notification_none() {
    let answered = answers(
        "{\"id\":1,\"method\":\"ping\"}\n\n \r\n{\"method\":\"notifications/x\"}\n\
         {\"id\":\"two\",\"method\":\"ping\"}",
    );
    let mut ids: Vec<_> = answered.await.iter().map(|answer| answer["id"].to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["\"two\"", "1"]);
}

#[tokio::test]
async fn a_refusal_has_the_id_of_its_request_and_one_of_a_notification_is_not_told() {
    let answered = answers("{\"id\":5,\"method\":\"refused\"}\n{\"method\":\"refused\"}").await;
    let [refused] = answered.as_slice() else { unreachable!("{answered:?}") };
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(5), &json!(-31_000)));
}

#[tokio::test]
async fn what_is_no_message_is_told_so() {
    let answered = answers("{\"id\":5,\n").await;
    assert_eq!(answered[0]["error"]["code"], -32_700);
    assert_eq!(answered[0]["id"], Value::Null);
}

#[tokio::test]
async fn a_service_that_is_away_is_an_error_of_the_call_alone() {
    let answered = answers("{\"id\":5,\"method\":\"away\"}\n{\"id\":6,\"method\":\"ping\"}").await;
    assert_eq!(answered.len(), 2, "{answered:?}");
    let away = answered.iter().find(|answer| answer["id"] == 5).unwrap();
    assert_eq!(away["error"]["code"], -32_603);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_the_next_one_is_not() {
    let long = "x".repeat(300_000);
    let answered = answers(&format!("{long}\n{{\"id\":6,\"method\":\"ping\"}}\n{long}")).await;
    let codes: Vec<_> = answered.iter().filter(|it| it["error"]["code"] == -32_600).collect();
    assert_eq!((answered.len(), codes.len()), (3, 2), "{answered:?}");
}

#[tokio::test]
async fn a_stream_is_a_line_for_each_message() {
    let answered = answers("{\"id\":5,\"method\":\"stream\"}").await;
    assert_eq!(answered[0]["progress"], 1);
    assert_eq!(answered[1]["id"], 5);
}

#[tokio::test]
async fn headers_say_what_a_message_of_the_stateless_protocol_says() {
    let meta = "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}";
    let call = format!(
        "{{\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"caf\u{e9}\",{meta}}}}}"
    );
    let said = &answers(&call).await[0]["result"];
    assert_eq!(said["version"], "2026-07-28");
    assert_eq!(said["method"], "tools/call");
    assert_eq!(said["name"], "=?base64?Y2Fmw6k=?=");
}

#[rustfmt::skip]
const INITIAL: &str = r#"{"id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"a","version":"1"}}}"#;

#[tokio::test]
async fn after_a_handshake_headers_name_the_version_that_was_agreed_on() {
    let (input, mut lines) = io::pipe().unwrap();
    let (output, client) = tokio::io::duplex(10_000);
    let conversation = serve(Echo::default(), input, output, OPTIONS, CancellationToken::new());
    let client = async {
        let mut answers = tokio::io::BufReader::new(client).lines();
        let mut versions = Vec::new();
        for message in [INITIAL, r#"{"id":1,"method":"ping"}"#] {
            writeln!(lines, "{}", rpc(message)).unwrap();
            let answer = answers.next_line().await.unwrap().unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            versions.push(answer["result"]["version"].clone());
        }
        drop(lines);
        versions
    };
    let (ended, versions) = tokio::join!(conversation, client);
    assert_eq!(ended.unwrap(), 0);
    assert_eq!(versions, [Value::Null, json!("2025-06-18")]);
}

#[tokio::test]
async fn a_cancelled_call_is_dropped_and_not_answered() {
    let (input, mut lines) = io::pipe().unwrap();
    let echo = Echo::default();
    let mut output = Vec::new();
    let conversation = serve(echo.clone(), input, &mut output, OPTIONS, CancellationToken::new());
    let client = async {
        let call = r#"{"id":"a","method":"hang"}"#;
        // The same id, in other letters.
        let cancel = r#"{"method":"notifications/cancelled","params":{"requestId":"\u0061"}}"#;
        write!(lines, "{}", rpc(&format!("{call}\n{cancel}\n"))).unwrap();
        echo.dropped.notified().await;
        drop(lines);
    };
    let (cut, ()) = tokio::join!(conversation, client);
    assert_eq!(cut.unwrap(), 0);
    assert!(output.is_empty(), "{}", String::from_utf8_lossy(&output));
}

#[tokio::test(start_paused = true)]
async fn only_a_notification_that_is_one_cancels() {
    let cancelled = r#""method":"notifications/cancelled","params":{"requestId":"a"}"#;
    for wrong in [
        format!("{{\"jsonrpc\":\"1.0\",{cancelled}}}"),
        format!("{{\"jsonrpc\":\"2.0\",\"extra\":1,{cancelled}}}"),
        format!("{{\"jsonrpc\":\"2.0\",\"id\":9,{cancelled}}}"),
    ] {
        let call = rpc(r#"{"id":"a","method":"hang"}"#);
        let input = io::Cursor::new(format!("{call}\n{wrong}\n"));
        let (mut output, stopping) = (Vec::new(), CancellationToken::new());
        let cut = serve(Echo::default(), input, &mut output, OPTIONS, stopping).await.unwrap();
        let output = String::from_utf8(output).unwrap();
        assert_eq!(cut, 1, "{wrong}: {output}");
        // Like every other message, it was posted.
        assert_eq!(wrong.contains('9'), output.contains("\"id\":9"), "{wrong}: {output}");
    }
}

#[tokio::test]
async fn an_id_is_one_calls_at_a_time() {
    let (input, mut lines) = io::pipe().unwrap();
    let (echo, stopping) = (Echo::default(), CancellationToken::new());
    let (output, client) = tokio::io::duplex(10_000);
    let conversation = serve(echo.clone(), input, output, OPTIONS, stopping);
    let client = async {
        let mut answers = tokio::io::BufReader::new(client).lines();
        let mut say = |line: &str| writeln!(lines, "{}", rpc(line)).unwrap();
        say(r#"{"id":"a","method":"hang"}"#);
        say(r#"{"id":"\u0061","method":"ping"}"#);
        let mut hear = async || {
            let answer = answers.next_line().await.unwrap().unwrap();
            serde_json::from_str::<Value>(&answer).unwrap()
        };
        let refused = hear().await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&Value::Null, &json!(-32_600)));
        // The refused one took nothing from the one that has it, nor is it in the way later.
        say(r#"{"method":"notifications/cancelled","params":{"requestId":"a"}}"#);
        echo.dropped.notified().await;
        loop {
            say(r#"{"id":"a","method":"ping"}"#);
            if hear().await["id"] == "a" {
                break;
            }
        }
        drop(lines);
    };
    let (cut, ()) = tokio::join!(conversation, client);
    assert_eq!(cut.unwrap(), 0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_of_its_call_and_the_others_go_on() {
    for (method, lines) in
        [("breaks", 3), ("breaks at once", 2), ("stream breaks", 3), ("stream ends", 3)]
    {
        let both =
            format!("{{\"id\":5,\"method\":\"{method}\"}}\n{{\"id\":6,\"method\":\"ping\"}}");
        let answered = answers(&both).await;
        assert_eq!(answered.len(), lines, "{method}: {answered:?}");
        let broken = answered.iter().find(|answer| answer["id"] == 5).unwrap();
        assert_eq!(broken["error"]["code"], -32_603, "{method}");
        assert!(!broken.to_string().contains("request id"), "{broken}");
        assert!(answered.iter().any(|answer| answer["id"] == 6), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_end_in_time_is_cut_and_counted() {
    let echo = Echo::default();
    let input = rpc("{\"id\":1,\"method\":\"hang\"}\n{\"id\":2,\"method\":\"ping\"}");
    let input = io::Cursor::new(input);
    let mut output = Vec::new();
    let stopping = CancellationToken::new();
    let cut = serve(echo.clone(), input, &mut output, OPTIONS, stopping).await.unwrap();
    assert_eq!((cut, echo.dropped_calls.load(Ordering::Relaxed)), (1, 1));
    let lines = String::from_utf8(output).unwrap();
    let told = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let [answer, cut] = &told.collect::<Vec<_>>()[..] else { unreachable!("{lines}") };
    assert_eq!((&answer["id"], &cut["id"]), (&json!(2), &json!(1)));
    assert_eq!(cut["error"]["data"]["error_code"], "CANCELLED");
}

/// Less than any line.
const NARROW: usize = 16;
const TOO_LONG: &str = "too long";
const PING: &str = r#"{"id":1,"method":"ping"}"#;
const HANG: &str = r#"{"id":2,"method":"hang"}"#;
const CANCEL_PING: &str = r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#;
const CANCEL_HANG: &str = r#"{"method":"notifications/cancelled","params":{"requestId":2}}"#;

/// How many calls of a conversation of these lines are cut. All of them are there when it begins, so
/// that a clock that is paused moves only when it waits.
async fn cut_of(echo: &Echo, lines: &[&str], output: impl AsyncWrite + Unpin) -> u64 {
    let (sender, received) = mpsc::channel(WAITING_LINES);
    for line in lines {
        let message = || Line::Message(rpc(line).into_bytes());
        let line = if *line == TOO_LONG { Line::TooLong } else { message() };
        sender.try_send(line).unwrap();
    }
    drop(sender);
    let stopping = CancellationToken::new();
    let ended = converse(echo.clone(), received, output, OPTIONS.drain_timeout, stopping);
    tokio::time::timeout(Duration::from_hours(1), ended).await.expect("it ends").unwrap()
}

/// The lines that come once the call that hangs was dropped; null for one that is no message.
async fn heard_late(echo: &Echo, mut client: DuplexStream) -> Vec<Value> {
    echo.dropped.notified().await;
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    heard.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_refused_waits_for_nobody_who_reads_the_answer_before_it() {
    for refused in [TOO_LONG, HANG] {
        let echo = Echo::default();
        let (output, _unread) = tokio::io::duplex(NARROW);
        assert_eq!(cut_of(&echo, &[HANG, PING, refused], output).await, 3);
        // A client that reads after all has both.
        let (output, client) = tokio::io::duplex(NARROW);
        let lines = [HANG, PING, refused, CANCEL_HANG];
        let (cut, heard) = tokio::join!(cut_of(&echo, &lines, output), heard_late(&echo, client));
        let codes: Vec<_> = heard.iter().map(|it| (&it["id"], &it["error"]["code"])).collect();
        let refusal = (&Value::Null, &json!(INVALID_REQUEST));
        assert_eq!((cut, &codes[..]), (0, &[(&json!(1), &Value::Null), refusal][..]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_what_was_cut_is_not_waited_for() {
    let (output, _unread) = tokio::io::duplex(NARROW);
    assert_eq!(cut_of(&Echo::default(), &[HANG], output).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cancelled_in_its_line_takes_no_other_line_with_it() {
    let (echo, (output, client)) = (Echo::default(), tokio::io::duplex(NARROW));
    let lines = [PING, CANCEL_PING, HANG, CANCEL_HANG, r#"{"id":3,"method":"ping"}"#];
    let (cut, heard) = tokio::join!(cut_of(&echo, &lines, output), heard_late(&echo, client));
    let ids: Vec<_> = heard.iter().map(|answer| &answer["id"]).collect();
    assert_eq!((cut, &ids[..]), (0, &[&Value::Null, &json!(3)][..]), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cut_in_its_line_is_told_so_on_the_next_as_are_the_others() {
    let (echo, (output, client)) = (Echo::default(), tokio::io::duplex(NARROW));
    let lines = [PING, HANG];
    let (cut, heard) = tokio::join!(cut_of(&echo, &lines, output), heard_late(&echo, client));
    let [begun, told @ ..] = &heard[..] else { unreachable!("{heard:?}") };
    let mut ids: Vec<_> = told.iter().map(|error| error["id"].as_u64()).collect();
    ids.sort();
    assert_eq!((cut, begun, &ids[..]), (2, &Value::Null, &[Some(1), Some(2)][..]));
    assert!(told.iter().all(|error| error["error"]["data"]["error_code"] == "CANCELLED"));
}

/// Has what is written, and never says that it went out.
struct NeverFlushed<'a>(&'a mut Vec<u8>);

impl AsyncWrite for NeverFlushed<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        piece: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.extend_from_slice(piece);
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_answer_is_written_is_not_cut() {
    let mut output = Vec::new();
    assert_eq!(cut_of(&Echo::default(), &[PING, HANG], NeverFlushed(&mut output)).await, 1);
    let said = String::from_utf8(output).unwrap();
    let ids: Vec<_> =
        said.lines().map(|it| serde_json::from_str::<Value>(it).unwrap()["id"].clone()).collect();
    assert_eq!(ids, [1, 2], "{said}");
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_knows_what_is_cut_from_what_its_caller_left() {
    for (lines, cut) in [(&[HANG][..], 1), (&[HANG, CANCEL_HANG], 0)] {
        let (echo, (output, _client)) = (Echo::default(), tokio::io::duplex(10_000));
        assert_eq!(cut_of(&echo, lines, output).await, cut);
        assert_eq!(echo.dropped_calls.load(Ordering::Relaxed), 1);
        assert_eq!(echo.cut_calls.load(Ordering::Relaxed) as u64, cut);
    }
}

#[tokio::test]
async fn what_listens_ends_with_the_input_and_counts_as_nothing_cut() {
    let echo = Echo::default();
    let listen =
        format!("{{\"id\":1,\"method\":\"{LISTEN}\",\"params\":{{\"notifications\":{{}}}}}}");
    let input = io::Cursor::new(rpc(&listen));
    let options = Options { drain_timeout: Duration::from_mins(10), ..OPTIONS };
    let ended = serve(echo, input, Vec::new(), options, CancellationToken::new()).await;
    assert_eq!(ended.unwrap(), 0);
}

#[tokio::test]
async fn stopping_ends_it_though_the_input_stays_open() {
    let (input, lines) = io::pipe().unwrap();
    let stopping = CancellationToken::new();
    let stop = stopping.clone();
    stop.cancel();
    assert_eq!(serve(Echo::default(), input, Vec::new(), OPTIONS, stopping).await.unwrap(), 0);
    drop(lines);
}

proptest! {
    #[test]
    fn lines_are_what_stands_between_line_feeds(
        lines in prop::collection::vec("[a-z ]{0,300}", 0..8),
    ) {
        let text = lines.join("\n");
        let mut input = io::BufReader::with_capacity(7, text.as_bytes());
        let mut read = Vec::new();
        while let Some(line) = next_line(&mut input, 200).unwrap() {
            read.push(match line {
                Line::Message(line) => Some(String::from_utf8(line).unwrap()),
                Line::TooLong => None,
            });
        }
        let expected = lines.iter().filter(|line| line.len() > 200 || !line.trim().is_empty());
        let expected: Vec<_> =
            expected.map(|line| (line.len() <= 200).then(|| line.clone())).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn no_line_makes_its_headers_fail(line in any::<Vec<u8>>(), name in any::<String>()) {
        let posted = Posted::new(line.into());
        let _headers = headers_of(posted.call.as_ref(), None);
        prop_assert!(headers::header_value(&name).is_some());
    }
}
